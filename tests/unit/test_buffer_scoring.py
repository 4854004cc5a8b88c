"""A prediction is scored as served: not if its version, or an ancestor of it, had learned the example."""

from pathlib import Path

import pytest

from driftline.buffer import Buffer
from tests.fixtures.buffers import EVENTS, FEED, KEY, PREDICTIONS, at, cycle, event, prediction, rules, up_to


@pytest.fixture
def buffer(tmp_path: Path):
    opened = Buffer.open(tmp_path / "buffer.sqlite3", rules(await_predictions=False), KEY)
    opened.intake.append([event(f"e{i}", i, label="pos") for i in range(6)], up_to(EVENTS, 6), at(0))
    opened.ledger.take(cycle(1, [1, 2]))
    opened.ledger.ack("cycle-1", "promoted")
    opened.ledger.take(cycle(2, [3], parent=1, replayed=(1,)))
    opened.ledger.ack("cycle-2", "rejected")
    opened.ledger.take(cycle(3, [4], parent=1, replayed=(2,)))
    opened.ledger.ack("cycle-3", "promoted")
    opened.ledger.take(cycle(4, [5], parent=0))
    opened.ledger.ack("cycle-4", "promoted")
    yield opened
    opened.close()


def answered(buffer: Buffer) -> dict[str, int | None]:
    return {one.event_id: one.version for one in buffer.exams.scored(FEED)}


@pytest.mark.parametrize(
    ("version", "known"),
    [
        (0, set()),
        (1, {"e0", "e1"}),
        (2, {"e0", "e1", "e2"}),  # its own, and its parent's
        (3, {"e0", "e1", "e3"}),  # not what the rejected version 2 learned
        (4, {"e4"}),  # its parent is 0
    ],
)
def test_only_answers_of_versions_that_had_not_learned_the_example_count(
    buffer: Buffer, version: int, known: set[str]
) -> None:
    buffer.intake.append([prediction(f"e{i}", "neg", version, i) for i in range(6)], up_to(PREDICTIONS, 6), at(0))
    scored = buffer.exams.scored(FEED)
    assert {one.event_id for one in scored if not one.answered} == known
    assert all((one.predicted, one.version) == (None, None) for one in scored if not one.answered)
    assert all((one.predicted, one.version) == ("neg", version) for one in scored if one.answered)


def test_replayed_is_learned_too(buffer: Buffer) -> None:
    buffer.ledger.take(cycle(9, [6], parent=0, replayed=(5,)))
    buffer.ledger.ack("cycle-9", "promoted")
    buffer.intake.append([prediction(f"e{i}", "pos", 9, i) for i in range(6)], up_to(PREDICTIONS, 6), at(0))
    assert {one.event_id for one in buffer.exams.scored(FEED) if not one.answered} == {"e4", "e5"}


def test_the_first_prediction_in_topic_order_counts(buffer: Buffer) -> None:
    buffer.intake.append([prediction("e5", "neg", 1, 3), prediction("e5", "pos", 2, 4)], up_to(PREDICTIONS, 5), at(0))
    assert answered(buffer)["e5"] == 1
    assert buffer.counts(FEED).prediction_duplicates == 1


def test_without_an_answer_and_with_version_0(buffer: Buffer) -> None:
    buffer.intake.append([prediction("e5", None, 0)], up_to(PREDICTIONS, 1), at(0))
    scored = {one.event_id: one for one in buffer.exams.scored(FEED)}
    assert (scored["e5"].answered, scored["e5"].version, scored["e5"].predicted) == (True, 0, None)
    assert (scored["e4"].answered, scored["e4"].version, scored["e4"].predicted) == (False, None, None)


def test_the_last_few_only(buffer: Buffer) -> None:
    assert [one.event_id for one in buffer.exams.scored(FEED, last=2)] == ["e4", "e5"]


def test_in_the_order_of_the_events_and_not_of_the_labels(tmp_path: Path) -> None:
    from tests.fixtures.buffers import LABELS, label

    buffer = Buffer.open(tmp_path / "o.sqlite3", rules(), KEY)
    buffer.intake.append([event(i, n) for n, i in enumerate("abcd")], up_to(EVENTS, 4), at(0))
    buffer.intake.append([label(i, "pos", n) for n, i in enumerate("dbca")], up_to(LABELS, 4), at(0))
    assert [one.event_id for one in buffer.exams.scored(FEED)] == ["a", "b", "c", "d"]
    assert [one.seq for one in buffer.exams.scored(FEED)] == [4, 2, 3, 1]
    buffer.close()


def test_cached_predictions_are_kept_by_version(buffer: Buffer) -> None:
    buffer.exams.cache_predictions(FEED, 1, {1: "pos", 2: None})
    buffer.exams.cache_predictions(FEED, 1, {3: "neg"})
    buffer.exams.cache_predictions(FEED, 2, {1: "neg", 3: "neg"})
    assert buffer.exams.cached_predictions(FEED, 1) == {1: "pos", 2: None, 3: "neg"}
    buffer.exams.forget_predictions(FEED, versions={2, 5}, seqs={1, 2})
    assert buffer.exams.cached_predictions(FEED, 1) == {}
    assert buffer.exams.cached_predictions(FEED, 2) == {1: "neg"}
