"""The served answers class by class and source by source, for the report, and what of it a page shows. Pure."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from driftline.buffer import Scored
from driftline.figures import NO_ANSWER, accuracy, by_class, confusion, macro_f1
from replay.evaluation import bootstrap_gap

FEW_CLASSES = 12
"""So many are shown in full, with their matrix; of more, the worst and what is most often taken for what."""
SHOWN = 15
UNKNOWN = "unknown"


class Cell(NamedTuple):
    """How often a class was answered so, and as which share of its examples."""

    n: int
    share: float


def class_rows(scored: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """Label → precision, recall, F1 and how many examples and answers. None where there is nothing to divide by."""
    found = by_class([one.predicted for one in scored], [one.label for one in scored])
    return {
        label: {
            "precision": one.precision,
            "recall": one.recall,
            "f1": one.f1,
            "n": one.n,
            "answered": one.answered,
        }
        for label, one in found.items()
    }


def confusion_rows(scored: Sequence[Scored]) -> dict[str, dict[str, int]]:
    """Label → answer → how many; "" stands for no answer."""
    return confusion([one.predicted for one in scored], [one.label for one in scored])


def source_rows(scored: Sequence[Scored], labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Source → accuracy, macro-F1 and n, the greatest first."""
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        groups.setdefault(one.source or UNKNOWN, []).append(one)
    return {
        source: exam_row([one.predicted for one in group], [one.label for one in group], labels)
        for source, group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    }


def exam_row(predicted: Sequence[str | None], truth: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """One exam of a report."""
    return {"accuracy": accuracy(predicted, truth), "macro_f1": macro_f1(predicted, truth, labels), "n": len(truth)}


def rival_row(
    theirs: Sequence[str | None], ours: Sequence[str | None], truth: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """A baseline's exam, and how far ours is ahead of it on the same events (accuracy, 95 % interval); None of none."""
    if not truth:
        return {**exam_row(theirs, truth, labels), "ahead": None}
    right = [[answer == label for answer, label in zip(answers, truth, strict=True)] for answers in (ours, theirs)]
    return {**exam_row(theirs, truth, labels), "ahead": asdict(bootstrap_gap(*right))}


def classes_shown(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The classes of the page: all of a few, in the feed's order, else the worst by F1."""
    rows, order = report["prequential"]["by_class"], report["labels"]
    if len(rows) <= FEW_CLASSES:
        return sorted(rows.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))
    return sorted(rows.items(), key=lambda item: (item[1]["f1"], -item[1]["n"], item[0]))[:SHOWN]


def matrix_shown(report: dict[str, Any]) -> dict[str, Any] | None:
    """{"answers", "rows": [(label, cells)]} of a few classes; None of many. The last answer is "" if any is missing."""
    labels = [label for label, _ in classes_shown(report)]
    if len(report["prequential"]["by_class"]) > FEW_CLASSES:
        return None
    counts = report["prequential"]["confusion"]
    missing = any(NO_ANSWER in row for row in counts.values())
    answers = [*labels, *([NO_ANSWER] if missing else [])]
    rows = [
        (label, [_cell(counts[label].get(answer, 0), counts[label]) for answer in answers])
        for label in labels
        if label in counts
    ]
    return {"answers": answers, "rows": rows}


def confusions_shown(report: dict[str, Any]) -> list[tuple[str, str, Cell]]:
    """(label, answer, cell) of what is most often taken for what, missing answers aside; of many classes."""
    counts = report["prequential"]["confusion"]
    found = [
        (label, answer, _cell(n, row))
        for label, row in counts.items()
        for answer, n in row.items()
        if answer not in (label, NO_ANSWER)
    ]
    return sorted(found, key=lambda one: (-one[2].n, one[0], one[1]))[:SHOWN]


def _cell(n: int, row: dict[str, int]) -> Cell:
    return Cell(n, n / sum(row.values()))


def sources_shown(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The greatest sources; nothing where there is one only."""
    rows = list(report["prequential"]["by_source"].items())
    return rows[:SHOWN] if len(rows) > 1 else []
