"""The verb `driftline replay`: options in, report and page out."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from driftline.assembly.logs import configure_logging
from driftline.assembly.signals import unwound_by_signals
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, FeedOption, choose_feed
from driftline.cli.output import check_writable, err, print_json, say
from driftline.config import load_config
from driftline.errors import UsageError
from driftline.phrases import count_of
from replay.source import check_events
from replay.words import no_usable_event, nothing_learned

EventsArgument = Annotated[list[Path], typer.Argument(metavar="EVENTS.jsonl…", help="Events files, gzip or not.")]
SpeedOption = Annotated[
    str, typer.Option("--speed", metavar="max|real|N", help="As fast as it goes, or N times real time.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N events.")]
EvalOption = Annotated[
    Path | None, typer.Option("--eval", metavar="FILE", help="Labelled events to measure the final version on.")
]
StateOption = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="Keep the run's state here (new or empty).")
]
ReportOption = Annotated[Path | None, typer.Option("--report", metavar="OUT.json", help="Write the report here.")]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="OUT.html", help="Write a page with the plots here.")
]
LINE_EVENTS = 1000
"""Where there is no bar: a line at least every so many events, and every tenth of the stream."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print the report instead of the summary.")]


def replay(
    events: EventsArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    speed: SpeedOption = "max",
    limit: LimitOption = None,
    evaluation: EvalOption = None,
    state: StateOption = None,
    report: ReportOption = None,
    plot: PlotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recorded stream through the real pipeline, on a state of its own, and measure it. Exit code 1 if not one
    event could be used."""
    configure_logging()
    loaded = load_config(config)
    chosen = choose_feed(loaded, feed)
    factor = speed_factor(speed)
    total = check_events(events)
    if evaluation:
        check_events([evaluation])
    for output in (report, plot):
        if output is not None:
            _check_output(output)
    err.print("Loading the base model …")
    from replay.laboratory import run_replay, write_outputs

    with unwound_by_signals(), Progress(min(total, limit or total)) as progress:
        document = run_replay(
            loaded,
            chosen,
            events,
            evaluation=evaluation,
            state=state,
            limit=limit,
            factor=factor,
            on_step=progress.update,
        )
    write_outputs(document, report, plot)
    if as_json:
        if warning := nothing_learned(document):
            err.print(f"[bold yellow]warning:[/] {escape(warning)}")
        print_json(document)
    else:
        from replay.summary import summarise

        say(summarise(document))
        if written := [str(path) for path in (report, plot) if path is not None]:
            say(escape(f"wrote {' and '.join(written)}"))
    if no_usable_event(document):
        raise typer.Exit(1)


def _check_output(path: Path) -> None:
    """Before the run, since after it hours would be lost."""
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: its folder does not exist: make it first")
    check_writable(path)


def speed_factor(speed: str) -> float | None:
    """`max` → None, `real` → 1, a number → itself. UsageError otherwise."""
    if speed in ("max", "real"):
        return None if speed == "max" else 1.0
    try:
        factor = float(speed)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(f"--speed {speed}: use max, real, or a number above 0 (2 is twice real time)")
    return factor


class Progress:
    """How far the replay is, on stderr: a bar on a terminal, elsewhere a line now and then."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("replay"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=total)
        self._step = min(LINE_EVENTS, max(total // 10, 1))
        self._next_line = self._step

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, driver: Any) -> None:
        """Told after every batch and every cycle."""
        swaps, cycles = driver.tally.swaps, driver.tally.cycles
        live = f"live version {swaps[-1][0]}" if swaps else "no version yet"
        state, events = f"{live}, {count_of(len(cycles), 'update')}", driver.tally.events
        self._bar.update(self._task, completed=events, description=state)
        if not err.is_terminal and events >= self._next_line:
            self._next_line = events - events % self._step + self._step
            err.print(f"replay: {count_of(events, 'event')}, {state}")
