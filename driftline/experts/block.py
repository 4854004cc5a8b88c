"""What experts are given of some texts, and what they answer: numbers for all rows, or for some of them.

Guards that nothing enters the mixture which is not finite: one NaN would stay in what an expert learned for ever.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Block", "Partial"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partial:
    """One row of numbers for each text that has any. Rows that are not `known` hold zeros and mean nothing."""

    values: NDArray[np.float32]
    """(N, K), finite."""
    known: NDArray[np.bool_]
    """(N,)"""
    silent: NDArray[np.bool_] | None = None
    """(N, K): numbers, all 0, that stand for having nothing to say; None: there are none in the rows that are known."""

    @classmethod
    def of(cls, rows: Sequence[NDArray[Any] | None], width: int) -> Self:
        """From one row (width,) per text, None where there is none. ValueError names a row that does not fit."""
        values = np.zeros((len(rows), width), np.float32)
        known = np.array([row is not None for row in rows], np.bool_)
        for place, row in enumerate(rows):
            if row is not None:
                values[place] = _checked(np.asarray(row), (width,), f"row {place}")
        return cls(values=values, known=known)

    @classmethod
    def full(cls, values: NDArray[Any]) -> Self:
        """From (N, K) numbers, all known. ValueError if one is not finite."""
        rows = _checked(values, values.shape, "the block")
        return cls(values=rows, known=np.ones(len(rows), np.bool_))

    @classmethod
    def none(cls, rows: int, width: int) -> Self:
        """Nothing is known of any row."""
        return cls(values=np.zeros((rows, width), np.float32), known=np.zeros(rows, np.bool_))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """N texts that are scored, or learned, together. Which texts share a block changes no score."""

    texts: tuple[str, ...]
    features: Partial
    """(N, d): of norm √d, of the version's body, as they were served (they come as fp16)."""
    head: Partial
    """(N, C): log-probabilities of the version's own head, as `head.log_probabilities` gives them."""
    names: NDArray[np.float32] | None = None
    """(C, d): the features of the label names, of the same body; None where there are none."""
    _read: dict[Callable[["Block"], Any], Any] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, reading: Callable[["Block"], T]) -> T:
        """`reading(block)`, done once for the block; equal readings are the same."""
        if reading not in self._read:
            self._read[reading] = reading(self)
        found: T = self._read[reading]
        return found


def _checked(values: NDArray[Any], shape: tuple[int, ...], what: str) -> NDArray[np.float32]:
    if values.shape != shape:
        raise ValueError(f"{what} is {values.shape}, expected {shape}")
    rows = values.astype(np.float32)
    if not np.isfinite(rows).all():
        raise ValueError(f"{what} holds NaN or infinite numbers")
    return rows
