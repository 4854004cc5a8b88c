"""All benchmarks one after the other, and one table of their ratios: `make bench`.

    python -m benchmarks.run [--quick] [--only bank mixing learner ingest buffer promotion]

Each writes its own JSON below benchmarks/results. Run it on a machine that does nothing else.
"""

import argparse
import importlib
from collections.abc import Sequence
from typing import Any

from benchmarks.record import result_path, write_result
from driftline.assembly.logs import configure_logging
from driftline.cli.output import print_table, say

NAMES = ("bank", "mixing", "learner", "ingest", "buffer", "promotion")

Row = tuple[str, str, str]


def run_one(name: str, *, quick: bool) -> dict[str, Any]:
    """Run a benchmark, print its own table, write its result."""
    module = importlib.import_module(f"benchmarks.{name}")
    result: dict[str, Any] = module.run(quick)
    module.announce(result)
    write_result(result_path(name, quick=quick), result)
    return result


def rows_of(result: dict[str, Any]) -> list[Row]:
    """A result's figures as rows of the one table: what, figure, against what."""
    rows: list[Row] = _ROWS[result["benchmark"]](result)
    return rows


def _bank(result: dict[str, Any]) -> list[Row]:
    peers = {
        "bank, one version, merged": "plain base",
        "bank, one version, stacked": "plain base",
        "bank, eight versions mixed": "plain base",
        "PEFT, one adapter": "plain base",
        "PEFT, eight adapter_names mixed": "plain base",
    }
    forward, engine = result["forward"]["contenders"], result["engine"]["contenders"]
    return [
        *_ratios("texts/s", forward, peers),
        *_ratios("texts/s", engine, {name: "plain base, text to features" for name in engine if name != "plain base"}),
    ]


def _mixing(result: dict[str, Any]) -> list[Row]:
    pulses = result["pulses"]
    return [
        *(
            row
            for size, one in result["answers"].items()
            for row in _ratios(f"texts/s in {size}", one["contenders"], {"mixed": "the head alone"})
        ),
        ("mixing held by a pulse", f"p99 {pulses['held_ms']['p99']:.3f} ms", f"{pulses['pulses']} pulses"),
    ]


def _learner(result: dict[str, Any]) -> list[Row]:
    reference = "Trainer + PEFT"
    return _ratios(
        "examples/s trained", result["contenders"], {"Driftline": reference, f"{reference}, no dropout": reference}
    )


def _ingest(result: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for kind, reference in (("kafka", "kafka-python's poll"), ("files", "our reader's poll")):
        if "skipped" in result[kind]:
            rows.append((f"events/s from {kind}", "skipped", result[kind]["skipped"].splitlines()[0]))
            continue
        rows += _ratios(f"events/s from {kind}", result[kind]["contenders"], {"ingest": reference})
        rows.append((f"  of it fsync, {kind}", f"{100 * result[kind]['fsync_share']:.0f} %", "ingest without fsync"))
    return rows


def _buffer(result: dict[str, Any]) -> list[Row]:
    worst = max(result["operations"], key=lambda name: result["operations"][name]["ratio"]["median"])
    ratio = result["operations"][worst]["ratio"]["median"]
    before = " against ".join(f"{result['cycles'][name]:,}" for name in ("old", "young"))
    return [(f"the buffer's slowest operation: {worst}", f"{ratio:.2f} of the time", f"{before} cycles")]


def _promotion(result: dict[str, Any]) -> list[Row]:
    pause = result["engine_pause_ms"]
    return [
        ("promotion to first answer", _p50_p99(result["first_answer_ms"]), f"{result['promotions']} promotions"),
        ("  … of every replica", _p50_p99(result["all_replicas_ms"]), f"{result['requests_failed']} requests failed"),
        ("  engine held by a swap", f"p50 {pause['p50']:.3f} ms, max {pause['max']:.3f} ms", f"{pause['n']} swaps"),
    ]


_ROWS = {
    "bank": _bank,
    "mixing": _mixing,
    "learner": _learner,
    "ingest": _ingest,
    "buffer": _buffer,
    "promotion": _promotion,
}


def _ratios(unit: str, compared: dict[str, Any], peers: dict[str, str]) -> list[Row]:
    return [
        (
            f"{unit}: {name}",
            f"{compared[name]['per_s']['median']:,.0f}",
            f"{compared[name]['ratio']['median']:.2f} of {peer}",
        )
        for name, peer in peers.items()
    ]


def _p50_p99(found: dict[str, float]) -> str:
    return f"p50 {found['p50']:.0f} ms, p99 {found['p99']:.0f} ms"


def announce_all(results: Sequence[dict[str, Any]]) -> None:
    """The one table."""
    rows = [row for result in results for row in rows_of(result)]
    print_table(("figure", ">value", "against, in the same run"), rows, title="\nAll benchmarks")


def main() -> None:
    configure_logging()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke sizes: figures that mean nothing")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="which ones")
    options = parser.parse_args()
    if options.quick:
        say("smoke sizes: these figures mean nothing")
    announce_all([run_one(name, quick=options.quick) for name in options.only])


if __name__ == "__main__":
    main()
