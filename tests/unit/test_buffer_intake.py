"""Positions, joining and what is kept of an event: hand-made cases."""

from datetime import timedelta
from pathlib import Path

import pytest

from driftline.buffer import Buffer, feed_rules
from driftline.config import FeedConfig, FeedTopics, IngestConfig
from driftline.errors import BufferStoreError, TopicRecreated
from driftline.records import Event, ServedAnswer
from driftline.topics import Partition
from tests.fixtures.buffers import (
    EVENTS,
    FEED,
    KEY,
    LABELS,
    PREDICTIONS,
    at,
    event,
    label,
    letter,
    place,
    prediction,
    rules,
    up_to,
)


@pytest.fixture
def buffer(tmp_path: Path):
    opened = Buffer.open(tmp_path / "buffer.sqlite3", rules(), KEY)
    yield opened
    opened.close()


def test_records_before_the_stored_position_are_skipped(buffer: Buffer) -> None:
    first = buffer.intake.append([event("a", 0), event("b", 5)], up_to(EVENTS, 6), at(0))
    again = buffer.intake.append([event("b", 5), event("c", 6)], up_to(EVENTS, 7), at(0))
    assert (first.records, first.skipped) == (2, 0)
    assert (again.records, again.skipped) == (1, 1)
    assert buffer.intake.positions() == {Partition(topic=EVENTS, partition=0): 7}
    assert buffer.counts(FEED).event_records == 3


def test_a_position_never_moves_back(buffer: Buffer) -> None:
    buffer.intake.append([event("a", 0)], up_to(EVENTS, 10), at(0))
    buffer.intake.append([], up_to(EVENTS, 4), at(0))
    assert buffer.intake.positions() == {Partition(topic=EVENTS, partition=0): 10}


def test_partitions_keep_their_own_positions(buffer: Buffer) -> None:
    buffer.intake.append([], {Partition(topic=EVENTS, partition=0): 100}, at(0))
    other = event("a", 3)
    moved = Event(**{name: getattr(other, name) for name in Event.__slots__} | {"position": place(EVENTS, 3)})
    counts = buffer.intake.append([moved], {Partition(topic=EVENTS, partition=1): 4}, at(0))
    assert counts.records == 1
    assert buffer.intake.positions()[Partition(topic=EVENTS, partition=1)] == 4


def test_empty_until_a_position_is_stored(buffer: Buffer) -> None:
    assert buffer.intake.positions() == {}
    buffer.intake.append([], up_to(EVENTS, 1), at(0))
    assert buffer.intake.positions() != {}


def test_an_event_waits_for_its_prediction_and_then_is_fresh(buffer: Buffer) -> None:
    buffer.intake.append([event("a", 0, label="pos")], up_to(EVENTS, 1), at(0))
    assert buffer.counts(FEED).awaiting_prediction == 1
    assert buffer.ledger.fresh(FEED, 10) == []
    assert buffer.intake.waiting_examples() == 1
    buffer.intake.append([prediction("a", "neg", 3)], up_to(PREDICTIONS, 1), at(1))
    (example,) = buffer.ledger.fresh(FEED, 10)
    assert example.answer == ServedAnswer(label="neg", adapter_version=3)
    assert (example.event_id, example.text, example.label, example.source) == ("a", "text of a", "pos", "shop")


def test_without_a_scorer_nothing_waits(tmp_path: Path) -> None:
    buffer = Buffer.open(tmp_path / "b.sqlite3", rules(await_predictions=False), KEY)
    buffer.intake.append([event("a", 0, label="pos")], up_to(EVENTS, 1), at(0))
    assert buffer.ledger.fresh_count(FEED) == 1
    buffer.close()


def test_a_late_prediction_is_still_joined(buffer: Buffer) -> None:
    buffer.intake.append([event("a", 0, label="pos")], up_to(EVENTS, 1), at(0))
    buffer.intake.expire(at(60))
    assert buffer.ledger.fresh_count(FEED) == 1
    buffer.intake.append([prediction("a", "pos", 1)], up_to(PREDICTIONS, 1), at(10**6))
    assert buffer.ledger.fresh(FEED, 1)[0].answer == ServedAnswer(label="pos", adapter_version=1)


def test_times_are_kept_to_the_microsecond(buffer: Buffer) -> None:
    moment = at(0) + timedelta(microseconds=123_457)
    odd = event("a", 0, label="pos")
    precise = Event(
        **{name: getattr(odd, name) for name in Event.__slots__} | {"occurred_at": moment, "labelled_at": moment}
    )
    buffer.intake.append([precise], up_to(EVENTS, 1), at(99))
    (example,) = buffer.ledger.examples_after(FEED, 0)
    assert (example.occurred_at, example.labelled_at) == (moment, moment)


def test_a_time_that_is_missing_is_the_time_of_intake(buffer: Buffer) -> None:
    plain = event("a", 0)
    timeless = Event(**{name: getattr(plain, name) for name in Event.__slots__} | {"occurred_at": None})
    buffer.intake.append([timeless, label("a", "pos", 3)], {}, at(99))
    (example,) = buffer.ledger.examples_after(FEED, 0)
    assert (example.occurred_at, example.labelled_at) == (at(99), at(3))


