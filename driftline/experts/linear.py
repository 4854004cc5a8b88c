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
from driftline.experts.expert import Targets
from driftline.experts.hashing import Grams
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

    reading: Callable[[Sequence[str]], Grams]
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
        """Take the n-grams, which is most of the work."""
        block.read(self.read)

    def score(self, scoring: Arrays, block: Block, /) -> Partial:
        """(N, C), known for all rows: a text without an n-gram scores zeros."""
        weight = scoring["weight"]
        texts = _fitted(block.read(self.read), len(weight))
        values = [weight[text].sum(axis=0) * _size(text) for text in texts]
        return Partial.full(np.reshape(values, (len(block), weight.shape[1])))

    def learn(self, state: ExpertState, block: Block, targets: Targets, /) -> Step:
        """One step against the gradient of the block's summed log-loss."""
        weight, squares = state.scoring["weight"], state.learning["squares"]  # (B, C), (B,)
        errors = _errors(self.score(state.scoring, block).values, targets)  # (N, C)
        texts = _fitted(block.read(self.read), len(weight))
        touched, gradient = _gradient(texts, errors)  # (U,), (U, C)
        summed = squares[touched] + np.square(gradient).sum(axis=1)  # (U,)
        rate = np.float32(self.rate * math.log2(max(2, weight.shape[1])))
        moved = weight[touched] - rate * gradient / np.sqrt(summed + _TINY)[:, None]
        return Step(
            scoring={"weight": _cells(touched, moved, gradient != 0)},
            learning={"squares": Cells(places=touched, values=summed)},
        )

    def read(self, texts: Sequence[str]) -> list[Places]:
        """For each text the buckets of 2^18 that its n-grams fall into, ascending, each once."""
        grams = self.reading(texts)
        owners = np.repeat(np.arange(len(texts)), np.diff(grams.ends, prepend=0))
        keys = np.sort(owners * MAX_BUCKETS + (grams.hashes & np.uint64(MAX_BUCKETS - 1)).astype(np.int64))
        keys = keys[np.diff(keys, prepend=-1) != 0]
        ends = np.searchsorted(keys, np.arange(1, len(texts)) * MAX_BUCKETS)
        return np.split(keys & (MAX_BUCKETS - 1), ends)[: len(texts)]

    def relabel(self, state: ExpertState, rows: Sequence[int | None], /) -> ExpertState:
        """Columns move, new ones are zero. Where the budget has no room for them, buckets b and b + B/2 become one."""
        weight, squares = state.scoring["weight"], state.learning["squares"]
        moved = np.stack([_column(weight, row) for row in rows], axis=1)
        while len(squares) > bucket_count(len(rows), self.budget_bytes):
            moved, squares = _folded(moved), _folded(squares)
        return ExpertState(scoring={"weight": moved}, learning={"squares": squares.copy()})


def _fitted(texts: Sequence[Places], buckets: int) -> list[Places]:
    """The same for a table of fewer buckets: a power of two, so the low bits stay what they were."""
    return list(texts) if buckets == MAX_BUCKETS else [np.unique(text & (buckets - 1)) for text in texts]


def _size(text: Places) -> np.float32:
    """Of each of a text's features, so that their norm is 1."""
    return np.float32(1 / math.sqrt(max(1, len(text))))


def _errors(scores: NDArray[np.float32], targets: Targets) -> NDArray[np.float32]:
    """(N, C): the log-loss's gradient by the scores, p − [y = c], without what is negligible."""
    errors = probabilities(scores)
    errors[np.arange(len(targets)), targets] -= 1
    return np.where(np.abs(errors) < NEGLIGIBLE, 0, errors).astype(np.float32)


def _gradient(texts: Sequence[Places], errors: NDArray[np.float32]) -> tuple[Places, NDArray[np.float32]]:
    """The buckets touched (U,) and the gradient by their weights (U, C), summed text by text."""
    touched, inverse = np.unique(np.concatenate(texts), return_inverse=True)
    gradient = np.zeros((len(touched), errors.shape[1]), np.float32)
    begin = 0
    for text, error in zip(texts, errors, strict=True):
        gradient[inverse[begin : begin + len(text)]] += error * _size(text)
        begin += len(text)
    return touched, gradient


def _cells(buckets: Places, rows: NDArray[np.float32], moved: NDArray[np.bool_]) -> Cells:
    """The cells of these buckets' rows (U, C) that moved."""
    places = buckets[:, None] * rows.shape[1] + np.arange(rows.shape[1])
    return Cells(places=places[moved], values=rows[moved])


def _column(weight: NDArray[np.float32], row: int | None) -> NDArray[np.float32]:
    return np.zeros(len(weight), np.float32) if row is None else weight[:, row]


def _folded(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The hashes' highest bit falls away."""
    half = len(array) // 2
    return array[:half] + array[half:]
