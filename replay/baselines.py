"""The cheap rivals that a replay is measured against. They see each label once, when ours does, and no hold-out.

`predict` answers before the labels are known; None until something was learned (which counts as wrong).
"""

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK_EXAMPLES = 32


class Ridge(NamedTuple):
    """How strongly the weights are held at zero (λ > 0), and what an older block counts for (in 0..1, per block)."""

    ridge: float
    forgetting: float


GRID = tuple(Ridge(*one) for one in product((300.0, 100.0, 1000.0), (1.0, 0.999, 0.995)))
"""What the online head tries side by side, for features of norm √384; of equals, as at the start, the first answers."""


class Majority:
    """Answers the class seen most often so far; of equals, the one that stands first in the feed's labels."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._seen: Counter[str] = Counter()

    def predict(self, count: int) -> list[str | None]:
        """`count` answers."""
        best = max(self._labels, key=lambda label: self._seen[label]) if self._seen else None
        return [best] * count

    def learn(self, labels: Sequence[str]) -> None:
        """Labels in stream order."""
        self._seen.update(labels)


class LastLabel:
    """Answers the label that came last."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._last: str | None = None

    def predict(self, count: int) -> list[str | None]:
        """`count` answers."""
        return [self._last] * count

    def learn(self, labels: Sequence[str]) -> None:
        """Labels in stream order."""
        self._last = labels[-1] if labels else self._last


class OnlineHead:
    """Ridge regression on the frozen base's features onto ±1 targets, solved recursively: never an old example again.

    Every setting of `grid` learns beside the others. The one with the least squared error so far answers, each block
    being judged by weights that have not seen it (Dawid 1984): it is tuned on line, as nobody can tune it beforehand.

    After k learned blocks a setting's weights are those of batch ridge regression over all of them, old blocks weighted
    by `forgetting`^age (with 1.0: all alike). P = (λI + Σ XᵀX)⁻¹ is carried along by the Woodbury identity (Golub & Van
    Loan, Matrix Computations §2.1.4): one rank-32 update per block. Features have norm √d; a 1 is appended as bias.
    """

    def __init__(self, labels: Sequence[str], features: int, grid: Sequence[Ridge] = GRID) -> None:
        """`features`: their length d."""
        self._labels = tuple(labels)
        self._grid = tuple(grid)
        self._forgetting = np.array([one.forgetting for one in grid])[:, None, None]  # (G, 1, 1)
        self._inverse = np.stack([np.eye(features + 1) / one.ridge for one in grid])  # P: (G, d+1, d+1)
        self._weights = np.zeros((len(self._grid), features + 1, len(labels)))  # (G, d+1, C)
        self._losses = np.zeros(len(self._grid))
        self._waiting: list[tuple[NDArray[np.float64], int]] = []
        self._learned = False

    @property
    def chosen(self) -> Ridge:
        """The setting that answers now."""
        return self._grid[self._best]

    @property
    def weights(self) -> NDArray[np.float64]:
        """Those that answer now: (d+1, C), the bias in the last row."""
        return self._weights[self._best].copy()

    @property
    def _best(self) -> int:
        return int(self._losses.argmin())

    def predict(self, features: ArrayLike) -> list[str | None]:
        """Answers for features (B, d)."""
        rows = _with_bias(features)
        if not self._learned:
            return [None] * len(rows)
        return [self._labels[winner] for winner in (rows @ self._weights[self._best]).argmax(axis=1)]

    def learn(self, features: ArrayLike, labels: Sequence[str]) -> None:
        """Features (B, d) with their labels, in stream order. Learns whenever 32 are together; the rest waits."""
        places = [self._labels.index(label) for label in labels]
        self._waiting += zip(_with_bias(features), places, strict=True)
        while len(self._waiting) >= BLOCK_EXAMPLES:
            block, self._waiting = self._waiting[:BLOCK_EXAMPLES], self._waiting[BLOCK_EXAMPLES:]
            self._learn_block(np.stack([row for row, _ in block]), np.array([place for _, place in block]))

    def _learn_block(self, rows: NDArray[np.float64], places: NDArray[np.int64]) -> None:
        targets = np.where(places[:, None] == np.arange(len(self._labels)), 1.0, -1.0)  # (32, C)
        errors = targets - rows @ self._weights  # (G, 32, C)
        self._losses += (errors**2).sum(axis=(1, 2))
        inverse = self._inverse / self._forgetting
        spread = rows @ inverse  # X P: (G, 32, d+1)
        gain = np.linalg.solve(np.eye(len(rows)) + spread @ rows.T, spread).swapaxes(1, 2)  # P Xᵀ (I + X P Xᵀ)⁻¹
        self._weights += gain @ errors
        inverse -= gain @ spread
        self._inverse = (inverse + inverse.swapaxes(1, 2)) / 2  # rounding must not make it lopsided over many blocks
        self._learned = True


def _with_bias(features: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(features, dtype=np.float64)  # (B, d)
    return np.hstack([rows, np.ones((len(rows), 1))])
