"""Experts' states and changes as bytes: exact there and back, equal for equal numbers, and safe to read."""

import random

import numpy as np
import pytest
import safetensors.numpy

from driftline.experts import Cells, ExpertState
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


def test_no_damage_ends_in_anything_but_a_value_error() -> None:
    draw, whole = random.Random(0), pack_changes(CHANGES)
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            unpack_changes(bytes(data[: draw.randint(0, len(data))]))
        except ValueError:
            continue
