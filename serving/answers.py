"""Requests and answers as the engine sees them: plain records, and the way from a batch's outputs to answers."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from math import isnan
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from driftline.tasks import Task
from serving.slots import Resident


class Asked(Enum):
    """What shall answer: the version with its feed's fast state mixed in, where there is one (EXPERTS: and each answer
    says what it was mixed from); or the version's head alone, whatever there is."""

    MIXTURE = "mixture"
    EXPERTS = "experts"
    HEAD = "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What one expert says of a text, by label: scores on the scale of logits, and the weight of each class.

    A class that it has nothing to say of (`head`, of one that the version was never trained on) has no score: it adds
    nothing there.
    """

    scores: dict[str, float]
    weight: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One text's answer. `label` is None only at version 0. `scores` are over its version's labels; over the feed's
    where a fast state was mixed in.

    `pulse`: the fast state of that moment; 0: there was none. `feature`: as `Prediction` has it; None in a feed without
    fast clock. `experts` and `bias` (by label) are there for who asked for them: the scores are the softmax of the sum
    of weight times score, plus bias; both are empty where the version's head answered alone.
    """

    label: str | None
    scores: dict[str, float]
    adapter_version: int
    pulse: int = 0
    feature: bytes | None = None
    experts: dict[str, Opinion] = field(default_factory=dict)
    bias: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What the engine makes of a text whose answer is mixed elsewhere: the head's outputs (R,) fp32 and the feature
    (d,) fp16, all finite."""

    outputs: NDArray[np.float32]
    feature: NDArray[np.float16]


Result = Answer | Computed


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """An admitted request. `left` rows are still to be computed.

    `resident` stays pinned until `future` is done; None: version 0, whose head says nothing. `labels` and `task` are
    those of the version that answers. `mixed`: its results are `Computed`, to be mixed with the feed's fast state.
    """

    feed: str
    texts: Sequence[str]
    resident: Resident | None
    labels: tuple[str, ...]
    task: Task
    asked: Asked
    mixed: bool
    results: list[Result | None]
    left: int
    future: "Future[list[Answer]]" = field(default_factory=Future)

    @property
    def version(self) -> int:
        """Which one answers."""
        return 0 if self.resident is None else self.resident.version

    @property
    def slot(self) -> int:
        """Where the bank has it; slot 0 is the base with a head of zeros."""
        return 0 if self.resident is None else self.resident.slot

    @property
    def answers(self) -> list[Answer]:
        """Of a request that is not mixed, once all is computed."""
        return cast(list[Answer], self.results)

    @property
    def computed(self) -> list[Computed]:
        """Of a mixed request, once all is computed."""
        return cast(list[Computed], self.results)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One text of a request: its place in it, and its token ids."""

    request: Request
    index: int
    tokens: list[int]


def results_of(rows: Sequence[Row], outputs: Tensor, features: Tensor) -> list[Result | None]:
    """What a batch gives for each row, from the head's outputs (B, R_max) and the features (B, d); None where numbers
    are not finite: finite weights can still overflow on some text."""
    found: list[Result | None] = [None] * len(rows)
    plain = {place: row for place, row in enumerate(rows) if not row.request.mixed}
    for place, scores in _scores(plain, outputs):
        found[place] = None if any(map(isnan, scores.values())) else _answer(rows[place].request, scores)
    if mixed := [place for place, row in enumerate(rows) if row.request.mixed]:
        numbers, halves = outputs[mixed].numpy(), features[mixed].half().numpy()  # (M, R_max), (M, d)
        finite = np.isfinite(numbers).all(axis=1) & np.isfinite(halves).all(axis=1)
        for place, fine, *both in zip(mixed, finite, numbers, halves, strict=True):
            found[place] = Computed(*both) if fine else None
    return found


def _scores(rows: dict[int, Row], outputs: Tensor) -> Iterator[tuple[int, dict[str, float]]]:
    """By place: scores by each row's version's own task and labels."""
    for task in {row.request.task.name: row.request.task for row in rows.values()}.values():
        own = {place: row.request.labels for place, row in rows.items() if row.request.task.name == task.name}
        yield from zip(own, task.scores(outputs[list(own)], list(own.values())), strict=True)


def _answer(request: Request, scores: dict[str, float]) -> Answer:
    return Answer(label=request.task.label(scores), scores=scores, adapter_version=request.version)


def heads_answers(request: Request, pulse: int) -> list[Answer]:
    """What the version's head alone answers to a mixed request, which is nothing at version 0. `pulse`: the fast state
    that was there, and was not asked or had nothing to say."""
    return [
        Answer(label=label, scores=scores, adapter_version=request.version, pulse=pulse, feature=bytes_of(one.feature))
        for (label, scores), one in zip(_of_head(request), request.computed, strict=True)
    ]


def _of_head(request: Request) -> list[tuple[str | None, dict[str, float]]]:
    """Label and scores of each text."""
    if request.resident is None:
        return [(None, request.task.blank(request.labels)) for _ in request.texts]
    outputs = torch.from_numpy(np.stack([one.outputs for one in request.computed]))  # (N, R_max)
    return [
        (request.task.label(scores), scores) for scores in request.task.scores(outputs, [request.labels] * len(outputs))
    ]


def bytes_of(feature: NDArray[np.float16]) -> bytes:
    """As `Prediction.feature` has it."""
    return feature.astype("<f2", copy=False).tobytes()


def version_zero(task: Task, labels: Sequence[str], inputs: int) -> "Future[list[Answer]]":
    """Version 0 has a zero head: its scores are known without computing anything."""
    done: Future[list[Answer]] = Future()
    done.set_result([Answer(label=None, scores=task.blank(labels), adapter_version=0) for _ in range(inputs)])
    return done
