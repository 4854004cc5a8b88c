"""What replay draws and remembers."""

from datetime import UTC, datetime

import numpy as np
import pytest

from driftline.config import LearnerConfig
from driftline.records import Example
from learner.moments import Moments
from learner.strategies import STRATEGIES, strategy_named
from learner.trainer_state import TrainerState

AT = datetime(2026, 11, 22, tzinfo=UTC)


def examples(seqs: range | list[int], label: str = "a") -> list[Example]:
    return [
        Example(
            seq=seq,
            feed="f",
            event_id=str(seq),
            text="t",
            label=label,
            occurred_at=AT,
            labelled_at=AT,
            source=None,
            holdout=False,
            answer=None,
        )
        for seq in seqs
    ]


def section(**changes: object) -> LearnerConfig:
    return LearnerConfig(reservoir_examples=50, recent_examples=20).model_copy(update=changes)


def remembered(n: int, config: LearnerConfig) -> TrainerState:
    return strategy_named("er").remember(TrainerState(), examples(range(n)), [], config, np.random.default_rng(0))


def test_the_config_names_exactly_the_strategies_there_are() -> None:
    for name in STRATEGIES:
        assert LearnerConfig.model_validate({"strategy": name}).strategy == name
    with pytest.raises(KeyError):
        strategy_named("other")


def test_by_default_replay_is_a_uniform_sample_of_all_the_past() -> None:
    config = section()
    state = remembered(1000, config)
    drawn = strategy_named("er").draw(examples(range(1000, 1016)), state, config, np.random.default_rng(7))
    assert set(drawn) <= {seq for seq, _ in state.reservoir.entries}


def test_half_of_the_replay_is_recent_and_nothing_comes_twice() -> None:
    config = section(recent_share=0.5)
    state = remembered(1000, config)
    assert state.recent.seqs == tuple(range(980, 1000))
    fresh = examples(range(1000, 1016))
    drawn = strategy_named("er").draw(fresh, state, config, np.random.default_rng(7))
    assert len(drawn) == len(set(drawn)) == 16
    assert sum(seq in state.recent.seqs for seq in drawn) >= 8
    kept = {seq for seq, _ in state.reservoir.entries}
    assert sum(seq in kept for seq in drawn) >= 8
    assert drawn == strategy_named("er").draw(fresh, state, config, np.random.default_rng(7))
    assert drawn != strategy_named("er").draw(fresh, state, config, np.random.default_rng(8))


@pytest.mark.parametrize(("share", "recent"), [(0.0, 0), (0.25, 4), (1.0, 16)])
def test_the_recent_share_says_where_replay_comes_from(share: float, recent: int) -> None:
    config = section(recent_share=share)
    state = remembered(1000, config)
    only_recent = set(state.recent.seqs) - {seq for seq, _ in state.reservoir.entries}
    only_kept = {seq for seq, _ in state.reservoir.entries} - set(state.recent.seqs)
    drawn = strategy_named("er").draw(examples(range(1000, 1016)), state, config, np.random.default_rng(7))
    assert sum(seq in only_recent for seq in drawn) <= recent
    assert sum(seq in only_kept for seq in drawn) <= 16 - recent


@pytest.mark.parametrize(
    ("ratio", "fresh", "drawn"), [(1.0, 5, 5), (0.5, 5, 3), (2.0, 5, 10), (0.0, 5, 0), (0.25, 10, 3)]
)
def test_the_ratio_rounds_half_up(ratio: float, fresh: int, drawn: int) -> None:
    config = section(replay_ratio=ratio)
    state = remembered(200, config)
    found = strategy_named("er").draw(examples(range(500, 500 + fresh)), state, config, np.random.default_rng(0))
    assert len(found) == drawn


def test_fewer_when_not_enough_is_remembered() -> None:
    config = section()
    strategy, rng = strategy_named("er"), np.random.default_rng(0)
    assert strategy.draw(examples(range(5)), TrainerState(), config, rng) == []
    drawn = strategy.draw(examples(range(100, 140)), remembered(6, config), config, rng)
    assert sorted(drawn) == list(range(6))


def test_the_reservoir_makes_up_for_a_short_window() -> None:
    config = section(recent_examples=2, recent_share=0.5)
    drawn = strategy_named("er").draw(
        examples(range(500, 520)), remembered(40, config), config, np.random.default_rng(0)
    )
    assert len(set(drawn)) == 20


def test_a_fresh_example_is_never_replayed_in_its_own_update() -> None:
    config = section()
    state = remembered(30, config)
    again = examples(range(15))
    drawn = strategy_named("er").draw(again, state, config, np.random.default_rng(0))
    assert len(drawn) == 15
    assert not set(drawn) & set(range(15))


def test_remembering_keeps_stream_order_and_offers_nothing_twice() -> None:
    config = section(recent_examples=5)
    strategy, rng = strategy_named("er"), np.random.default_rng(0)
    state = strategy.remember(
        TrainerState(optimizer=Moments(step=3)), examples([4, 6, 8]), examples([1, 5]), config, rng
    )
    assert state.recent.seqs == (1, 4, 5, 6, 8)
    assert state.optimizer.step == 3
    again = strategy.remember(state, examples([8, 9]), [], config, rng)
    assert again.recent.seqs == (4, 5, 6, 8, 9)
    assert again.reservoir.seen == {"a": 6}
    assert state.recent.seqs == (1, 4, 5, 6, 8)


def test_a_smaller_reservoir_shrinks_at_the_next_update() -> None:
    state = remembered(50, section())
    smaller = section(reservoir_examples=10)
    after = strategy_named("er").remember(state, examples([99], "b"), [], smaller, np.random.default_rng(0))
    assert len(after.reservoir.entries) == 10


def test_the_config_says_which_reservoir_remembers() -> None:
    rare = examples([99], "b")
    for kind, always in (("class_balanced", True), ("uniform", False)):
        config = section(reservoir=kind)
        found = [
            (99, "b")
            in strategy_named("er").remember(state, rare, [], config, np.random.default_rng(n)).reservoir.entries
            for n in range(40)
            for state in [remembered(98, config)]
        ]
        assert all(found) == always, kind
        assert any(found), kind


def test_naive_draws_nothing_and_remembers_the_same() -> None:
    config = section()
    naive, er = strategy_named("naive"), strategy_named("er")
    arguments = (TrainerState(), examples(range(80)), examples([200]), config)
    after = naive.remember(*arguments, np.random.default_rng(1))
    assert after.reservoir == er.remember(*arguments, np.random.default_rng(1)).reservoir
    assert naive.draw(examples([300]), after, config, np.random.default_rng(0)) == []
