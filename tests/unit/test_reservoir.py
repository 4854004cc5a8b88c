"""Exact probabilities, by enumerating every outcome of every draw: a mean over many runs does not see an off-by-one."""

from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations, permutations

import numpy as np
import pytest

from learner.reservoir import Reservoir, ReservoirState, draw_without_repeats


class Scripted:
    """Answers `integers(n)` from a script, then with 0; remembers how many choices each draw had."""

    def __init__(self, script: list[int]) -> None:
        self.script = script
        self.choices: list[int] = []

    def integers(self, high: int, /) -> int:
        self.choices.append(high)
        return self.script[len(self.choices) - 1] if len(self.choices) <= len(self.script) else 0


def every_outcome(run: Callable[[Scripted], object]) -> Iterator[tuple[object, Fraction]]:
    """(result, probability) of every path through the draws that `run` makes."""
    todo: list[list[int]] = [[]]
    while todo:
        script = todo.pop()
        rng = Scripted(script)
        result = run(rng)
        probability = Fraction(1)
        for high in rng.choices:
            probability /= high
        yield result, probability
        for place in range(len(script), len(rng.choices)):
            taken = script + [0] * (place - len(script))
            todo += [[*taken, other] for other in range(1, rng.choices[place])]


def kept_sets(stream: list[tuple[int, str]], capacity: int, *, by_class: bool = True) -> dict[frozenset[int], Fraction]:
    def run(rng: Scripted) -> frozenset[int]:
        reservoir = Reservoir(capacity, by_class=by_class)
        for seq, label in stream:
            reservoir.offer(seq, label, rng)
        return frozenset(seq for seq, _ in reservoir.state().entries)

    found: Counter[frozenset[int]] = Counter()
    for result, probability in every_outcome(run):
        found[result] += probability
    return dict(found)


def inclusion(sets: dict[frozenset[int], Fraction], seq: int) -> Fraction:
    return sum((p for kept, p in sets.items() if seq in kept), Fraction(0))


@pytest.mark.parametrize(("n", "capacity"), [(2, 1), (6, 3), (5, 1), (4, 4), (3, 5)])
def test_uniform_keeps_every_subset_with_equal_probability_whatever_the_classes(n: int, capacity: int) -> None:
    sets = kept_sets([(seq, "ab"[seq == 1]) for seq in range(n)], capacity, by_class=False)
    subsets = list(combinations(range(n), min(n, capacity)))
    assert sets == {frozenset(subset): Fraction(1, len(subsets)) for subset in subsets}


@pytest.mark.parametrize(("n", "capacity"), [(2, 1), (6, 3), (5, 1), (4, 4), (3, 5)])
def test_one_class_is_a_uniform_reservoir(n: int, capacity: int) -> None:
    sets = kept_sets([(seq, "a") for seq in range(n)], capacity)
    subsets = list(combinations(range(n), min(n, capacity)))
    assert sets == {frozenset(subset): Fraction(1, len(subsets)) for subset in subsets}


def test_a_rare_class_takes_its_place_from_the_largest() -> None:
    # By hand: after a0 a1 a2 each a is kept with 2/3; b3 takes the place of one of the two, so each stays with 1/3.
    sets = kept_sets([(0, "a"), (1, "a"), (2, "a"), (3, "b")], capacity=2)
    assert inclusion(sets, 3) == 1
    assert [inclusion(sets, seq) for seq in range(3)] == [Fraction(1, 3)] * 3


def test_every_class_keeps_a_uniform_sample_of_its_own() -> None:
    stream = [(0, "a"), (1, "a"), (2, "b"), (3, "a"), (4, "b"), (5, "b"), (6, "c"), (7, "a")]
    sets = kept_sets(stream, capacity=3)
    assert sum(sets.values()) == 1
    for label in "ab":
        members = [seq for seq, one in stream if one == label]
        assert len({inclusion(sets, seq) for seq in members}) == 1, label
    assert inclusion(sets, 6) == 1
    assert all(len(kept) == 3 for kept in sets)


def test_equally_large_classes_give_way_with_equal_probability() -> None:
    # a0 b1 fill the memory; both are largest, so c2 replaces either.
    assert kept_sets([(0, "a"), (1, "b"), (2, "c")], capacity=2) == {
        frozenset({0, 2}): Fraction(1, 2),
        frozenset({1, 2}): Fraction(1, 2),
    }


def test_draws_without_repeats_are_uniform_over_ordered_samples() -> None:
    found: Counter[tuple[int, ...]] = Counter()
    for result, probability in every_outcome(lambda rng: tuple(draw_without_repeats([7, 8, 9], 2, rng))):
        found[result] += probability
    assert dict(found) == dict.fromkeys(permutations([7, 8, 9], 2), Fraction(1, 6))


