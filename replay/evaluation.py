"""What is measured over a stream and over segments, as pure functions (DESIGN §7). Nothing here changes its input or
skips an empty answer; `driftline.figures` measures one exam.

An answer of None (no prediction came, or nothing was known yet) counts as wrong. Accuracies are shares in 0..1.
In a matrix, a[i][j] is the accuracy of the incumbent at the close of segment i on the hold-outs of segment j; None
where it was not measured (j > i, or no hold-outs).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypedDict

import numpy as np

Row = Sequence[float | None]
Matrix = Sequence[Row]


class Window(TypedDict):
    """One stretch of the stream: `start` (counted from 0) up to but without `end`; `version` is its last event's."""

    start: int
    end: int
    n: int
    accuracy: float
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Accuracy of the first minus the second, with its interval."""

    gap: float
    low: float
    high: float


def windows(
    predicted: Sequence[str | None], truth: Sequence[str], versions: Sequence[int | None], size: int = 250
) -> list[Window]:
    """The stream cut into windows of `size`, in order; the last may be shorter. ValueError if the lengths differ."""
    rows = list(zip(predicted, truth, versions, strict=True))
    found: list[Window] = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        right = sum(ours == label for ours, label, _ in part)
        found.append(
            Window(start=start, end=start + len(part), n=len(part), accuracy=right / len(part), version=part[-1][2])
        )
    return found


def average_accuracy(matrix: Matrix) -> float | None:
    """Mean of the last row. None of nothing."""
    return _mean(matrix[-1]) if matrix else None


def backward_transfer(matrix: Matrix) -> float | None:
    """Mean over j < T of a[T][j] − a[j][j]; above 0: later learning helped. None for fewer than two segments."""
    if len(matrix) < 2:
        return None
    return _mean([_minus(last, matrix[j][j]) for j, last in enumerate(matrix[-1][: len(matrix) - 1])])


def forgetting(matrix: Matrix) -> float | None:
    """Mean over j < T of (best a[i][j] of j ≤ i < T) − a[T][j]; 0 or below: none. None for fewer than two segments."""
    if len(matrix) < 2:
        return None
    earlier = matrix[:-1]
    return _mean([_minus(_best(row[j] for row in earlier[j:]), matrix[-1][j]) for j in range(len(earlier))])


def bootstrap_gap(
    ours: Sequence[bool], theirs: Sequence[bool], *, seed: int = 0, draws: int = 10_000, level: float = 0.95
) -> Gap:
    """The difference in accuracy on the same examples, with its percentile bootstrap interval (Efron, Tibshirani 1993).

    Pairs are resampled: since a pair counts −1, 0 or +1, a resample is one multinomial draw of these three counts.
    ValueError if the lengths differ or are 0.
    """
    differences = [int(a) - int(b) for a, b in zip(ours, theirs, strict=True)]
    if not differences:
        raise ValueError("no examples to compare on")
    n = len(differences)
    shares = [differences.count(value) / n for value in (-1, 0, 1)]
    counts = np.random.default_rng(seed).multinomial(n, shares, size=draws)  # (draws, 3)
    gaps = (counts[:, 2] - counts[:, 0]) / n
    low, high = np.quantile(gaps, [(1 - level) / 2, (1 + level) / 2])
    return Gap(gap=sum(differences) / n, low=float(low), high=float(high))


def _mean(values: Row) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _minus(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right


def _best(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
