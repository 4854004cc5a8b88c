"""Requests and answers as the engine sees them: plain records, and the way from logits to scores."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from serving.slots import Resident


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One text's answer. `label` is None only at version 0; `scores` sum to 1 over its version's labels."""

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
        return self.resident.adapter.labels


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One text of a request: its place in it, and its token ids."""

    request: Request
    index: int
    tokens: list[int]


def make_answer(labels: Sequence[str], scores: Sequence[float], version: int) -> Answer:
    """The answer for one row's scores; the first of equal scores wins."""
    best = max(range(len(scores)), key=scores.__getitem__)
    return Answer(label=labels[best], scores=dict(zip(labels, scores, strict=True)), adapter_version=version)


def version_zero(labels: Sequence[str], inputs: int) -> "Future[list[Answer]]":
    """Version 0 has a zero head: its scores are known without computing anything."""
    scores = dict.fromkeys(labels, 1.0 / len(labels))
    done: Future[list[Answer]] = Future()
    done.set_result([Answer(label=None, scores=dict(scores), adapter_version=0) for _ in range(inputs)])
    return done


def softmax(logits: torch.Tensor, classes: Sequence[int]) -> list[list[float]]:
    """Scores of each row over its own first `classes[i]` columns of `logits` (B, C_max), computed in fp64."""
    counts = torch.tensor(classes).unsqueeze(1)  # (B, 1)
    outside = torch.arange(logits.shape[1]).unsqueeze(0) >= counts  # (B, C)
    scores = logits.double().masked_fill(outside, float("-inf")).softmax(dim=1).tolist()
    return [row[:count] for row, count in zip(scores, classes, strict=True)]
