"""The page's charts as data for its script: accuracy by window, and the experts' weights. Pure.

A line is told from the others by its dash, its width and its symbol before it is by its colour, so that grey print and
every eye can read it; colours are the style sheet's, one variable a key.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from replay.comparison import NAMES, OURS
from replay.tables import RIVALS, Table, accuracy_table, alone, weight_table

__all__ = ["STYLES", "Style", "accuracy_chart", "weight_chart"]


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
    "head": Style(2.4, (24, 3), "M0 5L4.5-4L-4.5-4z"),
    "ridge": Style(2.0, (10, 3), "M-4.5 0H4.5M0-4.5V4.5"),
    "words": Style(2.0, (7, 3, 2, 3), "M-4.5-4V4L4.5-4V4z"),
    "chars": Style(2.0, (4, 2), "M-4-4.5H4L-4 4.5H4z"),
    "names": Style(2.0, (2, 2), "M-5 0L0-3L5 0L0 3z"),
}


def accuracy_chart(report: dict[str, Any]) -> dict[str, Any] | None:
    """Ours first, then the baselines; each expert alone, hidden until it is asked for. None where no event was
    labelled."""
    keys = ["ours", *RIVALS, *report["experts"]]
    names = [OURS, *(NAMES[rival] for rival in RIVALS), *map(alone, report["experts"])]
    table = accuracy_table(report)
    lines = [
        _line(key, name, values) | {"shown": key not in report["experts"]}
        for key, name, values in zip(keys, names, _columns(table, len(keys)), strict=True)
    ]
    return _chart(report, table, lines, unit="share", top=1.0)


def weight_chart(report: dict[str, Any]) -> dict[str, Any] | None:
    """The mean weight of each expert in each window. None without experts or labelled events."""
    if not report["experts"]:
        return None
    table = weight_table(report)
    columns = _columns(table, len(report["experts"]))
    lines = [
        _line(name, name, values) | {"shown": True} for name, values in zip(report["experts"], columns, strict=True)
    ]
    return _chart(report, table, lines, unit="weight", top=_top(columns))


def _chart(
    report: dict[str, Any], table: Table, lines: list[dict[str, Any]], *, unit: str, top: float
) -> dict[str, Any] | None:
    """What the script draws: x (the middle of each window), lines, what stands beside a window's figures, and swaps at
    the number of labelled events before them."""
    windows = report["prequential"]["windows"]
    if not windows:
        return None
    return {
        "events": report["prequential"]["n"],
        "unit": unit,
        "top": top,
        "x": [(one["start"] + one["end"]) / 2 for one in windows],
        "lines": lines,
        "notes": [_note(*row[:4]) for row in table.rows],
        "swaps": [one["scored"] for one in report["swaps"]["at_event"]],
    }


def _line(key: str, name: str, values: Sequence[float | None]) -> dict[str, Any]:
    return {"key": key.replace("_", "-"), "name": name, **STYLES[key]._asdict(), "values": values}


def _columns(table: Table, last: int) -> list[Sequence[float | None]]:
    """The last columns of a table."""
    return [[row[place] for row in table.rows] for place in range(-last, 0)]


def _top(columns: Iterable[Sequence[float | None]]) -> float:
    """A little more than the greatest value."""
    return 1.05 * max((value for values in columns for value in values if value), default=1.0)


def _note(start: int, end: int, version: int, swaps: str) -> str:
    live = f" (went live: {swaps})" if swaps else ""
    return f"Events {start:,} to {end:,}, version {version}{live}"
