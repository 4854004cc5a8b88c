"""The version's own head, as an expert among the others: it learns on the slow clock, so here it learns nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.experts.block import Block, Partial
from driftline.experts.expert import Fixed
from driftline.experts.state import Arrays

__all__ = ["FLOOR", "UNTRAINED", "Head", "log_probabilities"]

FLOOR = -12.0
"""No class is less likely than e^FLOOR, so that it may still win by the other experts."""
UNTRAINED = -300.0
"""The bias of a class that a version has never learned an example of: its probability is exactly 0 in fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Fixed):
    """Scores are the log-probabilities that were served with the text; 0 for a class that the head does not know.

    The probabilities of what it knows sum to 1, so 0 is what they come to together: where the head is sure of one
    class, that one's odds against a class which it does not know stay as the other experts see them.
    """

    def score(self, _scoring: Arrays, block: Block) -> Partial:
        """(N, C), in FLOOR..0."""
        silent = block.head.values < UNTRAINED / 2
        values = np.where(silent, np.float32(0), np.maximum(block.head.values, np.float32(FLOOR)))
        return Partial(values=values, known=block.head.known, silent=silent)


def log_probabilities(logits: NDArray[Any], own: Sequence[str], labels: Sequence[str]) -> NDArray[np.float64]:
    """(N, C) over `labels` from a head's logits (N, R) over its `own` labels. A class that the head does not know,
    since it was never trained on it or has no row for it, has UNTRAINED."""
    raised = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found = np.maximum(raised - np.log(np.exp(raised).sum(axis=1, keepdims=True)), UNTRAINED)  # (N, R)
    if tuple(own) == tuple(labels):
        return found
    moved = np.full((len(found), len(labels)), UNTRAINED)
    for column, label in enumerate(labels):
        if label in own:
            moved[:, column] = found[:, own.index(label)]
    return moved