def test_odd_ids_and_texts_survive(buffer: Buffer) -> None:
    ids = ["", "a\0b", "a'b", "\U0001f600", "x" * 512, "%", "ä", "a\u0308"]
    for offset, event_id in enumerate(ids):
        buffer.intake.append(
            [event(event_id, offset, text=f"{event_id} text\0", label="pos")], up_to(EVENTS, offset + 1), at(0)
        )
    assert [e.event_id for e in buffer.ledger.examples_after(FEED, 0)] == ids
    assert [e.text for e in buffer.ledger.examples_after(FEED, 0)] == [f"{i} text\0" for i in ids]
    buffer.intake.append([label(i, "pos", n) for n, i in enumerate(ids)], up_to(LABELS, 100), at(0))
    assert buffer.counts(FEED).label_duplicates == len(ids)


def test_a_label_inside_the_event_is_its_first_and_one_that_waited_corrects_it(buffer: Buffer) -> None:
    buffer.intake.append([label("a", "neg", 7)], up_to(LABELS, 8), at(0))
    buffer.intake.append([event("a", 0, label="pos")], up_to(EVENTS, 1), at(0))
    assert [e.label for e in buffer.ledger.examples_after(FEED, 0)] == ["neg"]
    counts = buffer.counts(FEED)
    assert (counts.corrected, counts.label_dead_letters, counts.labels_waiting) == (1, 0, 0)


def test_by_choice_the_second_label_is_a_dead_letter_with_its_bytes(tmp_path: Path) -> None:
    buffer = Buffer.open(tmp_path / "b.sqlite3", rules(on_conflict="dead_letter"), KEY)
    buffer.intake.append([label("a", "neg", 7)], up_to(LABELS, 8), at(0))
    buffer.intake.append([event("a", 0, label="pos")], up_to(EVENTS, 1), at(0))
    assert [e.label for e in buffer.ledger.examples_after(FEED, 0)] == ["pos"]
    (row,) = buffer.letters.newest(FEED, 10)
    assert (row.letter.reason, row.letter.position) == ("conflicting_label", place(LABELS, 7))
    assert (row.letter.value, row.letter.kind) == (b"raw label a neg", "label")
    assert buffer.counts(FEED).label_dead_letters == 1
    buffer.close()


def test_a_conflicting_duplicate_keeps_its_original_bytes(buffer: Buffer) -> None:
    buffer.intake.append([event("a", 0), event("a", 1, text="other"), event("a", 2)], up_to(EVENTS, 3), at(0))
    counts = buffer.counts(FEED)
    assert (counts.pending, counts.duplicates, counts.dead_letters) == (1, 1, 1)
    (row,) = buffer.letters.newest(FEED, 10)
    assert row.letter.value == b"raw a other None"


def test_the_same_id_in_two_feeds_is_two_events(tmp_path: Path) -> None:
    buffer = Buffer.open(tmp_path / "b.sqlite3", rules() | rules(feed="other"), KEY)
    ours = event("a", 0)
    theirs = Event(
        **{name: getattr(ours, name) for name in Event.__slots__} | {"feed": "other", "position": place("other", 0)}
    )
    buffer.intake.append([ours, theirs], up_to(EVENTS, 1) | up_to("other", 1), at(0))
    buffer.intake.append([label("a", "pos")], up_to(LABELS, 1), at(0))
    assert (buffer.counts(FEED).examples, buffer.counts("other").examples) == (1, 0)
    assert buffer.counts("other").pending == 1
    buffer.close()


def test_an_unknown_feed_is_refused(buffer: Buffer) -> None:
    with pytest.raises(BufferStoreError, match="'nobody' is not in the config"):
        buffer.counts("nobody")


def test_another_topic_of_the_same_name_is_refused(buffer: Buffer) -> None:
    buffer.intake.bind_topic(EVENTS, "cluster/1")
    buffer.intake.bind_topic(EVENTS, "cluster/1")
    with pytest.raises(TopicRecreated, match="made anew"):
        buffer.intake.bind_topic(EVENTS, "cluster/2")
    buffer.intake.bind_topic(LABELS, "cluster/2")


def test_dead_letters_of_predictions_are_neither_events_nor_labels(buffer: Buffer) -> None:
    buffer.intake.append([letter(PREDICTIONS, 0), letter(LABELS, 0), letter(EVENTS, 0)], {}, at(0))
    counts = buffer.counts(FEED)
    assert (counts.event_records, counts.dead_letters) == (1, 1)
    assert (counts.label_dead_letters, counts.prediction_dead_letters) == (1, 1)
    assert counts.by_reason == {"undecodable": 3}


def test_more_ids_than_one_query_takes(buffer: Buffer) -> None:
    buffer.intake.append([event(f"e{i}", i) for i in range(2500)], up_to(EVENTS, 2500), at(0))
    buffer.intake.append([label(f"e{i}", "pos", i) for i in range(2500)], up_to(LABELS, 2500), at(0))
    assert buffer.counts(FEED).examples == 2500


def test_a_feed_is_read_from_the_topics_that_the_config_resolved() -> None:
    names = {"events": "reviews-v2", "labels": "truth", "predictions": "answers", "dead_letters": "bad"}
    found = feed_rules(FEED, FeedConfig(labels=("neg", "pos")), FeedTopics(**names), IngestConfig())
    assert found.topics.read == ("reviews-v2", "truth", "answers")
    assert [found.topics.kind_of(topic) for topic in found.topics.read] == ["event", "label", "prediction"]
