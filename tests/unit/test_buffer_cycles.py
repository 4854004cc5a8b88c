"""take, ack, and what promotions and rollbacks do to examples."""

import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from driftline.buffer import Buffer
from driftline.errors import BufferStoreError
from tests.fixtures.buffers import EVENTS, FEED, KEY, at, cycle, event, place, rules, up_to


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buffer.sqlite3"


@pytest.fixture
def buffer(path: Path):
    opened = Buffer.open(path, rules(await_predictions=False), KEY)
    opened.intake.append([event(f"e{i}", i, label="pos") for i in range(30)], up_to(EVENTS, 30), at(0))
    yield opened
    opened.close()


def states(buffer: Buffer) -> dict[str, int]:
    counts = buffer.counts(FEED)
    names = ("fresh", "taken", "learned", "retired", "remembered", "set_aside", "awaiting_prediction")
    assert sum(getattr(counts, name) for name in names) + counts.holdouts == counts.examples
    return {name: n for name in names if (n := getattr(counts, name))}


def learn(buffer: Buffer, version: int, parent: int, count: int, outcome: str = "promoted") -> list[int]:
    fresh = [e.seq for e in buffer.ledger.fresh(FEED, count)]
    retired = [e.seq for e in buffer.ledger.retired(FEED, 100)]
    buffer.ledger.take(cycle(version, fresh, parent=parent, retired=tuple(retired)))
    buffer.ledger.ack(f"cycle-{version}", outcome)
    return fresh


def test_a_cycle_takes_its_examples_and_survives_a_crash(buffer: Buffer, path: Path) -> None:
    taken = cycle(1, [e.seq for e in buffer.ledger.fresh(FEED, 10)], replayed=(15, 16, 15))
    buffer.ledger.take(taken)
    assert states(buffer) == {"fresh": 20, "taken": 10}
    assert [e.seq for e in buffer.ledger.fresh(FEED, 3)] == [11, 12, 13]
    buffer.close()
    again = Buffer.open(path, rules(await_predictions=False), KEY)
    assert again.ledger.open_cycle(FEED) == taken
    again.ledger.ack("cycle-1", "promoted")
    assert again.ledger.open_cycle(FEED) is None
    assert states(again) == {"fresh": 20, "learned": 10}
    assert [(row.cycle, row.outcome) for row in again.ledger.cycles(FEED)] == [(taken, "promoted")]
    again.close()


def test_acknowledging_twice_changes_nothing_and_contradicting_is_refused(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 5, "rejected")
    buffer.ledger.ack("cycle-1", "rejected")
    assert states(buffer) == {"fresh": 30}
    with pytest.raises(BufferStoreError, match="ended as rejected"):
        buffer.ledger.ack("cycle-1", "promoted")
    with pytest.raises(BufferStoreError, match="no cycle 'cycle-9'"):
        buffer.ledger.ack("cycle-9", "promoted")


@pytest.mark.parametrize(
    "plan", [{"fresh": [1, 99]}, {"fresh": [1], "retired": (2,)}, {"fresh": [], "replayed": (99,)}]
)
def test_a_plan_with_an_example_that_is_not_available_changes_nothing(buffer: Buffer, plan: dict) -> None:
    with pytest.raises(BufferStoreError):
        buffer.ledger.take(cycle(1, **plan))
    assert states(buffer) == {"fresh": 30}
    assert buffer.ledger.open_cycle(FEED) is None


def test_one_open_cycle_per_feed(buffer: Buffer) -> None:
    buffer.ledger.take(cycle(1, [1]))
    with pytest.raises(BufferStoreError, match="cycle-1 is still open"):
        buffer.ledger.take(cycle(2, [2]))
    assert states(buffer) == {"fresh": 29, "taken": 1}


def test_a_held_out_example_is_never_trained_on(tmp_path: Path) -> None:
    buffer = Buffer.open(tmp_path / "h.sqlite3", rules(await_predictions=False, holdout_share=0.5), KEY)
    buffer.intake.append([event(f"e{i}", i, label="pos") for i in range(40)], up_to(EVENTS, 40), at(0))
    held_out = next(e.seq for e in buffer.ledger.examples_after(FEED, 0) if e.holdout)
    assert held_out not in {e.seq for e in buffer.ledger.fresh(FEED, 100)}
    for plan in ({"fresh": [held_out]}, {"fresh": [], "replayed": (held_out,)}):
        with pytest.raises(BufferStoreError):
            buffer.ledger.take(cycle(1, **plan))
    buffer.close()


def test_three_rejections_retire_an_example_and_a_promotion_remembers_it(buffer: Buffer) -> None:
    for version in (1, 2, 3):
        assert learn(buffer, version, 0, 4, "rejected") == [1, 2, 3, 4]
    assert states(buffer) == {"fresh": 26, "retired": 4}
    assert [e.seq for e in buffer.ledger.retired(FEED, 10)] == [1, 2, 3, 4]
    learn(buffer, 4, 0, 2, "rejected")
    assert states(buffer) == {"fresh": 26, "retired": 4}, "a rejected reservoir is thrown away"
    learn(buffer, 5, 0, 2)
    assert states(buffer) == {"fresh": 24, "learned": 2, "remembered": 4}