def test_sampling_leaves_out_what_is_excluded_and_gives_fewer_when_there_are_fewer() -> None:
    reservoir = Reservoir(10, by_class=False)
    for seq in range(4):
        reservoir.offer(seq, "a", np.random.default_rng(0))
    drawn = reservoir.sample(10, np.random.default_rng(1), frozenset({2}))
    assert sorted(drawn) == [0, 1, 3]
    assert reservoir.sample(0, np.random.default_rng(1)) == []


@pytest.mark.parametrize("by_class", [True, False])
def test_going_on_from_a_snapshot_equals_never_having_stopped(by_class: bool) -> None:
    labels = np.random.default_rng(5).choice(["a", "b", "c"], size=400, p=[0.8, 0.15, 0.05])
    whole, rng = Reservoir(30, by_class=by_class), np.random.default_rng(3)
    for seq, label in enumerate(labels):
        whole.offer(seq, str(label), rng)
    stopped, rng = Reservoir(30, by_class=by_class), np.random.default_rng(3)
    for seq, label in enumerate(labels):
        stopped.offer(seq, str(label), rng)
        stopped = Reservoir(30, stopped.state(), by_class=by_class)
    assert stopped.state() == whole.state()


def test_a_rare_class_is_not_drowned() -> None:
    rng = np.random.default_rng(0)
    reservoir = Reservoir(20, by_class=True)
    for seq in range(1000):
        reservoir.offer(seq, "rare" if seq % 100 == 50 else "common", rng)
    kept = Counter(label for _, label in reservoir.state().entries)
    assert kept == {"rare": 10, "common": 10}
    assert reservoir.state().seen == {"rare": 10, "common": 990}


def test_shrinking_takes_from_the_largest_uniformly() -> None:
    state = ReservoirState(entries=((0, "a"), (1, "a"), (2, "a"), (3, "b")), seen={"a": 3, "b": 1})

    def run(rng: Scripted) -> frozenset[int]:
        reservoir = Reservoir(2, state, by_class=True)
        reservoir.shrink(rng)
        return frozenset(seq for seq, _ in reservoir.state().entries)

    found: Counter[frozenset[int]] = Counter()
    for result, probability in every_outcome(run):
        found[result] += probability
    assert dict(found) == {frozenset({seq, 3}): Fraction(1, 3) for seq in range(3)}


def test_a_uniform_reservoir_shrinks_to_every_subset_with_equal_probability_and_goes_on_counting() -> None:
    state = ReservoirState(entries=((0, "a"), (1, "a"), (2, "b")), seen={"a": 5, "b": 1}, full=frozenset("a"))

    def run(rng: Scripted) -> ReservoirState:
        reservoir = Reservoir(2, state, by_class=False)
        reservoir.shrink(rng)
        return reservoir.state()

    found: Counter[frozenset[int]] = Counter()
    for result, probability in every_outcome(run):
        assert isinstance(result, ReservoirState)
        assert result.seen == state.seen
        found[frozenset(seq for seq, _ in result.entries)] += probability
    assert dict(found) == {frozenset(pair): Fraction(1, 3) for pair in combinations(range(3), 2)}


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_either_kind_goes_on_from_a_state_of_the_other(before: bool, after: bool) -> None:
    """What is kept of the old kind gives way to what the new kind keeps: 50 a, then as many of each class."""
    rng = np.random.default_rng(0)
    first = Reservoir(40, by_class=before)
    for seq in range(50):
        first.offer(seq, "a", rng)
    then = Reservoir(40, first.state(), by_class=after)
    for seq in range(50, 2050):
        then.offer(seq, "b" if seq % 100 == 0 else "a", rng)
    kept = Counter(label for _, label in then.state().entries)
    assert sum(kept.values()) == 40
    assert kept["b"] == 20 if after else kept["b"] <= 5


def test_corrected_examples_are_filed_under_their_right_class() -> None:
    state = ReservoirState(entries=((1, "a"), (2, "a"), (3, "b")), seen={"a": 9, "b": 1}, full=frozenset({"a"}))
    assert state.relabelled({}) is state
    assert state.relabelled({1: "a", 9: "b"}) is state
    mended = state.relabelled({1: "b", 3: "c"})
    assert mended.entries == ((1, "b"), (2, "a"), (3, "c"))
    assert mended.seen == {"a": 8, "b": 1, "c": 1}
    assert mended.full == state.full
