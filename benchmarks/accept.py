"""What Driftline must show, in full size, as one table: `make accept`. It takes as long as it takes.

    python -m benchmarks.accept [--only NAME …] [--quick] [--limit N] [--seeds N]

Every line is kept in benchmarks/results/accept.json with the commit, machine and time of its own run, so that one line
can be run again alone. The streams are looked for in DRIFTLINE_DATA (default ../shared/data); without, what needs them
is skipped, and said. `--quick` runs smoke sizes, whose figures mean nothing, into another file. Exit code 1 if a target
is not met.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.acceptance.lines import LINES
from benchmarks.acceptance.rows import Options, Row
from benchmarks.record import circumstances, result_path
from driftline.assembly.logs import configure_logging
from driftline.cli.output import print_table, say


def run_line(name: str, options: Options) -> list[Row]:
    """One line's rows; an error is a row that is not met, so that the other lines still run."""
    try:
        return LINES[name](options)
    except Exception as error:  # noqa: BLE001  the process's edge: told in the table
        why = f"{type(error).__name__}: {str(error).strip()[-1500:]}"
        return [Row(what=name, figure="did not run through", target="–", verdict="not met", why=why)]


def keep(path: Path, name: str, rows: list[Row], seconds: float) -> None:
    """Put the line into the result file beside the others; replaced as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = read(path)
    document["lines"][name] = {
        "rows": [row.document() for row in rows],
        "seconds": round(seconds, 1),
        **circumstances(),
    }
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def read(path: Path) -> dict[str, Any]:
    """The result file, or an empty one."""
    if not path.exists():
        return {"benchmark": "accept", "lines": {}}
    return dict(json.loads(path.read_text(encoding="utf-8")))


def show(rows: list[Row], title: str) -> None:
    """Rows as a table, and below it why something is not met or skipped."""
    cells = [(row.what, row.figure, row.target, row.verdict) for row in rows]
    print()
    print_table(("what", "figure", "target", "verdict"), cells, title=title)
    for row in rows:
        if row.verdict in ("not met", "skipped") and row.why:
            print(f"{row.verdict}: {row.what.strip()}: {row.why}")


def main() -> None:
    configure_logging()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=list(LINES), default=list(LINES), metavar="NAME", help="which lines"
    )
    parser.add_argument("--quick", action="store_true", help="smoke sizes: figures that mean nothing")
    parser.add_argument("--limit", type=int, help="only the first N events of the stream")
    parser.add_argument("--seeds", type=int, default=int(os.environ.get("SEEDS", "1")), help="default SEEDS, else 1")
    given = parser.parse_args()
    options = Options(quick=given.quick, limit=given.limit, seeds=given.seeds)
    path = result_path("accept", quick=given.quick or given.limit is not None)
    rows: list[Row] = []
    for name in given.only:
        say(f"… {name}")
        start = time.monotonic()
        found = run_line(name, options)
        keep(path, name, found, time.monotonic() - start)
        show(found, name)
        rows += found
    about = circumstances()
    show(rows, f"Driftline {about['commit']} on {about['machine']['cores']} cores of {about['machine']['processor']}")
    say(f"written: {path}")
    sys.exit(any(row.verdict == "not met" for row in rows))


if __name__ == "__main__":
    main()