def test_an_abandoned_cycle_costs_no_attempt(buffer: Buffer) -> None:
    for version in range(1, 6):
        learn(buffer, version, 0, 4, "abandoned")
    assert states(buffer) == {"fresh": 30}
    assert buffer.ledger.lineage(FEED, 5) == [5, 0], "an abandoned cycle published nothing"


def test_what_exceeds_the_limit_while_paused_is_retired_oldest_first(buffer: Buffer) -> None:
    assert buffer.ledger.retire_overflow(FEED, keep=12) == 18
    assert buffer.ledger.retire_overflow(FEED, keep=12) == 0
    assert states(buffer) == {"fresh": 12, "retired": 18}
    assert [e.seq for e in buffer.ledger.retired(FEED, 3)] == [1, 2, 3]


def test_rollback_sets_aside_and_coming_back_restores(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 5)
    learn(buffer, 2, 1, 5)
    learn(buffer, 3, 2, 5)
    buffer.ledger.reconcile(FEED, 3, 0)
    assert states(buffer) == {"fresh": 15, "learned": 15}
    buffer.ledger.reconcile(FEED, 1, 0)
    assert states(buffer) == {"fresh": 15, "learned": 5, "set_aside": 10}
    buffer.ledger.reconcile(FEED, 2, 0)
    assert states(buffer) == {"fresh": 15, "learned": 10, "set_aside": 5}
    buffer.ledger.reconcile(FEED, 0, 0)
    assert states(buffer) == {"fresh": 15, "set_aside": 15}
    assert buffer.ledger.relearn(FEED) == 15
    assert states(buffer) == {"fresh": 30}
    buffer.ledger.reconcile(FEED, 3, 0)
    assert states(buffer) == {"fresh": 15, "learned": 15}, "learned by the live version: not fresh any more"


def test_what_the_reservoir_forgot_with_a_rollback_is_set_aside_too(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 5)
    buffer.ledger.retire_overflow(FEED, keep=20)
    learn(buffer, 2, 1, 5)
    assert states(buffer) == {"fresh": 15, "learned": 10, "remembered": 5}
    buffer.ledger.reconcile(FEED, 1, 0)
    assert states(buffer) == {"fresh": 15, "learned": 5, "set_aside": 10}
    buffer.ledger.reconcile(FEED, 2, 0)
    assert states(buffer) == {"fresh": 15, "learned": 10, "remembered": 5}
    assert buffer.ledger.retired(FEED, 10) == []


def test_an_example_learned_again_after_a_rollback_stays_learned(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 5)
    buffer.ledger.reconcile(FEED, 0, 0)
    buffer.ledger.relearn(FEED)
    learn(buffer, 2, 0, 5)
    buffer.ledger.reconcile(FEED, 2, 0)
    assert states(buffer) == {"fresh": 25, "learned": 5}


def test_a_rejected_version_that_an_operator_promotes_counts_as_learned(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 5, "rejected")
    buffer.ledger.reconcile(FEED, 1, 0)
    assert states(buffer) == {"fresh": 25, "learned": 5}
    buffer.ledger.reconcile(FEED, 0, 0)
    assert states(buffer) == {"fresh": 25, "set_aside": 5}


def test_an_operators_promotion_in_the_middle_of_a_cycle(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 5, "rejected")
    buffer.ledger.take(cycle(2, [1, 2, 3, 4, 5, 6]))
    buffer.ledger.reconcile(FEED, 1, 0)
    assert states(buffer) == {"fresh": 24, "taken": 6}
    buffer.ledger.ack("cycle-2", "abandoned")
    assert states(buffer) == {"fresh": 25, "learned": 5}, "version 1 is live and has learned five of them"


def test_a_return_to_a_version_in_the_middle_of_a_cycle_that_learns_the_same_again(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 5)
    buffer.ledger.reconcile(FEED, 0, 0)
    buffer.ledger.relearn(FEED)
    buffer.ledger.take(cycle(2, [1, 2, 3, 4, 5, 6]))
    buffer.ledger.reconcile(FEED, 1, 0)
    buffer.ledger.ack("cycle-2", "abandoned")
    assert states(buffer) == {"fresh": 25, "learned": 5}, "version 1 is live again and has learned five of them"


def test_a_rejection_that_judged_nothing_costs_no_attempt(buffer: Buffer) -> None:
    for version in range(1, 8):
        learn(buffer, version, 0, 30, "unjudged")
    assert (states(buffer), buffer.counts(FEED).returned) == ({"fresh": 30}, 0)
    learn(buffer, 8, 0, 30, "rejected")
    assert (states(buffer), buffer.counts(FEED).returned) == ({"fresh": 30}, 30)
    buffer.ledger.reconcile(FEED, 7, 0)
    assert states(buffer) == {"learned": 30}, "promoted by hand, it counts as any other"


