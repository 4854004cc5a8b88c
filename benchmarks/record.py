"""How a benchmark tells its result: a table on the terminal, and JSON with what it was measured on."""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.rounds import rows_of
from driftline.assembly.logs import configure_logging
from driftline.cli.output import print_table
from driftline.records import iso

RESULTS = Path(__file__).parent / "results"
QUICK = "quick"
"""Folder below the results for smoke runs: their figures mean nothing and are not kept."""


def options_of(parser: argparse.ArgumentParser, name: str) -> argparse.Namespace:
    """Parse the command line, with the options that all benchmarks have: --quick and --out. Logs: warnings only."""
    configure_logging()
    parser.add_argument("--quick", action="store_true", help="smoke sizes: seconds, and figures that mean nothing")
    parser.add_argument("--out", type=Path, help="where the result goes (default benchmarks/results/NAME.json)")
    options = parser.parse_args()
    options.out = options.out or result_path(name, quick=options.quick)
    return options


def result_path(name: str, *, quick: bool) -> Path:
    """Where a benchmark's result goes; smoke runs never overwrite a measured one."""
    return (RESULTS / QUICK if quick else RESULTS) / f"{name}.json"


def announce(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print figures as a two-column table."""
    print()
    print_table(("figure", ">value"), rows, title=title)


def announce_ratios(title: str, groups: Mapping[str, Mapping[str, Mapping[str, Any]]], reference: str) -> None:
    """Print what `rounds.compare` found, by group: median per second, range of the rounds, ratio to the reference."""
    rows = [row for name, compared in groups.items() for row in [(name, "", "", ""), *rows_of(compared)]]
    print()
    print_table(("", ">per second", ">lowest – highest", f">{reference}"), rows, title=title)


def announce_document(title: str, document: Mapping[str, Any]) -> None:
    """Print a flat document as a two-column table, inner documents as `name value, …`."""
    announce(title, [(key.replace("_", " "), _told(value)) for key, value in document.items()])


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_told(one)}" for key, one in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write the result with commit, machine and command; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result | circumstances(), indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


def circumstances() -> dict[str, Any]:
    """Commit, machine, versions, command and time of this run."""
    import torch

    return {
        "at": iso(datetime.now(UTC)),
        "commit": commit(),
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.platform(terse=True),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def commit() -> str:
    """The commit measured, marked if the tree had changes other than results like this one."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return (_git("rev-parse", "--short=12", "HEAD") or "unknown") + ("-dirty" if changed else "")


def _git(*arguments: str) -> str:
    root = Path(__file__).parents[1]
    return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout.strip()


def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
