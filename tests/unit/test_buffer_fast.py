"""The fast clock's face: every label is due once, with what was served; what was learned can be told again exactly."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from driftline.buffer import Buffer, Lesson
from driftline.errors import BufferStoreError
from driftline.records import Record
from tests.fixtures.buffers import (
    EVENTS,
    FEED,
    KEY,
    LABELS,
    PREDICTIONS,
    at,
    cycle,
    event,
    kept,
    label,
    prediction,
    pulse,
    rules,
    up_to,
)

RULES = rules(fast=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buffer.sqlite3"


@pytest.fixture
def buffer(path: Path) -> Iterator[Buffer]:
    buffer = Buffer.open(path, RULES, KEY)
    yield buffer
    buffer.close()


def say(buffer: Buffer, *records: Record) -> None:
    buffer.intake.append(list(records), {}, at(0))


def labelled(buffer: Buffer, *names: str) -> None:
    """Events with their labels and answers: all due."""
    say(buffer, *[event(name, i, label="pos") for i, name in enumerate(names)])
    say(buffer, *[prediction(name, "neg", 1, i, feature=name.encode()) for i, name in enumerate(names)])


def seqs(buffer: Buffer) -> list[int]:
    return [lesson.seq for lesson in buffer.fast.due(FEED, 99)]


def learn(buffer: Buffer, number: int, lessons: list[Lesson] | None = None) -> None:
    buffer.fast.record(FEED, pulse(number), f"sealed {number}".encode(), lessons or buffer.fast.due(FEED, 99))


def features(buffer: Buffer) -> int:
    (found,) = buffer._store._connection.execute("SELECT COUNT(*) FROM features").fetchone()
    assert buffer.counts(FEED).features == found
    return int(found)


def test_an_example_is_due_once_its_answer_came_with_what_was_served(buffer: Buffer) -> None:
    say(buffer, event("a", 0, label="pos"), event("b", 1))
    assert seqs(buffer) == [], "its answer is awaited"
    say(buffer, prediction("a", "neg", 3, 0, feature=b"aa"), prediction("b", "neg", 3, 1, feature=b"bb"))
    say(buffer, label("b", "neg", 0))
    assert buffer.fast.due(FEED, 9) == [
        Lesson(seq=1, text="text of a", label="pos", feature=b"aa", version=3),
        Lesson(seq=2, text="text of b", label="neg", feature=b"bb", version=3),
    ]
    assert (buffer.counts(FEED).due, features(buffer), buffer.fast.due_count(FEED)) == (2, 2, 2)


def test_an_answer_that_came_before_its_event_keeps_its_feature(buffer: Buffer) -> None:
    say(buffer, prediction("a", "neg", 3, 0, feature=b"aa"))
    say(buffer, event("a", 0, label="pos"))
    assert [one.feature for one in buffer.fast.due(FEED, 9)] == [b"aa"]


def test_an_answer_that_was_waited_for_in_vain_leaves_no_feature_and_a_late_one_is_not_kept_for_ever(
    buffer: Buffer,
) -> None:
    say(buffer, event("a", 0, label="pos"))
    buffer.intake.expire(at(61))
    assert [(one.feature, one.version) for one in buffer.fast.due(FEED, 9)] == [(None, None)]
    learn(buffer, 1)
    say(buffer, prediction("a", "neg", 3, 0, feature=b"aa"))
    assert (seqs(buffer), features(buffer)) == ([], 0)


def test_learned_is_due_no_more_and_its_feature_is_dropped(buffer: Buffer) -> None:
    labelled(buffer, "a", "b", "c")
    learn(buffer, 1, buffer.fast.due(FEED, 2))
    assert (seqs(buffer), features(buffer), buffer.counts(FEED).due) == ([3], 1, 1)
    assert (buffer.fast.last_number(FEED), buffer.fast.last_pulse(FEED)) == (1, b"sealed 1")


def test_a_holdout_is_never_due_and_leaves_no_feature(path: Path) -> None:
    buffer = Buffer.open(path, rules(fast=True, holdout_share=1.0), KEY)
    labelled(buffer, "a", "b")
    assert (buffer.counts(FEED).holdouts, seqs(buffer), features(buffer)) == (2, [], 0)
    say(buffer, label("a", "neg", 9))
    assert seqs(buffer) == []
    buffer.close()


def test_a_corrected_label_is_due_again_whatever_the_slow_clock_did_with_it(buffer: Buffer) -> None:
    labelled(buffer, "fresh", "taken", "learned")
    learn(buffer, 1)
    buffer.ledger.take(cycle(1, [3]))
    buffer.ledger.ack("cycle-1", "promoted")
    buffer.ledger.take(cycle(2, [2], parent=1))
    for offset, name in enumerate(("fresh", "taken", "learned")):
        say(buffer, label(name, "neg", offset))
    assert [(one.seq, one.label, one.version) for one in buffer.fast.due(FEED, 9)] == [
        (1, "neg", 1),
        (2, "neg", 1),
        (3, "neg", 1),
    ]


def test_a_label_that_is_corrected_while_it_is_learned_is_learned_again(buffer: Buffer) -> None:
    labelled(buffer, "a", "b")
    lessons = buffer.fast.due(FEED, 9)
    say(buffer, label("a", "neg", 0))
    learn(buffer, 1, lessons)
    assert [(one.seq, one.label) for one in buffer.fast.due(FEED, 9)] == [(1, "neg")]
    learn(buffer, 2)
    assert [[one.label for one in told.lessons] for told in buffer.fast.since_kept(FEED)] == [["pos", "pos"], ["neg"]]


def test_what_was_learned_is_told_as_it_was_then(buffer: Buffer) -> None:
    labelled(buffer, "a", "b", "c")
    buffer.fast.keep(FEED, kept(1))
    first, second = buffer.fast.due(FEED, 2), buffer.fast.due(FEED, 3)[2:]
    learn(buffer, 2, first)
    learn(buffer, 3, second)
    say(buffer, label("a", "neg", 0))
    say(buffer, replace(prediction("b", "pos", 9, -1, feature=b"zz")))  # an answer that stood earlier in the topic
    told = buffer.fast.since_kept(FEED)
    assert [(one.number, list(one.lessons)) for one in told] == [(2, first), (3, second)]
    buffer.fast.keep(FEED, kept(3, b"whole"))
    assert (buffer.fast.since_kept(FEED), buffer.fast.kept(FEED)) == ([], kept(3, b"whole"))


def test_a_pulse_that_is_not_the_next_is_refused_and_changes_nothing(buffer: Buffer) -> None:
    labelled(buffer, "a", "b")
    learn(buffer, 1, buffer.fast.due(FEED, 1))
    for number in (1, 3):
        with pytest.raises(BufferStoreError, match="another process keeps this fast clock"):
            learn(buffer, number)
    with pytest.raises(BufferStoreError, match="older"):
        buffer.fast.keep(FEED, kept(0))
    assert (seqs(buffer), buffer.fast.last_number(FEED)) == ([2], 1)


def test_a_new_epoch_goes_on_above_and_forgets_what_led_to_the_old_one(buffer: Buffer) -> None:
    labelled(buffer, "a", "b")
    learn(buffer, 1, buffer.fast.due(FEED, 1))
    buffer.fast.keep(FEED, kept(7, epoch="next"))
    assert (buffer.fast.since_kept(FEED), buffer.fast.last_number(FEED)) == ([], 7)
    assert buffer.fast.last_pulse(FEED) == b"sealed 7"


def test_what_is_set_aside_is_not_due_until_it_is_to_be_learned_again(buffer: Buffer) -> None:
    labelled(buffer, "a", "b")
    learn(buffer, 1, buffer.fast.due(FEED, 1))
    buffer.ledger.take(cycle(1, [1, 2]))
    buffer.ledger.ack("cycle-1", "promoted")
    buffer.ledger.reconcile(FEED, 1, 1)
    buffer.ledger.reconcile(FEED, 0, 2)
    assert (buffer.counts(FEED).set_aside, seqs(buffer), buffer.counts(FEED).due) == (2, [], 0)
    assert buffer.ledger.relearn(FEED) == 2
    assert (seqs(buffer), buffer.counts(FEED).due) == ([1, 2], 2)


def test_a_class_that_is_given_up_is_not_due_and_is_again_when_it_comes_back(path: Path) -> None:
    buffer = Buffer.open(path, rules(fast=True), KEY)
    buffer.labels.adopt(FEED, at(0))
    labelled(buffer, "a", "b")
    say(buffer, label("b", "neg", 0))
    buffer.close()
    buffer = Buffer.open(path, rules(fast=True, labels=("neg",), retired_labels=("pos",)), KEY)
    buffer.labels.adopt(FEED, at(1))
    assert [(one.seq, one.label) for one in buffer.fast.due(FEED, 9)] == [(2, "neg")]
    buffer.close()
    buffer = Buffer.open(path, rules(fast=True), KEY)
    buffer.labels.adopt(FEED, at(2))
    assert seqs(buffer) == [1, 2]
    buffer.close()


def test_a_process_with_other_classes_records_nothing(path: Path, buffer: Buffer) -> None:
    buffer.labels.adopt(FEED, at(0))
    labelled(buffer, "a")
    other = Buffer.open(path, rules(fast=True, labels=("neg", "pos", "mixed")), KEY)
    other.labels.adopt(FEED, at(1))
    with pytest.raises(BufferStoreError, match="start this one again"):
        learn(buffer, 1)
    assert (seqs(other), other.fast.last_number(FEED)) == ([1], 0)
    other.close()


def test_a_feed_without_fast_clock_keeps_nothing_for_it(path: Path) -> None:
    buffer = Buffer.open(path, rules(), KEY)
    labelled(buffer, "a", "b")
    assert (seqs(buffer), features(buffer), buffer.counts(FEED).due) == ([], 0, 0)
    buffer.close()


def test_what_was_kept_for_a_fast_clock_that_is_turned_off_goes(path: Path, buffer: Buffer) -> None:
    labelled(buffer, "a", "b")
    buffer.close()
    off = Buffer.open(path, rules(), KEY)
    off.intake.expire(at(1))
    assert (seqs(off), features(off), off.counts(FEED).due) == ([], 0, 0)
    off.close()


def test_features_are_bounded_as_the_waiting_room_is(path: Path) -> None:
    buffer = Buffer.open(path, rules(fast=True, max_waiting_events=2), KEY)
    labelled(buffer, "a", "b", "c")
    buffer.intake.expire(at(1))
    assert [one.feature for one in buffer.fast.due(FEED, 9)] == [None, b"b", b"c"]
    assert features(buffer) == 2
    buffer.close()


def test_an_event_that_is_let_go_takes_its_feature_along(buffer: Buffer) -> None:
    say(buffer, event("a", 0), prediction("a", "neg", 1, 0, feature=b"aa"))
    assert features(buffer) == 1
    buffer.intake.expire(at(9e6))
    assert (buffer.counts(FEED).unlabelled, features(buffer)) == (1, 0)


def test_a_read_only_buffer_tells_what_is_due(path: Path, buffer: Buffer) -> None:
    buffer.intake.append([event("a", 0, label="pos")], up_to(EVENTS, 1), at(0))
    buffer.intake.append([prediction("a", "neg", 1, 0)], up_to(PREDICTIONS, 1), at(0))
    buffer.intake.append([label("zz", "neg", 0)], up_to(LABELS, 1), at(0))
    reader = Buffer.open(path, RULES, KEY, read_only=True)
    assert (reader.fast.due_count(FEED), reader.fast.last_number(FEED), reader.fast.kept(FEED)) == (1, 0, None)
    reader.close()


def test_an_answer_whose_pulse_had_learned_the_example_is_not_scored(buffer: Buffer) -> None:
    say(buffer, *[event(name, i, label="pos") for i, name in enumerate("abc")])
    buffer.intake.expire(at(61))
    learn(buffer, 1)
    for offset, (name, at_pulse) in enumerate((("a", 0), ("b", 1), ("c", 7))):
        say(buffer, replace(prediction(name, "pos", 1, offset), pulse=at_pulse))
    assert [(one.event_id, one.answered) for one in buffer.exams.scored(FEED)] == [
        ("a", True),
        ("b", False),
        ("c", False),
    ]
    say(buffer, replace(prediction("b", "pos", 1, 0), pulse=0), replace(prediction("c", "pos", 1, 9), pulse=0))
    assert [one.answered for one in buffer.exams.scored(FEED)] == [True, True, False], "the first in topic order counts"
