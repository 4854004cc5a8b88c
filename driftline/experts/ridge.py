"""Recursive ridge regression on the features that serving computed anyway, solved anew after every block.

W minimises Σ γ^age ‖W·x − y‖² + λ‖W‖², y = ±1 per class (Hoerl & Kennard 1970; exponential forgetting as in Haykin,
Adaptive Filter Theory, ch. 10). It keeps the sums S = Σ γ^age x·xᵀ and T = Σ γ^age x·[y = c] rather than an inverse:
they are exact whatever the order of addition (`exact`), λ never fades, however long a direction is not seen (the
recursion on the inverse blows up there), and a class that is added later is one row of zeros in T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from driftline.experts.block import Block, Partial
from driftline.experts.exact import FEATURE_BITS, WEIGHT_BITS, on_grid, product
from driftline.experts.expert import Targets
from driftline.experts.state import Arrays, ExpertState, Step

__all__ = ["Ridge"]

_THREADS = ThreadpoolController()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ridge:
    """Scores are `scale` times W·[x, 1]. `penalty` is λ for features of norm √d; `forgetting` is γ per block."""

    penalty: float = 300.0
    forgetting: float = 0.999
    scale: float = 3.0

    def start(self, classes: int, feature_size: int) -> ExpertState:
        """W (C, d+1) fp32, the bias in the last column; S (d+1, d+1) and T (C, d+1) fp64."""
        size = feature_size + 1
        return ExpertState(
            scoring={"weight": np.zeros((classes, size), np.float32)},
            learning={"spread": np.zeros((size, size)), "sums": np.zeros((classes, size))},
        )

    def prepare(self, _block: Block, /) -> None:
        """Nothing: serving has computed the features."""

    def score(self, scoring: Arrays, block: Block) -> Partial:
        """(N, C), known where there is a feature."""
        values = self.scale * product(_with_one(block.features.values), scoring["weight"])
        return Partial(values=values.astype(np.float32), known=block.features.known)

    def learn(self, state: ExpertState, block: Block, targets: Targets) -> Step:
        """One solve of (d+1)³/3; nothing without a feature."""
        known = block.features.known
        if not known.any():
            return Step()
        rows = on_grid(_with_one(block.features.values[known]), FEATURE_BITS)  # (n, d+1)
        which = np.eye(len(state.learning["sums"]))[targets[known]]  # (n, C)
        spread = self.forgetting * state.learning["spread"] + rows.T @ rows
        sums = self.forgetting * state.learning["sums"] + which.T @ rows
        return Step(scoring={"weight": self._solve(spread, sums)}, learning={"spread": spread, "sums": sums})

    def relabel(self, state: ExpertState, rows: Sequence[int | None]) -> ExpertState:
        """T's rows move, and W follows from it: as if the classes had always been these."""
        sums = np.stack(
            [np.zeros_like(state.learning["sums"][0]) if row is None else state.learning["sums"][row] for row in rows]
        )
        spread = state.learning["spread"]
        return ExpertState(scoring={"weight": self._solve(spread, sums)}, learning={"spread": spread, "sums": sums})

    def _solve(self, spread: NDArray[np.float64], sums: NDArray[np.float64]) -> NDArray[np.float32]:
        """W. The last row of S is Σ γ^age x, since each x ends with a 1: so targets of ±1 are 2T minus that row."""
        wanted = 2 * sums - spread[-1]  # (C, d+1)
        with _THREADS.limit(limits=1, user_api="blas"):  # or the number of threads would change the last bits
            weight = np.linalg.solve(spread + self.penalty * np.eye(len(spread)), wanted.T).T
        return on_grid(weight, WEIGHT_BITS).astype(np.float32)


def _with_one(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hstack([features, np.ones((len(features), 1), np.float32)])
