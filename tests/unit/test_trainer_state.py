"""The trainer state's blob: an exact, canonical round trip."""

import pytest
import torch

from driftline.artefact.weights import pack_tensors
from driftline.config import LearnerConfig
from driftline.errors import ArtefactError
from learner.reservoir import ReservoirState
from learner.trainer_state import TrainerState, pack_state, unpack_state


def state() -> TrainerState:
    generator = torch.Generator().manual_seed(0)
    return TrainerState(
        step=17,
        moments={
            "head.bias.exp_avg": torch.randn(3, generator=generator),
            "a.lora_A.exp_avg_sq": torch.rand(2, 4, generator=generator),
        },
        reservoir=ReservoirState(
            entries=((5, "positive"), (1 << 40, "négatif"), (7, "positive")),
            seen={"positive": 12, "négatif": 1, "neutral": 2},
            full=frozenset({"positive"}),
        ),
        recent=(3, 5, 1 << 40),
        buffer="one",
    )


def test_round_trip_is_exact() -> None:
    before = state()
    after = unpack_state(pack_state(before))
    assert (after.step, after.reservoir, after.recent) == (before.step, before.reservoir, before.recent)
    assert after.moments.keys() == before.moments.keys()
    assert all(torch.equal(after.moments[name], before.moments[name]) for name in before.moments)
    assert after.buffer == before.buffer == "one"
    assert pack_state(after) == pack_state(before)


def test_the_first_state_is_empty_and_packs() -> None:
    first = TrainerState.initial(LearnerConfig())
    after = unpack_state(pack_state(first))
    assert (after.step, after.moments, after.recent) == (0, {}, ())
    assert after.reservoir == ReservoirState()
    assert after.buffer is None


def test_in_another_buffer_nothing_is_remembered_but_what_was_trained() -> None:
    before = state()
    after = before.without_examples("other")
    assert (after.buffer, after.reservoir, after.recent) == ("other", ReservoirState(), ())
    assert (after.step, after.moments) == (before.step, before.moments)


def test_equal_states_give_equal_bytes_whatever_the_order() -> None:
    one, other = state(), state()
    shuffled = TrainerState(
        step=other.step,
        moments=dict(reversed(other.moments.items())),
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


def test_another_format_is_refused_by_name() -> None:
    data = pack_state(TrainerState()).replace(b'"format":"1"', b'"format":"9"')
    with pytest.raises(ArtefactError, match="format 9"):
        unpack_state(data)
