"""A linear softmax over hashed n-grams, one AdaGrad step per block: what `words` and `chars` have in common.

A text's features are 1/√m for each of the m buckets that its n-grams fall into (hashing: Weinberger et al. 2009).
AdaGrad (Duchi, Hazan & Singer 2011) keeps one sum of squares per bucket, not one per bucket and class: as good, and
C times smaller. Steps grow with log₂ C, since that is how far a class must rise to win from equal chances.

Bounded: weights take `budget_bytes` at most, whatever the number of classes. Errors below `NEGLIGIBLE` move nothing:
with many classes that is nearly all of them, and what a pulse must carry shrinks with it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.experts.block import Block, Partial
from driftline.experts.buckets import Buckets, sizes, touched
from driftline.experts.expert import Targets
from driftline.experts.hashing import Characters, Grams
from driftline.experts.softmax import probabilities
from driftline.experts.state import Arrays, Cells, ExpertState, Step

__all__ = ["Linear", "bucket_count"]

MAX_BUCKETS = 1 << 18
NEGLIGIBLE = 0.01

_TINY = np.float32(1e-12)

Places = NDArray[np.int64]


def bucket_count(classes: int, budget_bytes: int) -> int:
    """How many buckets of C floats the budget has room for: a power of two in 1..2^18."""
    fitting = max(1, budget_bytes // (4 * classes))
    return min(MAX_BUCKETS, 1 << (fitting.bit_length() - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """`Expert`. `reading` makes the n-grams, `rate` is AdaGrad's for two classes."""

    reading: Callable[[Characters], Grams]
    rate: float
    budget_bytes: int = 32 << 20

    def start(self, classes: int, _feature_size: int, /) -> ExpertState:
        """Weights (B, C) and sums of squares (B,), fp32, all zero."""
        buckets = bucket_count(classes, self.budget_bytes)
        return ExpertState(
            scoring={"weight": np.zeros((buckets, classes), np.float32)},
            learning={"squares": np.zeros(buckets, np.float32)},
        )

    def prepare(self, block: Block, /) -> None:
        """Take the n-grams, which is most of the work, for a table of the size that this many classes start with."""
        block.read(Buckets(self.reading, bucket_count(block.head.values.shape[1], self.budget_bytes)))

    def score(self, scoring: Arrays, block: Block, /) -> Partial:
        """(N, C), known for all rows: a text without an n-gram scores zeros."""
        weight = scoring["weight"]
        texts = block.read(Buckets(self.reading, len(weight)))
        return Partial.full((texts @ weight) * sizes(texts))

    def learn(self, state: ExpertState, block: Block, targets: Targets, /) -> Step:
        """One step against the gradient of the block's summed log-loss."""
        weight, squares = state.scoring["weight"], state.learning["squares"]  # (B, C), (B,)
        errors = _errors(self.score(state.scoring, block).values, targets)  # (N, C)
        texts = block.read(Buckets(self.reading, len(weight)))
        buckets, among = touched(texts)  # (U,), (N, U)
        gradient = among.T @ (errors * sizes(texts))  # (U, C), summed text by text
        summed = squares[buckets] + np.square(gradient).sum(axis=1)  # (U,)
        rate = np.float32(self.rate * math.log2(max(2, weight.shape[1])))
        moved = weight[buckets] - rate * gradient / np.sqrt(summed + _TINY)[:, None]
        return Step(
            scoring={"weight": _cells(buckets, moved, gradient != 0)},
            learning={"squares": Cells(places=buckets, values=summed)},
        )

    def relabel(self, state: ExpertState, rows: Sequence[int | None], /) -> ExpertState:
        """Columns move, new ones are zero. Where the budget has no room for them, buckets b and b + B/2 become one."""
        weight, squares = state.scoring["weight"], state.learning["squares"]
        moved = np.stack([_column(weight, row) for row in rows], axis=1)
        while len(squares) > bucket_count(len(rows), self.budget_bytes):
            moved, squares = _folded(moved), _folded(squares)
        return ExpertState(scoring={"weight": moved}, learning={"squares": squares.copy()})


def _errors(scores: NDArray[np.float32], targets: Targets) -> NDArray[np.float32]:
    """(N, C): the log-loss's gradient by the scores, p − [y = c], without what is negligible."""
    errors = probabilities(scores)
    errors[np.arange(len(targets)), targets] -= 1
    return np.where(np.abs(errors) < NEGLIGIBLE, 0, errors).astype(np.float32)


def _cells(buckets: Places, rows: NDArray[np.float32], moved: NDArray[np.bool_]) -> Cells:
    """What moved of these buckets' rows (U, C): their cells, or whole rows where that takes fewer bytes."""
    any_moved = moved.any(axis=1)
    if np.count_nonzero(moved) * 2 < np.count_nonzero(any_moved) * (1 + rows.shape[1]):
        places = buckets[:, None] * rows.shape[1] + np.arange(rows.shape[1])
        return Cells(places=places[moved], values=rows[moved])
    return Cells(places=buckets[any_moved], values=rows[any_moved])


def _column(weight: NDArray[np.float32], row: int | None) -> NDArray[np.float32]:
    return np.zeros(len(weight), np.float32) if row is None else weight[:, row]


def _folded(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The hashes' highest bit falls away."""
    half = len(array) // 2
    return array[:half] + array[half:]
