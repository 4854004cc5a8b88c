"""Rows of the acceptance table, and what all lines share."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import DATA


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table. `why` says what is behind a verdict other than `met`."""

    what: str
    figure: str
    target: str
    verdict: str
    why: str = ""

    def document(self) -> dict[str, str]:
        """JSON-ready."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How much to run. `limit` shortens the stream; None: all of it."""

    quick: bool = False
    limit: int | None = None
    seeds: int = 1


def judged(what: str, figure: str, target: str, held: bool, why: str = "") -> Row:
    """A row with a target."""
    return Row(what=what, figure=figure, target=target, verdict="met" if held else "not met", why=why)


def shown(what: str, figure: str) -> Row:
    """A row without one."""
    return Row(what=what, figure=figure, target="–", verdict="shown")


def skipped(what: str, why: str) -> Row:
    """A row that could not be run here."""
    return Row(what=what, figure="–", target="–", verdict="skipped", why=why)


def told(counts: Mapping[str, Any]) -> str:
    """`passed 12, failed 0`."""
    return ", ".join(f"{str(name).replace('_', ' ')} {value}" for name, value in counts.items())


def run_command(command: Sequence[str], folder: Path, within_s: float) -> "subprocess.CompletedProcess[str]":
    """A command in a folder to its end, its output kept, without this process's virtual environment, on its streams.

    subprocess.TimeoutExpired beyond `within_s`.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment["DRIFTLINE_DATA"] = str(DATA)  # the default is relative to a checkout
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=within_s
    )
