"""Products whose sums are exact, so that neither BLAS, nor threads, nor the rest of the batch can change a bit.

A matrix product in floating point depends on the order of its additions, and BLAS picks that by shape and number of
threads. Here both factors are rounded to a binary grid first: every product and every partial sum is then a multiple
of the grids' product that float64 holds exactly (53 bits), in any order.
Guards that a text scores the same bytes alone and in a batch, on one thread and on many.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEATURE_BITS", "WEIGHT_BITS", "on_grid", "product"]

FEATURE_BITS = 13
"""Features have norm √d ≤ 64 and come as fp16, whose own spacing around 1 is 2^-10."""
WEIGHT_BITS = 26
"""With both grids 39 bits lie behind the point and 14 stay before it: rows of a norm up to 2^14 / √d are exact."""


def on_grid(values: NDArray[Any], bits: int) -> NDArray[np.float64]:
    """The nearest multiples of 2^-bits. Scaling by a power of two is exact."""
    scaled: NDArray[np.float64] = np.multiply(values, 2.0**bits, dtype=np.float64)
    np.rint(scaled, out=scaled)
    scaled *= 2.0**-bits
    return scaled


def product(features: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """(N, d) features times (C, d) weights, transposed: (N, C) exact sums of their values on the grids."""
    exact: NDArray[np.float64] = on_grid(features, FEATURE_BITS) @ on_grid(weights, WEIGHT_BITS).T
    return exact
