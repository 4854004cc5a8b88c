"""What an expert has learned, as named arrays, and how one block changes them.

Guards that whoever applies the same changes in the same order holds the same bytes: a change carries new numbers, not
differences, so applying it involves no arithmetic. Learning itself changes nothing; `write` is the only place that
writes into arrays.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Cells", "Change", "Changes", "ExpertState", "Step", "apply", "check", "write"]

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertState:
    """Two bags of named arrays. `scoring` is what a replica needs, and what pulses carry; `learning` is what only
    learning needs besides, and never leaves the fast clock."""

    scoring: Arrays = field(default_factory=dict)
    learning: Arrays = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """New numbers for some cells of an array, or for some of its rows; no place twice."""

    places: NDArray[np.int64]
    """(M,): places in the flat (C-ordered) array, or the rows' places."""
    values: NDArray[Any]
    """(M,) or, of rows, (M, K) with K the array's last dimension; of the array's dtype."""


Change = NDArray[Any] | Cells
"""A whole new array, or new numbers for some of its cells."""
Changes = Mapping[str, Change]
"""By the array's name; what is not named stays."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """What one block changes in an expert's state."""

    scoring: Changes = field(default_factory=dict)
    learning: Changes = field(default_factory=dict)


def apply(arrays: Arrays, changes: Changes) -> None:
    """Write the changes into `arrays`, in place. ValueError for another shape or dtype, KeyError for an unknown name;
    then nothing was written."""
    for name, change in changes.items():
        check(name, arrays[name], change)
    write(arrays, changes)


def write(arrays: Arrays, changes: Changes) -> None:
    """As `apply`, of changes that were checked before: for who must not wait for that."""
    for name, change in changes.items():
        if isinstance(change, Cells):
            arrays[name].reshape(-1, *change.values.shape[1:])[change.places] = change.values
        else:
            arrays[name][...] = change


def check(name: str, array: NDArray[Any], change: Change) -> None:
    """ValueError, with `name`, if `apply` would refuse the change to this array."""
    values = change.values if isinstance(change, Cells) else change
    wanted = _shape(array, change) if isinstance(change, Cells) else array.shape
    if isinstance(change, Cells) and change.places.ndim != 1:
        raise ValueError(f"{name}: the change's places are {change.places.shape}, expected a list")
    if values.dtype != array.dtype or values.shape != wanted:
        raise ValueError(f"{name}: the change is {values.shape} {values.dtype}, expected {wanted} {array.dtype}")
    if isinstance(change, Cells) and len(change.places):
        room = array.size // math.prod(wanted[1:])
        if not 0 <= change.places.min() <= change.places.max() < room:
            raise ValueError(f"{name}: the change has places beyond the array's {room}")


def _shape(array: NDArray[Any], change: Cells) -> tuple[int, ...]:
    """What the values must have."""
    return (*change.places.shape, *array.shape[-1:]) if change.values.ndim == 2 else change.places.shape
