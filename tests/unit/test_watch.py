"""The watch on simulated labels: how seldom it cries wolf, how soon it sees harm, and how it comes back."""

import random
from collections.abc import Callable, Iterator

import pytest

from learner.fast.watch import LEAST_SEEN, WINDOW, Outcome, WatchState, watch

PATIENCE = 1e5
Shares = tuple[float, float, float]
"""What mixture, head and majority are right with."""


def outcomes(seed: int, labels: int, shares: Callable[[int], Shares]) -> Iterator[Outcome]:
    """Mixture and head agree but for 5 % of the labels each way, so that they differ in what they get wrong."""
    draw = random.Random(seed)
    for number in range(labels):
        mixture, head, majority = shares(number)
        luck = draw.random()
        right = luck < mixture
        yield Outcome(right, luck < head - 0.05 or mixture <= luck < mixture + 0.05, draw.random() < majority)


def changes(seed: int, labels: int, shares: Callable[[int], Shares], patience: float = PATIENCE) -> list[int]:
    """The labels at which answers fell back, came again, fell back, …"""
    state, found = WatchState(), []
    for number, outcome in enumerate(outcomes(seed, labels, shares)):
        before, state = state.fell_back, watch(state, [outcome], patience)
        if state.fell_back != before:
            found.append(number)
    return found


def always(*shares: float) -> Callable[[int], Shares]:
    mixture, head, majority = shares
    return lambda _: (mixture, head, majority)


def poisoned(number: int) -> Shares:
    """Labels shuffled from 3,000 to 4,000: everybody is right by chance."""
    return (0.44, 0.40, 0.48) if 3000 <= number < 4000 else (0.77, 0.74, 0.48)


@pytest.mark.parametrize("seed", range(3))
def test_no_alarm_where_the_mixture_is_better_or_as_good(seed: int) -> None:
    assert changes(seed, 50_000, always(0.77, 0.74, 0.48)) == []
    assert changes(seed, 20_000, always(0.74, 0.74, 0.48)) == []


def test_alarms_are_as_seldom_as_stated() -> None:
    """At the edge (both right alike) the share of runs with an alarm within n labels is n / patience at most."""
    runs, labels, patience = 300, 400, 2000.0
    alarms = sum(bool(changes(seed, labels, always(0.6, 0.6, 0.3), patience)) for seed in range(runs))
    assert alarms / runs <= labels / patience


def test_a_change_of_subject_is_no_poison() -> None:
    """A new subject costs everybody a seventh for 300 labels, again and again."""

    def shares(number: int) -> Shares:
        return (0.66, 0.58, 0.48) if number % 1000 < 300 and number > 1000 else (0.77, 0.74, 0.48)

    assert [changes(seed, 12_500, shares) for seed in range(4)] == [[]] * 4


def test_shuffled_labels_are_seen_and_forgiven() -> None:
    for seed in range(6):
        fell, back = changes(seed, 6000, poisoned)
        assert 3000 < fell < 3300
        assert 4000 < back < 4500


def test_a_mixture_that_is_worse_than_the_head_is_seen() -> None:
    for seed in range(4):
        assert changes(seed, 3000, always(0.64, 0.74, 0.48))[0] < 700


def test_without_a_head_there_is_nothing_to_fall_back_to() -> None:
    state = watch(WatchState(), (Outcome(n % 3 == 0 and n < 2000, None, n % 2 == 0) for n in range(4000)), PATIENCE)
    assert not state.fell_back


def test_a_young_feed_has_nothing_to_fall_from() -> None:
    falling = (Outcome(number < 100, number < 100, False) for number in range(LEAST_SEEN))
    assert not watch(WatchState(), falling, PATIENCE).fell_back


def test_it_comes_back_after_a_whole_window_at_the_earliest() -> None:
    state = WatchState(fell_back=True, mark=0.6)
    for number in range(WINDOW):
        assert state.fell_back, number
        state = watch(state, [Outcome(True, True, False)], PATIENCE)
    assert not state.fell_back


@pytest.mark.parametrize("size", [1, 7, 32, 6000])
def test_how_labels_are_cut_into_blocks_does_not_matter(size: int) -> None:
    given = list(outcomes(0, 6000, poisoned))
    state = WatchState()
    for start in range(0, len(given), size):
        state = watch(state, given[start : start + size], PATIENCE)
    assert state == watch(WatchState(), given, PATIENCE)
