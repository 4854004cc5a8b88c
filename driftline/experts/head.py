"""The version's own head, as an expert among the others: it learns on the slow clock, so here it learns nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.experts.block import Block, Partial
from driftline.experts.expert import Fixed
from driftline.experts.state import Arrays

__all__ = ["FLOOR", "Head", "log_probabilities"]

FLOOR = -12.0
"""No class is less likely than e^FLOOR: a class that the version does not know may still win by the other experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Fixed):
    """Scores are the log-probabilities that were served with the text."""

    def score(self, _scoring: Arrays, block: Block) -> Partial:
        """(N, C) log-probabilities, at least FLOOR."""
        return Partial(values=np.maximum(block.head.values, np.float32(FLOOR)), known=block.head.known)


def log_probabilities(logits: NDArray[Any], own: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """(N, C) over `labels`, at least FLOOR, from a head's logits (N, R) over its `own` labels; a class that it does not
    know has FLOOR."""
    raised = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found = np.maximum(raised - np.log(np.exp(raised).sum(axis=1, keepdims=True)), FLOOR)  # (N, R)
    if tuple(own) == tuple(labels):
        return found
    moved = np.full((len(found), len(labels)), FLOOR)
    for column, label in enumerate(labels):
        if label in own:
            moved[:, column] = found[:, own.index(label)]
    return moved
