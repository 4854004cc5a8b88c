"""How the served answers stand against the baselines, in rows and sentences that the summary and the page share. Pure.

Over the whole stream, and from the first version on: from the first answer of a trained version. Reports call that
stretch `after_cold_start`; before it the fast clock answers, and without one nobody.
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
    """Accuracy and macro-F1 over the whole stream, and (warm) from the first version on; None where there is none."""

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


def verdict_from_first_version(report: dict[str, Any]) -> str:
    """The same from the first answer of a trained version on, and what was before; nothing if there was no such."""
    warm = report["after_cold_start"]
    if not warm["prequential"]["n"]:
        return ""
    version = report["baselines"]["first_version"]["version"]
    since = f"From version {version} on Driftline was right for {_standing(warm)}."
    return " ".join(filter(None, (_before(report, version), since)))


def _before(report: dict[str, Any], version: int) -> str:
    """Who answered before the first version, and how well; nothing where no event came before it."""
    whole, warm = report["prequential"], report["after_cold_start"]["prequential"]
    n = whole["n"] - warm["n"]
    if not n:
        return ""
    right = round(whole["accuracy"] * whole["n"] - warm["accuracy"] * warm["n"])
    came = f"{count_of(n, 'event')} came before version {version}, the first to go live"
    if not report["experts"]:
        return f"{came}, and so counted as wrong."
    return f"{came}: {percent(right / n)} of them were answered right, by the fast clock alone."


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
