"""What the versions' own heads say to features that they served, and how label names look to their bodies. No torch.

A head is small, so its part is fetched once and the last few are kept. What cannot be fetched (the version was
collected) is missing from the mixture for those rows, and nothing else is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.experts import Partial
from driftline.experts.exact import product
from driftline.experts.head import log_probabilities
from learner.fast.recent import Recent

__all__ = ["Head", "Heads"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """One version's head over its own `labels`: weight (R, d), bias (R,), fp32."""

    labels: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def log_probabilities(self, features: NDArray[np.float32], labels: Sequence[str]) -> NDArray[np.float32]:
        """(N, d) → (N, C) over `labels`, as `log_probabilities` says."""
        logits = product(features, self.weight) + self.bias  # (N, R)
        return log_probabilities(logits, self.labels, labels).astype(np.float32)


class Heads:
    """The heads of one feed's versions. `fetch` gives one, or None where it cannot be had."""

    def __init__(self, fetch: Callable[[int], Head | None]) -> None:
        self._recent = Recent(fetch)

    def scores(self, features: Partial, versions: Sequence[int | None], labels: Sequence[str]) -> Partial:
        """(N, C) log-probabilities of each row's own version. Version 0 has a head of zeros: it says nothing."""
        values = np.zeros((len(versions), len(labels)), np.float32)
        known = np.zeros(len(versions), np.bool_)
        for version in {one for one in versions if one}:
            head = self._recent.get(version)
            if head is not None:
                rows = features.known & np.array([one == version for one in versions])
                values[rows] = head.log_probabilities(features.values[rows], labels)
                known |= rows
        return Partial(values=values, known=known)
