"""The evaluation file: what is live at the end of the stream, and each baseline as it is then, on the same events."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from replay.classes import UNKNOWN, exam_row, rival_row
from replay.pipeline import Pipeline
from replay.rivals import Rivals
from replay.source import StreamItem

BATCH_TEXTS = 64


class Answered(NamedTuple):
    """One labelled event of the file with the answer of what is live, and of each baseline; None where none came."""

    source: str
    label: str
    ours: str | None
    rivals: dict[str, str | None]


def final_exam(pipe: Pipeline, rivals: Rivals, items: Iterable[StreamItem]) -> dict[str, Any]:
    """Ours by source and in `all`, each with the baselines beside it; empty without labelled events."""
    rows = final_answers(pipe, rivals, items)
    sources = sorted({row.source for row in rows})
    groups = {source: [row for row in rows if row.source == source] for source in sources} | {"all": rows}
    return {name: _exam(group, pipe.section.labels) for name, group in groups.items() if group}


def _exam(group: Sequence[Answered], labels: Sequence[str]) -> dict[str, Any]:
    truth, ours = [row.label for row in group], [row.ours for row in group]
    beside = {name: rival_row([row.rivals[name] for row in group], ours, truth, labels) for name in group[0].rivals}
    return {**exam_row(ours, truth, labels), "baselines": beside}


def final_answers(pipe: Pipeline, rivals: Rivals, items: Iterable[StreamItem]) -> list[Answered]:
    """Every labelled event of the file that can be decoded, in its order."""
    labelled = [
        (event, item.label) for item in items if item.label is not None and (event := pipe.decode(item)) is not None
    ]
    rows: list[Answered] = []
    for start in range(0, len(labelled), BATCH_TEXTS):
        batch = labelled[start : start + BATCH_TEXTS]
        texts = [event.text for event, _ in batch]
        ours, beside = pipe.engine.predict(pipe.feed, texts), rivals.final(texts)
        rows += [
            Answered(event.source or UNKNOWN, label, ours[i].label, {name: beside[name][i] for name in beside})
            for i, (event, label) in enumerate(batch)
        ]
    return rows
