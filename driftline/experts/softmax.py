"""Scores as probabilities."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["probabilities"]


def probabilities(scores: NDArray[Any]) -> NDArray[np.float64]:
    """(N, C) → (N, C), each row summing to 1."""
    raised = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    normed: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return normed