def test_a_record_out_of_date_undoes_no_resume_that_relearns(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 5)
    assert buffer.ledger.reconcile(FEED, 1, 1)
    assert buffer.ledger.reconcile(FEED, 0, 2), "rolled back"
    assert buffer.ledger.relearn(FEED) == 5
    assert not buffer.ledger.reconcile(FEED, 1, 1), "who read the record before the rollback comes late"
    assert states(buffer) == {"fresh": 30}
    assert buffer.ledger.seen_revision(FEED) == 2


def test_a_promotion_that_was_rolled_back_before_anybody_looked(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 5)
    buffer.ledger.reconcile(FEED, 1, 0)
    learn(buffer, 2, 1, 5)
    learn(buffer, 3, 2, 5, "rejected")
    buffer.ledger.reconcile(FEED, 1, 0)
    assert states(buffer) == {"fresh": 20, "learned": 5, "set_aside": 5}
    buffer.ledger.reconcile(FEED, 3, 0)
    assert states(buffer) == {"fresh": 15, "learned": 15}


def test_numbers_count_per_feed(tmp_path: Path) -> None:
    both = rules(await_predictions=False) | rules(feed="other", await_predictions=False)
    with closing(Buffer.open(tmp_path / "two.sqlite3", both, KEY)) as buffer:
        for i in range(3):
            mine, other = event(f"e{i}", i, label="pos"), event(f"e{i}", i, label="neg")
            buffer.intake.append([mine, replace(other, feed="other", position=place("other", i))], {}, at(i))
        for feed, name in ((FEED, "pos"), ("other", "neg")):
            assert [one.seq for one in buffer.ledger.fresh(feed, 9)] == [1, 2, 3]
            assert {one.label for one in buffer.ledger.examples(feed, [1, 2, 3])} == {name}
        buffer.ledger.take(cycle(1, [1, 2]))
        buffer.ledger.ack("cycle-1", "promoted")
        buffer.ledger.take(replace(cycle(1, [2, 3]), feed="other", cycle_id="other-1"))
        buffer.ledger.ack("other-1", "rejected")
        assert (buffer.counts(FEED).learned, buffer.counts("other").learned) == (2, 0)


def test_lineage_follows_parents_and_knows_imports_as_children_of_the_base(buffer: Buffer) -> None:
    learn(buffer, 1, 0, 2)
    learn(buffer, 2, 1, 2)
    learn(buffer, 4, 1, 2)
    assert buffer.ledger.lineage(FEED, 4) == [4, 1, 0]
    assert buffer.ledger.lineage(FEED, 2) == [2, 1, 0]
    assert buffer.ledger.lineage(FEED, 77) == [77, 0]
    assert buffer.ledger.lineage(FEED, 0) == [0]


def test_revisions_are_remembered_and_never_go_back(buffer: Buffer) -> None:
    assert buffer.ledger.seen_revision(FEED) == 0
    buffer.ledger.remember_revision(FEED, 7)
    buffer.ledger.remember_revision(FEED, 3)
    assert buffer.ledger.seen_revision(FEED) == 7


@pytest.mark.parametrize("seed", range(15))
def test_random_histories_against_the_definition(seed: int, tmp_path: Path) -> None:
    """Learned, in the end: what some version of the live lineage learned. Computed from the history alone."""
    rng = random.Random(seed)
    buffer = Buffer.open(tmp_path / "r.sqlite3", rules(await_predictions=False, max_attempts=100), KEY)
    buffer.intake.append([event(f"e{i}", i, label="pos") for i in range(60)], up_to(EVENTS, 60), at(0))
    parent, learned_by, live, ever_live, rejected = {0: None}, {0: set()}, 0, {0}, {}
    for version in range(1, 25):
        if rng.random() < 0.3:
            live = rng.choice(sorted(ever_live | rejected.keys()))
            if live in rejected:  # promoted by hand
                parent[live], learned_by[live] = rejected.pop(live)
                ever_live.add(live)
            buffer.ledger.reconcile(FEED, live, 0)
            if rng.random() < 0.5:
                buffer.ledger.relearn(FEED)
        outcome = rng.choice(["promoted", "promoted", "rejected", "unjudged", "abandoned"])
        fresh = learn(buffer, version, live, rng.randrange(1, 6), outcome)
        if outcome == "promoted":
            parent[version], learned_by[version], live = live, set(fresh), version
            ever_live.add(version)
            if rng.random() < 0.2:  # rolled back before anybody has looked
                live = rng.choice(sorted(ever_live))
        elif outcome != "abandoned":
            rejected[version] = live, set(fresh)
        buffer.ledger.reconcile(FEED, live, 0)
        line, place = set(), live
        while place is not None:
            line, place = line | {place}, parent[place]
        expected = set().union(*(learned_by[v] for v in line))
        others = set().union(*learned_by.values()) - expected
        counts, waiting = buffer.counts(FEED), {e.seq for e in buffer.ledger.fresh(FEED, 100)}
        assert counts.learned == len(expected)
        assert not waiting & expected
        assert counts.set_aside == len(others - waiting)
        assert counts.fresh + counts.learned + counts.set_aside == 60
    buffer.close()
