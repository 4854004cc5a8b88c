"""All verbs, by name, and the process edge: errors become one message and an exit code."""

from collections.abc import Callable
from typing import Annotated

import typer

from driftline import __version__
from driftline.assembly.logs import configure_logging
from driftline.cli import admin, processes
from driftline.cli.check import check
from driftline.cli.deadletters import dead_letters
from driftline.cli.demo import demo
from driftline.cli.examples import examples
from driftline.cli.exchange import export, import_
from driftline.cli.history import history
from driftline.cli.init import init
from driftline.cli.output import say, say_error
from driftline.cli.produce import produce
from driftline.cli.replay import replay
from driftline.cli.status import status
from driftline.cli.up import up
from driftline.cli.update_now import update_now
from driftline.errors import DriftlineError

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "Start": {"demo": demo, "init": init, "check": check},
    "Run": {
        "up": up,
        "ingest": processes.ingest,
        "learn": processes.learn,
        "adapt": processes.adapt,
        "serve": processes.serve,
        "score": processes.score,
        "stop": processes.stop,
        "produce": produce,
        "replay": replay,
    },
    "Watch": {"status": status, "history": history, "examples": examples},
    "Decide": {
        "promote": admin.promote,
        "rollback": admin.rollback,
        "pause": admin.pause,
        "resume": admin.resume,
        "update-now": update_now,
        "export": export,
        "import": import_,
    },
}

app = typer.Typer(
    name="driftline",
    help="Keeps a text model current with a live stream: small LoRA updates with replay, a gate, hot-swapped adapters.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for panel, verbs in PANELS.items():
    for verb, function in verbs.items():
        app.command(verb, rich_help_panel=panel)(function)
app.add_typer(dead_letters, name="dead-letters", rich_help_panel="Watch")


def _version(asked: bool) -> None:
    if asked:
        say(f"driftline {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version  # its callback has answered
    configure_logging()


def run() -> None:
    """Run the command line. A DriftlineError is printed without traceback; anything else is a bug and keeps it."""
    try:
        app()
    except DriftlineError as error:
        say_error(str(error))
        raise SystemExit(error.exit_code) from None
