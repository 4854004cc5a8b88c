"""What experts have learned, and what one block changes, as bytes: safetensors, so that reading them runs no code.

Guards that equal numbers give equal bytes, and that bytes of somebody else's making end in a ValueError at worst. Names
are "EXPERT.ARRAY" for scoring arrays, "EXPERT.learning.ARRAY" for the others; cells are two tensors, "….places" and
"….values". Whether shapes fit a state is for `state.apply` to say.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from driftline.experts.state import Cells, Change, Changes, ExpertState

__all__ = ["pack_changes", "pack_states", "unpack_changes", "unpack_states"]

LEVEL = 1
"""Of compression (zlib)."""
LEARNING, PLACES, VALUES = "learning.", ".places", ".values"
Found = dict[str, NDArray[Any]]


def pack_states(states: Mapping[str, ExpertState]) -> bytes:
    """Both bags of every expert, compressed: tables are mostly zeros."""
    named = {f"{expert}.{name}": array for expert, state in states.items() for name, array in state.scoring.items()}
    for expert, state in states.items():
        named |= {f"{expert}.{LEARNING}{name}": array for name, array in state.learning.items()}
    return zlib.compress(_packed(named), LEVEL)


def unpack_states(data: bytes) -> dict[str, ExpertState]:
    """The inverse, exact; the arrays are the caller's own. ValueError."""
    states: dict[str, ExpertState] = {}
    try:
        unpacked = zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(f"not what states are packed as: {error}") from None
    for expert, name, array in _named(_unpacked(unpacked)):
        state = states.setdefault(expert, ExpertState())
        bag = state.learning if name.startswith(LEARNING) else state.scoring
        bag[name.removeprefix(LEARNING)] = array
    return states


def pack_changes(changes: Mapping[str, Changes]) -> bytes:
    """The changes of every expert that has any; b"" for none at all."""
    named: Found = {}
    for expert, own in changes.items():
        for name, change in own.items():
            named |= _tensors(f"{expert}.{name}", change)
    return _packed(named) if named else b""


def unpack_changes(data: bytes) -> dict[str, dict[str, Change]]:
    """The inverse, exact. ValueError."""
    if not data:
        return {}
    changes: dict[str, dict[str, Change]] = {}
    found = _unpacked(data)
    for expert, name, array in _named(found):
        own = changes.setdefault(expert, {})
        if name.endswith(PLACES):
            cells = name.removesuffix(PLACES)
            own[cells] = Cells(places=array.astype(np.int64), values=_values(found, f"{expert}.{cells}{VALUES}"))
        elif not name.endswith(VALUES):
            own[name] = array
        elif f"{expert}.{name.removesuffix(VALUES)}{PLACES}" not in found:
            raise ValueError(f"{expert}.{name} has no places")
    return changes


def _tensors(name: str, change: Change) -> Found:
    """Places as 32-bit numbers where that is enough, which is always but for huge arrays."""
    if not isinstance(change, Cells):
        return {name: change}
    narrow = not len(change.places) or int(change.places.max()) <= np.iinfo(np.uint32).max
    places = change.places.astype(np.uint32) if narrow else change.places
    return {f"{name}{PLACES}": places, f"{name}{VALUES}": change.values}


def _values(found: Found, name: str) -> NDArray[Any]:
    if name not in found:
        raise ValueError(f"{name} is missing")
    return found[name]


def _named(found: Found) -> list[tuple[str, str, NDArray[Any]]]:
    """(expert, array's name, array), by name."""
    parted: list[tuple[str, str, NDArray[Any]]] = []
    for full in sorted(found):
        expert, dot, name = full.partition(".")
        if not (expert and dot and name):
            raise ValueError(f"{full!r} is no array of an expert")
        parted.append((expert, name, found[full]))
    return parted


def _packed(named: Mapping[str, NDArray[Any]]) -> bytes:
    return bytes(safetensors.numpy.save({name: np.ascontiguousarray(named[name]) for name in sorted(named)}))


def _unpacked(data: bytes) -> Found:
    load: Callable[[bytes], Found] = safetensors.numpy.load
    try:
        return {name: array.copy() for name, array in load(data).items()}
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"not what experts are packed as: {error}") from None
