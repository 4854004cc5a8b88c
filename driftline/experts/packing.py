"""What experts have learned, and what one block changes, as bytes: safetensors, so that reading them runs no code.

Guards that equal numbers give equal bytes, and that bytes of somebody else's making end in a ValueError at worst. Names
are "EXPERT.ARRAY" for scoring arrays, "EXPERT.learning.ARRAY" for the others; cells are two tensors, "….places" and
"….values". Whether shapes fit a state is for `state.apply` to say.

A state's table is mostly zeros at first and hardly any later. So what is not zero is written as it is ("….values"),
beside one bit for each cell ("….filled", compressed) and the shape; weights themselves compress by a tenth at most, in
twenty times the time.
"""

import math
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
STATES = b"driftline states 2\n"
"""What packed states begin with. Those of before are compressed as a whole, and begin with zlib's header."""
LEARNING, PLACES, VALUES, FILLED, SHAPE = "learning.", ".places", ".values", ".filled", ".shape"
SMALL_BYTES = 4096
"""An array that is no larger is written whole."""
Found = dict[str, NDArray[Any]]


def pack_states(states: Mapping[str, ExpertState]) -> bytes:
    """Both bags of every expert."""
    named = {f"{expert}.{name}": array for expert, state in states.items() for name, array in state.scoring.items()}
    for expert, state in states.items():
        named |= {f"{expert}.{LEARNING}{name}": array for name, array in state.learning.items()}
    return STATES + _packed({part: one for name, array in named.items() for part, one in _thinned(name, array).items()})


def unpack_states(data: bytes) -> dict[str, ExpertState]:
    """The inverse, exact, also of states that were packed before; the arrays are the caller's own. ValueError."""
    states: dict[str, ExpertState] = {}
    unpacked = data[len(STATES) :] if data.startswith(STATES) else _inflated(data)
    for expert, name, array in _named(_filled(_unpacked(unpacked))):
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
            own[cells] = Cells(places=array.astype(np.int64), values=_part(found, f"{expert}.{cells}{VALUES}"))
        elif not name.endswith(VALUES):
            own[name] = array
        elif f"{expert}.{name.removesuffix(VALUES)}{PLACES}" not in found:
            raise ValueError(f"{expert}.{name} has no places")
    return changes


def _thinned(name: str, array: NDArray[Any]) -> Found:
    """Without the cells whose bits are all 0, as a zero's are (and not those of -0.0), where that takes less."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.nbytes <= SMALL_BYTES:
        return {name: array}
    filled = flat.view(f"u{flat.itemsize}") != 0  # (array.size,)
    if np.count_nonzero(filled) * flat.itemsize + len(flat) // 8 >= flat.nbytes:
        return {name: array}
    bits = zlib.compress(np.packbits(filled).tobytes(), LEVEL)
    return {
        f"{name}{SHAPE}": np.array(array.shape, np.int64),
        f"{name}{FILLED}": np.frombuffer(bits, np.uint8),
        f"{name}{VALUES}": flat[filled],
    }


def _filled(found: Found) -> Found:
    """The inverse of `_thinned`, of all that were thinned."""
    thinned = [name.removesuffix(FILLED) for name in found if name.endswith(FILLED)]
    parts = {f"{name}{part}" for name in thinned for part in (SHAPE, FILLED, VALUES)}
    whole = {name: array for name, array in found.items() if name not in parts}
    return whole | {name: _whole(found, name) for name in thinned}


def _whole(found: Found, name: str) -> NDArray[Any]:
    values, shape = _part(found, f"{name}{VALUES}"), _part(found, f"{name}{SHAPE}")
    bits = np.frombuffer(_inflated(found[f"{name}{FILLED}"].tobytes()), np.uint8)
    if shape.dtype != np.int64 or (shape < 0).any() or len(bits) != -(-math.prod(shape.tolist()) // 8):
        raise ValueError(f"{name}: {len(bits)} bytes of bits do not fill the shape {shape}")
    filled = np.unpackbits(bits, count=math.prod(shape.tolist())).view(np.bool_)
    if values.shape != (np.count_nonzero(filled),):
        raise ValueError(f"{name}: {values.shape} values do not fill the cells that have any")
    array = np.zeros(len(filled), values.dtype)
    array[filled] = values
    return array.reshape(shape.tolist())


def _tensors(name: str, change: Change) -> Found:
    """Places as 32-bit numbers where that is enough, which is always but for huge arrays."""
    if not isinstance(change, Cells):
        return {name: change}
    narrow = not len(change.places) or int(change.places.max()) <= np.iinfo(np.uint32).max
    places = change.places.astype(np.uint32) if narrow else change.places
    return {f"{name}{PLACES}": places, f"{name}{VALUES}": change.values}


def _part(found: Found, name: str) -> NDArray[Any]:
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


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(f"not what states are packed as: {error}") from None


def _packed(named: Mapping[str, NDArray[Any]]) -> bytes:
    return bytes(safetensors.numpy.save({name: np.ascontiguousarray(named[name]) for name in sorted(named)}))


def _unpacked(data: bytes) -> Found:
    load: Callable[[bytes], Found] = safetensors.numpy.load
    try:
        return {name: array.copy() for name, array in load(data).items()}
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"not what experts are packed as: {error}") from None
