"""A clean clone: the first commands, and what continuous integration runs, timed."""

import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.acceptance.rows import Options, Row, judged, run_command, skipped, told
from benchmarks.data import ROOT

CI_MINUTES = 20.0
WITHIN_S = 5400.0


def clean_clone(options: Options) -> list[Row]:
    """`make demo` first in one clone; `make test` (one file) first in another, and `.ci/run` there, timed."""
    if options.quick:
        return [skipped("clean clone: make demo, make test, .ci/run", "not with --quick")]
    with tempfile.TemporaryDirectory(prefix="driftline-accept-") as folder:
        first, second = (_clone(Path(folder) / name) for name in ("demo", "test"))
        one_file = ["make", "test", "PYTEST_ARGS=tests/unit/test_config.py"]
        rows = [
            _command("make demo as the first command", first, ["make", "demo"], "exit code 0"),
            _command("make test as the first command (one file)", second, one_file, "exit code 0"),
        ]
        return [*rows, *_ci(second)]


def _clone(folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    return folder


def _command(what: str, folder: Path, command: Sequence[str], target: str) -> Row:
    start = time.monotonic()
    done = run_command(command, folder, WITHIN_S)
    return judged(what, f"exit code {done.returncode} in {time.monotonic() - start:.0f} s", target, not done.returncode)


def _ci(folder: Path) -> list[Row]:
    start = time.monotonic()
    done = run_command([".ci/run"], folder, WITHIN_S)
    minutes = (time.monotonic() - start) / 60
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout[-2000:])}
    skips = counts.get("skipped", 0)
    failed = ", ".join(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE))
    held = done.returncode == 0 and minutes < CI_MINUTES
    return [
        judged(".ci/run after the first installation", f"{minutes:.1f} min", f"under {CI_MINUTES:.0f} min", held),
        judged("  its tests", told(counts), "all pass, none skipped", not done.returncode and not skips, failed),
    ]
