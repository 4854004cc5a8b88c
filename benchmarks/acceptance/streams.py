"""Whole streams through the replay, each with its example's config: how good, against whom, and from when on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.acceptance.rows import Options, Row, judged, shown, skipped
from benchmarks.data import DATA, ROOT, SOURCES, missing_data
from replay.mixtures import versions_behind

AHEAD_POINTS = 1.0
RIVALS = ("frozen_mixture", "online_head")
"""The cheap ones, which any training has to beat by so much."""
FIRST_WINDOWS = 4
BEHIND_POINTS = 0.5
"""In the first windows at most so far behind the best baseline."""
QUICK_EVENTS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Least shares in 0..1. `exam`: on the test set, at the end. `macro_f1`: above that of every baseline."""

    accuracy: float
    exam: float | None = None
    macro_f1: bool = False


WANTED = {
    "sentiment": Wanted(accuracy=0.775, exam=0.79),
    "airline": Wanted(accuracy=0.84),
    "steam": Wanted(accuracy=0.95, macro_f1=True),
    "clinc": Wanted(accuracy=0.80, exam=0.92),
}


def whole(name: str) -> Callable[[Options], list[Row]]:
    """A line that replays the stream of this name, and keeps its figures in a result file of its own."""

    def line(options: Options) -> list[Row]:
        source = SOURCES[name]
        events, test = source.events, source.test
        if reason := missing_data(events, *([test] if test else [])):
            return [skipped(f"{name}: the whole stream", reason)]
        from benchmarks.record import result_path, write_result
        from benchmarks.stream_quality import replayed
        from driftline.config import load_config

        config = load_config(ROOT / "examples" / f"{source.config}.toml")
        limit = options.limit or (QUICK_EVENTS if options.quick else source.limit)
        with replayed(config, next(iter(config.feed)), events, test, limit) as (_, report):
            found = figures(report)
        short = options.quick or options.limit is not None
        document = {"benchmark": "accept", "stream": events.relative_to(DATA).name, "limit": limit}
        write_result(result_path(f"stream_{name}", quick=short), document | found)
        return wanted_rows(f"{name}, {report['prequential']['n']:,} events", report, WANTED[name])

    return line


def figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """What of a report is kept: no windows, no classes."""
    promoted = sum(row["decision"] == "promoted" for row in report["versions"])
    exam = report["evaluation"].get("all")
    return {
        **{name: report[name] for name in ("config_sha256", "dtype", "events", "pulses", "seconds", "examples_per_s")},
        "prequential": _exam(report["prequential"]),
        "first": dict(first_events(report)),
        "from_first_version": report["after_cold_start"]["prequential"],
        "baselines": {name: _without(row, "windows") for name, row in report["baselines"].items()},
        "experts": {name: _without(row, "windows", "weights") for name, row in report["experts"].items()},
        "exam": exam,
        "versions": {"promoted": promoted, "rejected": len(report["versions"]) - promoted},
        "promotions": {
            row["version"]: _without(row["holdouts"], "ahead") for row in report["versions"] if row["holdouts"]
        },
        "requests_failed": report["swaps"]["requests_failed"],
    }


def _exam(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("accuracy", "macro_f1", "n")}


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def first_events(report: Mapping[str, Any]) -> dict[str, float]:
    """Accuracy over the first windows: `ours`, and each baseline that answered them."""
    sizes = [one["n"] for one in report["prequential"]["windows"][:FIRST_WINDOWS]]
    courses = {"ours": [one["accuracy"] for one in report["prequential"]["windows"]]}
    courses |= {name: row["windows"] for name, row in report["baselines"].items() if "windows" in row}
    return {
        name: sum(n * share for n, share in zip(sizes, course, strict=False)) / sum(sizes)
        for name, course in courses.items()
    }


def wanted_rows(what: str, report: Mapping[str, Any], wanted: Wanted) -> list[Row]:
    """Every figure of a stream that has a target, and what its experts were worth."""
    accuracy, failed = report["prequential"]["accuracy"], report["swaps"]["requests_failed"]
    return [
        _at_least(f"{what}: prequential", accuracy, wanted.accuracy),
        judged("  failed requests", str(failed), "0", failed == 0),
        *_exam_rows(report, wanted),
        _promotions_row(report),
        *([_macro_f1_row(report)] if wanted.macro_f1 else []),
        *(_ahead_row(name, report["baselines"][name]["ahead"]) for name in RIVALS),
        _first_row(report),
        shown("  answers with and without each expert", _experts(report)),
    ]


def _at_least(what: str, share: float, least: float) -> Row:
    return judged(what, f"{share:.4f}", f"at least {least:g}", share >= least)


def _exam_rows(report: Mapping[str, Any], wanted: Wanted) -> list[Row]:
    if wanted.exam is None:
        return []
    return [_at_least("  test set at the end", report["evaluation"]["all"]["accuracy"], wanted.exam)]


def _promotions_row(report: Mapping[str, Any]) -> Row:
    """Where the mixture was behind: by how many points, and the p-value of so great a loss if neither is better."""
    measured = sum(row["holdouts"] is not None for row in report["versions"])
    told = [
        f"version {row['version']} by {-100 * exam['ahead']['gap']:.2f} (p = {exam['p_value']:.2g} of {exam['n']:,})"
        for row in versions_behind(report)
        for exam in [row["holdouts"]]
    ]
    return judged(
        f"  of {measured} promoted versions, worse on the hold-outs mixed than by their head alone",
        ", ".join(told) or "none",
        "none",
        bool(measured) and not told,
    )


def _macro_f1_row(report: Mapping[str, Any]) -> Row:
    ours = report["prequential"]["macro_f1"]
    theirs = {name: row["macro_f1"] for name, row in report["baselines"].items() if "windows" in row}
    best = max(theirs, key=lambda name: theirs[name])
    figure = f"{ours:.4f}, {_spoken(best)} {theirs[best]:.4f}"
    return judged("  macro-F1", figure, "above every baseline", ours > theirs[best])


def _ahead_row(name: str, ahead: Mapping[str, float]) -> Row:
    gap, low, high = (100 * ahead[one] for one in ("gap", "low", "high"))
    what = f"  ahead of {_spoken(name)}, points [95 %]"
    return judged(what, f"{gap:.2f} [{low:.2f}, {high:.2f}]", f"at least {AHEAD_POINTS:g}", gap >= AHEAD_POINTS)


def _first_row(report: Mapping[str, Any]) -> Row:
    first, events = first_events(report), sum(one["n"] for one in report["prequential"]["windows"][:FIRST_WINDOWS])
    best = max((name for name in first if name != "ours"), key=lambda name: first[name])
    behind = 100 * (first[best] - first["ours"])
    return judged(
        f"  first {events:,} events",
        f"{first['ours']:.4f}, {_spoken(best)} {first[best]:.4f}",
        f"at most {BEHIND_POINTS:g} points behind the best baseline",
        behind <= BEHIND_POINTS,
    )


def _experts(report: Mapping[str, Any]) -> str:
    told = [f"{name} {row['ours']:.4f}/{row['without']:.4f}" for name, row in report["experts"].items() if row["n"]]
    return ", ".join(told) or "no fast clock"


def _spoken(name: str) -> str:
    return name.replace("_", " ")
