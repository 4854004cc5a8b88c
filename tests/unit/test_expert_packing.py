"""Experts' states and changes as bytes: exact there and back, equal for equal numbers, and safe to read."""

import random
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.numpy

from driftline.experts import Cells, ExpertState
from driftline.experts.packing import STATES as STATES_BEGIN
from driftline.experts.packing import pack_changes, pack_states, unpack_changes, unpack_states

DRAW = np.random.default_rng(0)
STATES = {
    "ridge": ExpertState(
        scoring={"weight": DRAW.normal(size=(3, 5)).astype(np.float32)}, learning={"spread": DRAW.normal(size=(5, 5))}
    ),
    "words": ExpertState(
        scoring={"weight": np.zeros((8, 3), np.float32)}, learning={"squares": np.ones(8, np.float32)}
    ),
    "mixer": ExpertState(scoring={"weight.words": np.ones(8, np.float32), "seen": np.zeros(3)}),
}


def table(share: float, dtype: type = np.float32, shape: tuple[int, ...] = (1 << 12, 3)) -> np.ndarray:
    """So much of it learned."""
    draw = np.random.default_rng(1)
    return np.where(draw.random(shape) < share, draw.normal(size=shape), 0).astype(dtype)


CHANGES = {
    "ridge": {"weight": np.full((3, 5), 0.1, np.float32)},
    "words": {"weight": Cells(places=np.array([2, 23, 5]), values=np.array([0.5, -1, 2], np.float32))},
    "mixer": {"weight.words": np.full(8, 0.9, np.float32), "seen": np.array([1.0, 0, 2])},
}


def test_states_come_back_exactly() -> None:
    found = unpack_states(pack_states(STATES))
    assert found.keys() == STATES.keys()
    for expert, state in STATES.items():
        for bag, other in ((state.scoring, found[expert].scoring), (state.learning, found[expert].learning)):
            assert bag.keys() == other.keys()
            assert all(np.array_equal(bag[name], other[name]) and bag[name].dtype == other[name].dtype for name in bag)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.99, 1])
@pytest.mark.parametrize("shape", [(1 << 12, 3), (5003,), (1, 4097), (0, 3)])
def test_tables_come_back_exactly_however_full(share: float, dtype: type, shape: tuple[int, ...]) -> None:
    whole = table(share, dtype, shape)
    found = unpack_states(pack_states({"words": ExpertState(scoring={"weight": whole})}))["words"].scoring["weight"]
    assert (found.shape, found.dtype, found.tobytes()) == (whole.shape, whole.dtype, whole.tobytes())
    found[...] = 7  # it is the reader's own


def test_what_looks_like_zero_and_is_not_comes_back() -> None:
    odd = table(0.01)
    odd[:4, 0] = [-0.0, np.nan, np.inf, 5e-45]
    found = unpack_states(pack_states({"words": ExpertState(learning={"squares": odd})}))["words"].learning["squares"]
    assert found.tobytes() == odd.tobytes()


def test_a_table_takes_what_was_learned_and_not_what_was_not() -> None:
    sizes = {share: len(pack_states({"words": ExpertState(scoring={"weight": table(share)})})) for share in (0, 0.1, 1)}
    whole = table(1).nbytes
    assert sizes[0] < 600
    assert sizes[0.1] < 0.15 * whole
    assert sizes[1] < whole + 300


def as_packed_before(states: dict[str, ExpertState]) -> bytes:
    """By the code of format 1."""
    named = {}
    for expert, one in states.items():
        named |= {f"{expert}.{name}": array for name, array in one.scoring.items()}
        named |= {f"{expert}.learning.{name}": array for name, array in one.learning.items()}
    return zlib.compress(safetensors.numpy.save({name: named[name] for name in sorted(named)}), 1)


def test_states_that_were_packed_before_come_back() -> None:
    states = STATES | {
        "chars": ExpertState(scoring={"weight": table(0.3)}, learning={"squares": table(0.3, shape=(1 << 12,))})
    }
    found = unpack_states(as_packed_before(states))
    assert pack_states(found) == pack_states(states)


def test_changes_come_back_exactly() -> None:
    found = unpack_changes(pack_changes(CHANGES))
    cells = found["words"]["weight"]
    assert isinstance(cells, Cells)
    assert (cells.places.tolist(), cells.places.dtype, cells.values.dtype) == ([2, 23, 5], np.int64, np.float32)
    assert np.array_equal(found["ridge"]["weight"], CHANGES["ridge"]["weight"])
    assert found["mixer"].keys() == CHANGES["mixer"].keys()


def test_places_beyond_32_bits_come_back() -> None:
    cells = Cells(places=np.array([1, 2**40]), values=np.zeros(2, np.float32))
    found = unpack_changes(pack_changes({"words": {"weight": cells}}))["words"]["weight"]
    assert isinstance(found, Cells)
    assert found.places.tolist() == [1, 2**40]


def test_equal_numbers_give_equal_bytes_whatever_their_order() -> None:
    states, changes = dict(reversed(STATES.items())), dict(reversed(CHANGES.items()))
    assert pack_states(states) == pack_states(STATES)
    assert pack_changes(changes) == pack_changes(CHANGES)


def test_nothing_is_packed_as_nothing() -> None:
    assert pack_changes({}) == pack_changes({"head": {}}) == b""
    assert unpack_changes(b"") == {}


def test_what_was_read_is_the_readers_own() -> None:
    data = pack_states(STATES)
    unpack_states(data)["ridge"].scoring["weight"][:] = 7
    assert np.array_equal(unpack_states(data)["ridge"].scoring["weight"], STATES["ridge"].scoring["weight"])


@pytest.mark.parametrize(
    "tensors",
    [
        {"weight": np.zeros(1)},
        {".weight": np.zeros(1)},
        {"words.": np.zeros(1)},
        {"words.weight.places": np.zeros(1)},
        {"words.weight.values": np.zeros(1)},
    ],
    ids=lambda tensors: next(iter(tensors)),
)
def test_what_is_no_change_is_refused(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"missing|no places|no array"):
        unpack_changes(safetensors.numpy.save(tensors))


SPARSE = pack_states({"words": ExpertState(scoring={"weight": table(0.01)})})


@pytest.mark.parametrize(
    ("whole", "unpack"), [(pack_changes(CHANGES), unpack_changes), (SPARSE, unpack_states)], ids=["changes", "states"]
)
def test_no_damage_ends_in_anything_but_a_value_error(whole: bytes, unpack: Callable[[bytes], object]) -> None:
    draw = random.Random(0)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            unpack(bytes(data[: draw.choice([draw.randint(0, len(data)), len(data)])]))
        except ValueError:
            continue


@pytest.mark.parametrize("part", [".shape", ".filled", ".values"])
def test_a_table_whose_parts_do_not_fit_is_refused(part: str) -> None:
    tensors = safetensors.numpy.load(SPARSE.removeprefix(STATES_BEGIN))
    tensors[f"words.weight{part}"] = tensors[f"words.weight{part}"][:-1]
    with pytest.raises(ValueError, match=r"do not fill|packed as"):
        unpack_states(STATES_BEGIN + safetensors.numpy.save(tensors))


@pytest.mark.parametrize("part", [".shape", ".values"])
def test_a_table_that_lacks_a_part_is_refused(part: str) -> None:
    tensors = safetensors.numpy.load(SPARSE.removeprefix(STATES_BEGIN))
    del tensors[f"words.weight{part}"]
    with pytest.raises(ValueError, match="missing"):
        unpack_states(STATES_BEGIN + safetensors.numpy.save(tensors))
