"""The sentiment stream: what replay is worth, how far joint training is away, and whether a replay can be repeated."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.acceptance.rows import Options, Row, judged, run_command, shown, skipped
from benchmarks.acceptance.streams import WANTED, wanted_rows
from benchmarks.data import CONFIG, HOLDOUT, ROOT, STREAM, missing_data

GAP_POINTS = 2.0
PROMOTED = 20
REPEATED_EVENTS = 2500
QUICK_EVENTS = 600
TIMES = ("seconds", "examples_per_s")
WITHIN_S = 7200.0


def stream(options: Options) -> list[Row]:
    """Replay of the whole stream with replay, without, and the joint bound."""
    if reason := missing_data(STREAM, HOLDOUT):
        return [skipped("sentiment_shift: replay, naive, joint", reason)]
    from benchmarks.record import result_path, write_result
    from benchmarks.stream_quality import measure, with_learner
    from driftline.config import load_config

    config = load_config(CONFIG)
    feed = next(iter(config.feed))
    limit = options.limit or (QUICK_EVENTS if options.quick else None)
    results = [measure(with_learner(config, feed, seed=seed), limit) for seed in range(options.seeds)]
    document = {"benchmark": "stream_quality", "limit": limit, "seeds": results}
    write_result(result_path("stream_quality", quick=limit is not None), document)
    return [row for seed, result in enumerate(results) for row in _stream_rows(seed, result)]


def _stream_rows(seed: int, result: dict[str, Any]) -> list[Row]:
    report, naive, joint = result["er"], result["naive"], result["joint"]
    promoted = sum(row["decision"] == "promoted" for row in report["versions"])
    gap, interval = joint["gap_points"], joint["gap_points_95"]
    shares = ", ".join(f"{one:.2f}" for one in interval)
    trained = report["examples_per_s"] or 0.0
    ours, theirs = report["evaluation"]["all"]["accuracy"], naive["evaluation"]["all"]["accuracy"]
    return [
        *wanted_rows(f"sentiment, seed {seed}", report, WANTED["sentiment"]),
        judged("  promoted versions", str(promoted), f"at least {PROMOTED}", promoted >= PROMOTED),
        *_rival_rows(report),
        judged("  gap to joint, points [95 %]", f"{gap:.2f} [{shares}]", f"at most {GAP_POINTS:g}", gap <= GAP_POINTS),
        shown("  hold-out: er / naive / joint", f"{ours:.4f} / {theirs:.4f} / {joint['accuracy']:.4f}"),
        shown("  forgetting, points: er / naive", f"{_points(report)} / {_points(naive)}"),
        shown("  prequential: naive", f"{naive['prequential']['accuracy']:.4f}"),
        shown("  trained examples/s, total time", f"{trained:.1f}/s, {report['seconds']['total']:.0f} s"),
    ]


def _rival_rows(report: dict[str, Any]) -> list[Row]:
    """Prequential accuracy against the blind rivals and the first version, on the same events."""
    baselines, ours = report["baselines"], report["prequential"]["accuracy"]
    first = baselines["first_version"]
    rows = [
        judged(
            f"  prequential {ours:.4f} against {name.replace('_', ' ')}",
            f"{baselines[name]['accuracy']:.4f}",
            "below ours",
            baselines[name]["accuracy"] < ours,
        )
        for name in ("majority", "last_label")
    ]
    frozen, beside = first["accuracy"], first["ours"]
    held = frozen is not None and frozen < beside
    figure = "–" if frozen is None else f"{frozen:.4f}, ours on its range {beside:.4f}"
    return [*rows, judged("  prequential against the frozen first version", figure, "below ours", held)]


def _points(report: dict[str, Any]) -> str:
    forgetting = report["retention"]["forgetting"]
    return "–" if forgetting is None else f"{100 * forgetting:.1f}"


def repeat(options: Options) -> list[Row]:
    """`driftline replay` of the first events twice: the same report, times aside."""
    what = "first events replayed twice: the same report, times aside"
    if reason := missing_data(STREAM, HOLDOUT):
        return [skipped(what, reason)]
    events = options.limit or (QUICK_EVENTS if options.quick else REPEATED_EVENTS)
    first, second = (replay_report(events) for _ in range(2))
    different = sorted(name for name in {*first, *second} if first.get(name) != second.get(name))
    figure = f"{events} events: {'the same' if not different else 'different: ' + ', '.join(different)}"
    return [judged(what, figure, "the same", not different)]


def replay_report(events: int) -> dict[str, Any]:
    """The report of one replay as a process of its own, without its times. RuntimeError if it fails."""
    with tempfile.TemporaryDirectory(prefix="driftline-accept-") as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-m", "driftline.cli", "replay", str(STREAM), "-c", str(CONFIG)]
        command += ["--eval", str(HOLDOUT), "--limit", str(events), "--report", str(out)]
        done = run_command(command, ROOT, WITHIN_S)
        if done.returncode:
            raise RuntimeError(f"driftline replay failed: {done.stderr[-1500:]}")
        return without_times(json.loads(out.read_text(encoding="utf-8")))


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    """The report without what a clock decided."""
    kept = {name: value for name, value in report.items() if name not in TIMES}
    swaps = {name: value for name, value in report["swaps"].items() if not name.startswith("pause_ms")}
    return kept | {"swaps": swaps}
