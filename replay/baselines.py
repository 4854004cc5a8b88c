"""The cheap rivals that a replay is measured against. They see each label once, when ours does, and no hold-out.

`predict` answers before the labels are known; None until something was learned (which counts as wrong).
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK_EXAMPLES = 32
RIDGE = 300.0


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

    After k learned blocks its weights are those of batch ridge regression over all of them, old blocks weighted by
    `forgetting`^age (with 1.0: all alike). P = (λI + Σ XᵀX)⁻¹ is carried along by the Woodbury identity (Golub & Van
    Loan, Matrix Computations §2.1.4): one rank-32 update per block. Features have norm √d; a 1 is appended as bias.
    """

    def __init__(self, labels: Sequence[str], features: int, *, ridge: float = RIDGE, forgetting: float = 1.0) -> None:
        """`features`: their length d. `ridge`: λ > 0; 300 to 1,000 suit features of norm √384."""
        self._labels = tuple(labels)
        self._inverse = np.eye(features + 1) / ridge  # P: (d+1, d+1)
        self._weights = np.zeros((features + 1, len(labels)))  # (d+1, C)
        self._forgetting = forgetting
        self._waiting: list[tuple[NDArray[np.float64], str]] = []
        self._learned = False

    @property
    def weights(self) -> NDArray[np.float64]:
        """(d+1, C), the bias in the last row."""
        return self._weights.copy()

    def predict(self, features: ArrayLike) -> list[str | None]:
        """Answers for features (B, d)."""
        rows = _with_bias(features)
        if not self._learned:
            return [None] * len(rows)
        return [self._labels[winner] for winner in (rows @ self._weights).argmax(axis=1)]

    def learn(self, features: ArrayLike, labels: Sequence[str]) -> None:
        """Features (B, d) with their labels, in stream order. Learns whenever 32 are together; the rest waits."""
        self._waiting += zip(_with_bias(features), labels, strict=True)
        while len(self._waiting) >= BLOCK_EXAMPLES:
            block, self._waiting = self._waiting[:BLOCK_EXAMPLES], self._waiting[BLOCK_EXAMPLES:]
            self._learn_block(np.stack([row for row, _ in block]), [label for _, label in block])

    def _learn_block(self, rows: NDArray[np.float64], labels: list[str]) -> None:
        targets = np.array([[1.0 if label == one else -1.0 for one in self._labels] for label in labels])  # (32, C)
        inverse = self._inverse / self._forgetting
        spread = rows @ inverse  # X P: (32, d+1)
        gain = np.linalg.solve(np.eye(len(rows)) + spread @ rows.T, spread).T  # P Xᵀ (I + X P Xᵀ)⁻¹: (d+1, 32)
        self._weights = self._weights + gain @ (targets - rows @ self._weights)
        inverse -= gain @ spread
        self._inverse = (inverse + inverse.T) / 2  # rounding must not make it lopsided over thousands of blocks
        self._learned = True


def _with_bias(features: ArrayLike) -> NDArray[np.float64]:
    rows = np.asarray(features, dtype=np.float64)  # (B, d)
    return np.hstack([rows, np.ones((len(rows), 1))])
