"""The version's own head, as an expert among the others: it learns on the slow clock, so here it learns nothing."""

from dataclasses import dataclass

import numpy as np

from driftline.experts.block import Block, Partial
from driftline.experts.expert import Fixed
from driftline.experts.state import Arrays

__all__ = ["FLOOR", "Head"]

FLOOR = -12.0
"""No class is less likely than e^FLOOR: a class that the version does not know may still win by the other experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Fixed):
    """Scores are the log-probabilities that were served with the text."""

    def score(self, _scoring: Arrays, block: Block) -> Partial:
        """(N, C) log-probabilities, at least FLOOR."""
        return Partial(values=np.maximum(block.head.values, np.float32(FLOOR)), known=block.head.known)
