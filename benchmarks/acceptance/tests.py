"""Items that tests of the suite show in full size: their files are run, each line in a pytest process of its own."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.acceptance.rows import Options, Row, judged, run_command, skipped, told
from benchmarks.data import ROOT

WITHIN_S = 3600.0


def tests_of(what: str, *patterns: str) -> Callable[[Options], list[Row]]:
    """A line that runs the test files that match any of the patterns below tests/."""

    def line(_: Options) -> list[Row]:
        files = sorted({str(path.relative_to(ROOT)) for one in patterns for path in (ROOT / "tests").glob(one)})
        if not files:
            return [skipped(what, f"no test file matches {', '.join(patterns)}")]
        code, counts = run_tests(files)
        held = code == 0 and not counts["skipped"]
        return [judged(what, told(counts), "all pass, none skipped", held, ", ".join(files))]

    return line


def run_tests(files: Sequence[str]) -> tuple[int, dict[str, int]]:
    """pytest's exit code and counts for these files, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="driftline-accept-") as folder:
        out = Path(folder) / "junit.xml"
        done = run_command([sys.executable, "-m", "pytest", "-q", f"--junitxml={out}", *files], ROOT, WITHIN_S)
        if not out.exists():
            raise RuntimeError(f"pytest did not run: {(done.stdout + done.stderr)[-1500:]}")
        suite = next(ElementTree.parse(out).getroot().iter("testsuite"))
    count = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    return done.returncode, {
        "passed": count["tests"] - failed - count["skipped"],
        "failed": failed,
        "skipped": count["skipped"],
    }
