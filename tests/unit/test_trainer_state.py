"""The trainer state's blob: an exact, canonical round trip, owner by owner, and across Driftlines."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import structlog
import torch

from driftline.artefact.weights import pack_tensors, unpack_tensors
from driftline.errors import ArtefactError
from learner.bag import Owner, Share, pack_bag, unpack_bag
from learner.moments import Moments
from learner.recent import RecentWindow
from learner.reservoir import ReservoirState
from learner.trainer_state import OWNERS, TrainerState, pack_state, unpack_state

OF_FORMAT_1 = Path(__file__).parents[1] / "fixtures" / "artefacts" / "trainer-state-format-1.safetensors"


def state() -> TrainerState:
    generator = torch.Generator().manual_seed(0)
    return TrainerState(
        optimizer=Moments(
            step=17,
            means={
                "head.bias.exp_avg": torch.randn(3, generator=generator),
                "a.lora_A.exp_avg_sq": torch.rand(2, 4, generator=generator),
            },
        ),
        reservoir=ReservoirState(
            entries=((5, "positive"), (1 << 40, "négatif"), (7, "positive")),
            seen={"positive": 12, "négatif": 1, "neutral": 2},
            full=frozenset({"positive"}),
        ),
        recent=RecentWindow((3, 5, 1 << 40)),
        buffer="one",
    )


def same(one: TrainerState, other: TrainerState) -> bool:
    ours, theirs = one.optimizer.means, other.optimizer.means
    return (
        (one.optimizer.step, one.reservoir, one.recent, one.buffer)
        == (other.optimizer.step, other.reservoir, other.recent, other.buffer)
        and ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
    )


def test_round_trip_is_exact() -> None:
    after = unpack_state(pack_state(state()))
    assert same(after, state())
    assert pack_state(after) == pack_state(state())


def test_the_first_state_is_empty_and_packs() -> None:
    after = unpack_state(pack_state(TrainerState()))
    assert (after.optimizer.step, after.optimizer.means, after.recent.seqs) == (0, {}, ())
    assert after.reservoir == ReservoirState()
    assert after.buffer is None


def test_in_another_buffer_nothing_is_remembered_but_what_was_trained() -> None:
    after = state().without_examples("other")
    assert (after.buffer, after.reservoir, after.recent) == ("other", ReservoirState(), RecentWindow())
    assert pack_bag({"optimizer": after.optimizer}, {}) == pack_bag({"optimizer": state().optimizer}, {})


def test_withdrawn_examples_are_forgotten_and_stay_counted() -> None:
    after = state().without({5, 1 << 40})
    assert after.reservoir.entries == ((7, "positive"),)
    assert after.reservoir.seen == state().reservoir.seen
    assert after.recent == RecentWindow((3,))


def test_equal_states_give_equal_bytes_whatever_the_order() -> None:
    one, other = state(), state()
    shuffled = TrainerState(
        optimizer=Moments(step=17, means=dict(reversed(other.optimizer.means.items()))),
        reservoir=ReservoirState(
            entries=other.reservoir.entries,
            seen=dict(reversed(other.reservoir.seen.items())),
            full=other.reservoir.full,
        ),
        recent=other.recent,
        buffer=other.buffer,
    )
    assert pack_state(one) == pack_state(shuffled)


@pytest.mark.parametrize(
    "data", [b"", b"no safetensors", pack_tensors({"x": torch.zeros(1)}), pack_state(state())[:-3]]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArtefactError) as error:
        unpack_state(data)
    assert error.value.code == "unreadable"


def test_a_newer_format_is_refused_by_name() -> None:
    data = pack_state(TrainerState()).replace(b'"format":"2"', b'"format":"9"')
    with pytest.raises(ArtefactError, match="format 9"):
        unpack_state(data)


def test_a_blob_of_format_1_is_read() -> None:
    """One that the code of its time wrote, read here by the library alone."""
    data = OF_FORMAT_1.read_bytes()
    tensors = safetensors.torch.load(data)
    with safetensors.safe_open(OF_FORMAT_1, "pt") as file:
        header = file.metadata()
    found = unpack_state(data)
    assert header["format"] == "1"
    assert (str(found.optimizer.step), found.buffer) == (header["step"], header["buffer"])
    assert found.optimizer.step > 0
    assert found.optimizer.means.keys() == {name[8:] for name in tensors if name.startswith("moments.")}
    assert all(torch.equal(found.optimizer.means[name], tensors[f"moments.{name}"]) for name in found.optimizer.means)
    assert list(found.recent.seqs) == tensors["recent"].tolist()
    named = json.loads(header["classes"])
    classes = [named[number] for number in tensors["reservoir.classes"].tolist()]
    assert found.reservoir.entries == tuple(zip(tensors["reservoir.seqs"].tolist(), classes, strict=True))
    assert list(found.reservoir.seen.values()) == json.loads(header["seen"])
    assert same(unpack_state(pack_state(found)), found)


# --- owners


def test_every_field_has_its_owner() -> None:
    assert {one.name for one in fields(TrainerState)} == {*OWNERS, "buffer"}


@pytest.mark.parametrize("name", OWNERS)
def test_an_owner_keeps_its_own_tensors_under_its_own_prefix(name: str) -> None:
    owner: Owner = getattr(state(), name)
    share = owner.pack()
    tensors, _ = unpack_tensors(pack_state(state()))
    assert {key.removeprefix(f"{name}.") for key in tensors if key.startswith(f"{name}.")} == share.tensors.keys()
    again = OWNERS[name].unpack(share)
    assert pack_bag({name: again}, {}) == pack_bag({name: owner}, {})
    nothing = OWNERS[name]()
    assert pack_bag({name: OWNERS[name].unpack(nothing.pack())}, {}) == pack_bag({name: nothing}, {})


class Slow:
    """An owner of a newer Driftline."""

    def pack(self) -> Share:
        return Share(tensors={"a.lora_A": torch.ones(2)}, facts={"rate": 0.5})


def test_an_owner_that_is_not_known_is_let_go_and_said_so() -> None:
    owners = {name: getattr(state(), name) for name in OWNERS} | {"slow": Slow()}
    with structlog.testing.capture_logs() as logs:
        found = unpack_state(pack_bag(owners, {"format": "2", "buffer": "one"}))
    assert same(found, state())
    assert [(one["event"], one["owners"]) for one in logs] == [("trainer_state_let_go", ["slow"])]
    assert b"slow" not in pack_state(found)


def test_an_owner_that_the_blob_does_not_have_starts_anew() -> None:
    found = unpack_state(pack_bag({"optimizer": state().optimizer}, {"format": "2"}))
    assert found.optimizer.step == 17
    assert (found.reservoir, found.recent, found.buffer) == (ReservoirState(), RecentWindow(), None)


def test_tensors_without_an_owner_are_no_bag() -> None:
    for header in ({"owners": "{}"}, {"owners": "[]"}, {}):
        with pytest.raises(ValueError, match="no bag"):
            unpack_bag({"stray.x": torch.zeros(1)}, header)
    with pytest.raises(ArtefactError) as error:
        unpack_state(pack_tensors({"stray.x": torch.zeros(1)}, {"format": "2", "owners": "{}"}))
    assert error.value.code == "unreadable"
