"""What verbs print: tables and sentences for people on stdout, JSON for scripts, errors and progress on stderr.

Guards that nothing which came from outside (labels, sources, ids, actors, reasons, topics) steers the terminal: every
string passes `harmless` here, on its way out, and cells of tables `one_line`.
"""

import dataclasses
import errno
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from driftline.errors import UsageError
from driftline.records import iso
from driftline.terminal import STEERING, harmless, one_line

PIPE_COLUMNS = 160
"""Width of tables where the output is no terminal and COLUMNS does not say."""
HINT = re.compile("`driftline ([^`]+)`")
WITHOUT_CONFIG = ("init", "demo")


class _Terminal(Console):
    """A console that prints no string as it came."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(harmless(one) if isinstance(one, str) else one for one in objects), **options)


def _width() -> int | None:
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_COLUMNS


out = _Terminal(highlight=False, soft_wrap=True, width=_width())
err = _Terminal(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line for people. `text` is rich markup: escape what users wrote."""
    out.print(text)


def say_error(message: str) -> None:
    """An error without traceback, on stderr, first line marked, its hints as in `with_commands`."""
    err.print(f"[bold red]error:[/] {escape(with_commands(message))}")


def with_commands(message: str) -> str:
    """Hints from below the command line, "`driftline VERB`", as commands that can be typed here."""
    return HINT.sub(lambda hint: f"`{_typed(hint[1])}`", message)


def print_json(document: object) -> None:
    """One JSON document on stdout; times as ISO 8601, dataclasses as objects. What steers a terminal is escaped."""
    written = json.dumps(document, ensure_ascii=False, indent=2, default=_plain)
    sys.stdout.write(STEERING.sub(lambda found: json.dumps(found[0])[1:-1], written) + "\n")


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def this_command() -> str:
    """The command to name in a hint, so that it can be typed: `driftline` where the shell finds it, else its path."""
    typed, found = Path(sys.argv[0]).absolute(), shutil.which("driftline")
    if typed.name != "driftline" or not typed.is_file() or (found is not None and Path(found).absolute() == typed):
        return "driftline"
    here = Path.cwd()
    return shlex.quote(str(typed.relative_to(here) if typed.is_relative_to(here) else typed))


class _Named:
    """The config file that this process was told to use; None: the one that verbs take by default."""

    config: Path | None = None


def name_config(path: Path | None) -> None:
    """Remember the config file as the user named it, for hints; None: the default one, which needs no naming."""
    _Named.config = path


def to_type(verb: str) -> str:
    """What to type, for a hint: this command with the verb, its arguments, and the config file that was named."""
    config = "" if _Named.config is None else f" -c {shlex.quote(str(_Named.config))}"
    return f"{this_command()} {verb}{config}"


def _typed(hint: str) -> str:
    complete = hint.startswith(WITHOUT_CONFIG) or " -c " in hint
    return f"{this_command()} {hint}" if complete else to_type(hint)


def check_writable(path: Path) -> None:
    """UsageError if a file cannot be written at `path` (folders above it may be missing). Leaves nothing behind."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror}): name another place") from None


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table whose cells are shown as they are (no markup); columns of numbers belong to the right, name them `>n`."""
    table = Table(
        title=None if title is None else one_line(title),
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for column in columns:
        table.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(escape("" if cell is None else one_line(str(cell))) for cell in row))
    out.print(table, soft_wrap=False)
