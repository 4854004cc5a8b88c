"""How the served answers stand against the baselines, in rows and sentences that the summary and the page share. Pure.

Over the whole stream, and after the cold start: from the first answer of a trained version on.
"""

from typing import Any, NamedTuple

from driftline.phrases import count_of, percent

OURS = "Driftline, as served"
NAMES = {
    "frozen_mixture": "experts on the frozen base",
    "online_head": "online head on the frozen base",
    "last_label": "last label",
    "majority": "majority label",
    "first_version": "first version, frozen",
}


class Row(NamedTuple):
    """Accuracy and macro-F1 over the whole stream, and after the cold start; None where there is none."""

    name: str
    whole: float | None
    macro_f1: float | None
    warm: float | None
    warm_macro_f1: float | None


def comparison_rows(report: dict[str, Any]) -> list[Row]:
    """Ours and the baselines, best over the whole stream first; the first version was not there for all of it."""
    warm = report["after_cold_start"]
    rows = [_row(OURS, report["prequential"], warm["prequential"])]
    for key, name in NAMES.items():
        whole = {} if key == "first_version" else report["baselines"][key]
        rows.append(_row(name, whole, warm["baselines"][key]))
    return sorted(rows, key=lambda row: -1.0 if row.whole is None else row.whole, reverse=True)


def _row(name: str, whole: dict[str, Any], warm: dict[str, Any]) -> Row:
    return Row(name, whole.get("accuracy"), whole.get("macro_f1"), warm["accuracy"], warm.get("macro_f1"))


def verdict(report: dict[str, Any]) -> str:
    """Where we stand over the whole stream, also where a baseline wins."""
    if not report["prequential"]["n"]:
        return "No event got a label that could be used, so there is nothing to compare."
    return f"Over the whole stream Driftline was right for {_standing(report)}."


def verdict_after_cold_start(report: dict[str, Any]) -> str:
    """The same from the first answer of a trained version on, and what was before; nothing if there was no such."""
    warm = report["after_cold_start"]
    if not warm["prequential"]["n"]:
        return ""
    cold = report["prequential"]["n"] - warm["prequential"]["n"]
    version = report["baselines"]["first_version"]["version"]
    return (
        f"{count_of(cold, 'event')} came before version {version}, the first to go live, and so counted as wrong."
        f" After this cold start Driftline was right for {_standing(warm)}."
    )


def _standing(stretch: dict[str, Any]) -> str:
    """`62.3 % of 1,500 events, 11.5 points behind the best baseline, last label (73.8 %)`. `stretch` is the report or
    its `after_cold_start`; only baselines on all of its events are compared."""
    ours = stretch["prequential"]
    rivals = {name: row["accuracy"] for name, row in stretch["baselines"].items() if row["n"] == ours["n"]}
    best = max(rivals, key=lambda name: rivals[name])
    points = round(100 * (ours["accuracy"] - rivals[best]), 1)
    distance = f"{abs(points):.1f} points {'before' if points > 0 else 'behind'}" if points else "level with"
    rival = f"the best baseline, {NAMES[best]} ({percent(rivals[best])})"
    return f"{percent(ours['accuracy'])} of {count_of(ours['n'], 'event')}, {distance} {rival}"
