"""What a feed with a fast clock answers: what the engine computed of texts, mixed with the feed's fast state. Pure.

| version | the fast state                                  | who answers                                              |
|---------|-------------------------------------------------|----------------------------------------------------------|
| any     | none yet (pulse 0)                              | the head alone; nobody at version 0                      |
| ≥ 1     | has learned nothing yet, or fell back           | the head alone                                           |
| ≥ 1     | has learned                                     | the mixture over the feed's labels                       |
| 0       | has learned                                     | the mixture: there is no head that it could fall back to |
| 0       | has learned nothing yet                         | `names`, where label names look like words; else nobody  |

"Nobody" is `label: null` with equal scores. A version that a request names is mixed with the newest fast state, as it
would be if it were promoted now; the fast state learned from features of the live version's body, so an old version may
answer worse with it than it did in its time. `Asked.HEAD` is a version by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from driftline.experts import Block, Mixed, Partial, probabilities
from driftline.experts.head import log_probabilities
from serving.answers import Answer, Asked, Computed, Opinion, Request, bytes_of, heads_answers
from serving.fast import FastReplica
from serving.slots import Resident

__all__ = ["MixedFeed", "fast_answers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedFeed:
    """`base_names`: features (C, d) of the feed's label names by the base, for version 0; None without that expert.
    `are_words`: whether label names look as if they said something, so that they may answer before the first label."""

    replica: FastReplica
    base_names: NDArray[np.float32] | None
    are_words: bool

    def heads_alone(self, version: int) -> bool:
        """Whether nothing is mixed into the version's answers now."""
        replica = self.replica
        if replica.number == 0 or (version and replica.fell_back):
            return True
        return not (replica.has_learned or (version == 0 and self.are_words and self.base_names is not None))

    def names(self, resident: Resident | None) -> NDArray[np.float32] | None:
        """(C, d): how the version sees the names of the feed's labels; None of one that has other labels."""
        if resident is None:
            return self.base_names
        return resident.adapter.names if resident.manifest.labels == self.replica.labels else None


def fast_answers(feed: MixedFeed, requests: Sequence[Request]) -> list[list[Answer]]:
    """The answers to requests that one version answers, all of them by one pulse."""
    if feed.heads_alone(requests[0].version):
        return [heads_answers(request, feed.replica.number) for request in requests]
    mixed = feed.replica.mix(_block(feed, requests))
    scores = probabilities(mixed.logits)  # (N, C)
    ends = np.cumsum([len(request.texts) for request in requests])
    return [
        _answers(feed.replica, request, scores, mixed, end - len(request.texts))
        for request, end in zip(requests, ends.tolist(), strict=True)
    ]


def _block(feed: MixedFeed, requests: Sequence[Request]) -> Block:
    computed = [one for request in requests for one in request.computed]
    first, labels = requests[0], feed.replica.labels
    return Block(
        texts=tuple(text for request in requests for text in request.texts),
        features=Partial.full(np.stack([one.feature for one in computed])),  # (N, d)
        head=_head(first, computed, labels),
        names=feed.names(first.resident),
    )


def _head(request: Request, computed: Sequence[Computed], labels: Sequence[str]) -> Partial:
    """(N, C) log-probabilities over the feed's labels; version 0 says nothing."""
    if request.resident is None:
        return Partial.none(len(computed), len(labels))
    outputs = np.stack([one.outputs for one in computed])[:, : len(request.labels)]  # (N, R)
    return Partial.full(log_probabilities(outputs, request.labels, labels))


def _answers(
    replica: FastReplica, request: Request, scores: NDArray[np.float64], mixed: Mixed, start: int
) -> list[Answer]:
    """Those of the request whose first text is row `start` of the mixture's."""
    rows = slice(start, start + len(request.texts))
    labels = replica.labels
    opinions = _opinions(mixed, rows, labels) if request.asked is Asked.EXPERTS else repeat({})
    bias = dict(zip(labels, mixed.bias.tolist(), strict=True)) if request.asked is Asked.EXPERTS else {}
    return [
        Answer(
            label=labels[winner],
            scores=dict(zip(labels, row, strict=True)),
            adapter_version=request.version,
            pulse=replica.number,
            feature=bytes_of(one.feature),
            experts=experts,
            bias=bias,
        )
        for winner, row, one, experts in zip(
            scores[rows].argmax(axis=1).tolist(), scores[rows].tolist(), request.computed, opinions, strict=False
        )
    ]


def _opinions(mixed: Mixed, rows: slice, labels: Sequence[str]) -> list[dict[str, Opinion]]:
    """For each row the experts that know it, each with the classes that it has something to say of."""
    weights = {name: dict(zip(labels, weight.tolist(), strict=True)) for name, weight in mixed.weights.items()}
    return [
        {
            name: Opinion(scores=_said(partial, row, labels), weight=weights[name])
            for name, partial in mixed.scores.items()
            if partial.known[row]
        }
        for row in range(rows.start, rows.stop)
    ]


def _said(partial: Partial, row: int, labels: Sequence[str]) -> dict[str, float]:
    said = zip(labels, partial.values[row].tolist(), strict=True)
    if partial.silent is None:
        return dict(said)
    return {label: score for (label, score), silent in zip(said, partial.silent[row], strict=True) if not silent}
