"""The accuracy chart as data for the page's script. Pure.

A line is told from the others by its dash, its width and its symbol before it is by its colour, so that grey print and
every eye can read it; colours are the style sheet's, one variable a key.
"""

from typing import Any, NamedTuple

from replay.comparison import NAMES, OURS
from replay.tables import RIVALS, accuracy_table


class Style(NamedTuple):
    """Width and dash in CSS pixels; `symbol`: an SVG path around the origin."""

    width: float
    dash: tuple[int, ...]
    symbol: str


STYLES = {
    "ours": Style(3.0, (), "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z"),
    "frozen_mixture": Style(2.2, (16, 3, 3, 3), "M0-5L4.5 4L-4.5 4z"),
    "online_head": Style(1.8, (12, 4), "M-3.5-3.5h7v7h-7z"),
    "last_label": Style(1.8, (5, 4), "M0-5L5 0L0 5L-5 0z"),
    "majority": Style(1.8, (2, 3), "M-3.5-3.5L3.5 3.5M3.5-3.5L-3.5 3.5"),
}


def lines(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Key, name, style and the accuracy of each window; ours first."""
    table = accuracy_table(report)
    values = list(zip(*table.rows, strict=True))[-len(STYLES) :]
    return [
        {"key": key.replace("_", "-"), "name": name, **STYLES[key]._asdict(), "values": values[place]}
        for place, (key, name) in enumerate([("ours", OURS), *((rival, NAMES[rival]) for rival in RIVALS)])
    ]


def chart(report: dict[str, Any]) -> dict[str, Any] | None:
    """What the script draws: x (the middle of each window), lines, what stands beside a window's figures, and swaps at
    the number of labelled events before them. None where no event was labelled."""
    windows = report["prequential"]["windows"]
    if not windows:
        return None
    return {
        "events": report["prequential"]["n"],
        "x": [(one["start"] + one["end"]) / 2 for one in windows],
        "lines": lines(report),
        "notes": [_note(*row[:4]) for row in accuracy_table(report).rows],
        "swaps": [one["scored"] for one in report["swaps"]["at_event"]],
    }


def _note(start: int, end: int, version: int, swaps: str) -> str:
    live = f" (went live: {swaps})" if swaps else ""
    return f"Events {start:,} to {end:,}, version {version}{live}"
