"""What the page draws, as tables: to read where nothing is drawn, and to take away as CSV. Pure."""

import base64
import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from replay.comparison import NAMES, OURS
from replay.evaluation import Matrix

RIVALS = ("frozen_mixture", "online_head", "last_label", "majority")
"""The baselines that answer the whole stream, as the chart and its table have them."""


class Table(NamedTuple):
    """Columns and rows. Shares are in 0..1; None where there is nothing."""

    head: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    @property
    def link(self) -> str:
        """The table as CSV (RFC 4180, UTF-8), inside a link that needs neither script nor server."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.head, *self.rows])
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text.getvalue().encode()).decode()


WINDOW = ("from event", "to event", "version", "went live")


def accuracy_table(report: dict[str, Any]) -> Table:
    """A window a row: its events, counted from 1, the version of its last one, the swaps in it, every accuracy; of
    experts alone, one that said nothing was not right."""
    rivals = [report["baselines"][name]["windows"] for name in RIVALS]
    experts = [row["windows"] for row in report["experts"].values()]
    courses = [[one["accuracy"] for one in report["prequential"]["windows"]], *rivals, *experts]
    names = (OURS, *(NAMES[name] for name in RIVALS), *map(alone, report["experts"]))
    return _windowed(report, names, courses)


def weight_table(report: dict[str, Any]) -> Table:
    """A window a row, as above: the mean weight of each expert in its answers; None where it was in none."""
    return _windowed(report, tuple(report["experts"]), [row["weights"] for row in report["experts"].values()])


def alone(expert: str) -> str:
    """What an expert's own answers are called."""
    return f"{expert} alone"


def _windowed(report: dict[str, Any], names: Sequence[str], courses: Sequence[Sequence[float | None]]) -> Table:
    rows = [
        (one["start"] + 1, one["end"], one["version"], _swaps(report, one), *(course[i] for course in courses))
        for i, one in enumerate(report["prequential"]["windows"])
    ]
    return Table((*WINDOW, *names), rows)


def _swaps(report: dict[str, Any], window: dict[str, Any]) -> str:
    """`4 at 1,034`: a version and the first event it answered; several are told one after the other."""
    inside = [one for one in report["swaps"]["at_event"] if window["start"] <= one["scored"] < window["end"]]
    return "; ".join(f"{one['version']} at {one['scored'] + 1:,}" for one in inside)


def matrix_table(matrix: Matrix) -> Table:
    """Row i: after segment i was learned; column j: accuracy on the hold-outs of segment j; None above the diagonal."""
    numbers = range(1, len(matrix) + 1)
    head = ("after learning segment", *(f"on segment {number}" for number in numbers))
    return Table(head, [(number, *row) for number, row in zip(numbers, matrix, strict=True)])


def confusion_table(confusion: dict[str, dict[str, int]], labels: Sequence[str]) -> Table:
    """A pair a row, in the feed's order of labels, for any number of classes; the answer is empty where none came."""
    order = {label: place for place, label in enumerate(labels)}
    rows = [
        (label, answer, n)
        for label in sorted(confusion, key=lambda label: order.get(label, len(order)))
        for answer, n in sorted(confusion[label].items(), key=lambda one: order.get(one[0], len(order)))
    ]
    return Table(("label", "answer", "events"), rows)
