"""Requests and answers as the engine sees them: plain records, and the way from a batch's outputs to answers."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from driftline.tasks import Task, task_named
from serving.slots import Resident


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One text's answer. `label` is None only at version 0; `scores` are over its version's labels."""

    label: str | None
    scores: dict[str, float]
    adapter_version: int


@dataclass(slots=True, eq=False)
class Request:
    """An admitted request. Its resident stays pinned until `future` is done; `left` rows are still to be computed."""

    resident: Resident
    answers: list[Answer | None]
    left: int
    future: "Future[list[Answer]]" = field(default_factory=Future)

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of the version that answers."""
        return self.resident.manifest.labels

    @property
    def task(self) -> Task:
        """That of the version that answers."""
        return task_named(self.resident.manifest.task)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One text of a request: its place in it, and its token ids."""

    request: Request
    index: int
    tokens: list[int]


def scores_of(outputs: Tensor, rows: Sequence[Row]) -> list[dict[str, float]]:
    """Scores of each row, by its version's own task and labels, from the head's outputs (B, R_max)."""
    found: list[dict[str, float]] = [{} for _ in rows]
    for task in {row.request.task.name: row.request.task for row in rows}.values():
        places = [place for place, row in enumerate(rows) if row.request.task.name == task.name]
        scores = task.scores(outputs[places], [rows[place].request.labels for place in places])
        for place, one in zip(places, scores, strict=True):
            found[place] = one
    return found


def version_zero(task: Task, labels: Sequence[str], inputs: int) -> "Future[list[Answer]]":
    """Version 0 has a zero head: its scores are known without computing anything."""
    done: Future[list[Answer]] = Future()
    done.set_result([Answer(label=None, scores=task.blank(labels), adapter_version=0) for _ in range(inputs)])
    return done
