"""Waits and bounds: at the second they are due, and not before."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from driftline.buffer import Buffer
from driftline.buffer.sqlite import expiry
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
    prediction,
    rules,
    up_to,
)


@pytest.fixture
def buffer(tmp_path: Path):
    waits = {"label_wait_s": 100.0, "event_wait_s": 50.0, "prediction_wait_s": 10.0}
    opened = Buffer.open(tmp_path / "buffer.sqlite3", rules(**waits, max_waiting_events=3, max_waiting_labels=2), KEY)
    yield opened
    opened.close()


def test_an_unlabelled_event_is_let_go_and_counted(buffer: Buffer) -> None:
    buffer.intake.append([event("a", 0)], up_to(EVENTS, 1), at(0))
    buffer.intake.expire(at(99.9))
    assert buffer.counts(FEED).pending == 1
    buffer.intake.expire(at(100))
    counts = buffer.counts(FEED)
    assert (counts.pending, counts.unlabelled, counts.overflowed) == (0, 1, 0)
    buffer.intake.append([event("a", 1)], up_to(EVENTS, 2), at(101))
    assert buffer.counts(FEED).pending == 1, "forgotten: the same record is a new event"


def test_a_label_without_event_becomes_a_dead_letter_with_its_bytes(buffer: Buffer) -> None:
    buffer.intake.append([label("a", "pos", 4)], up_to(LABELS, 5), at(0))
    buffer.intake.expire(at(49.9))
    assert buffer.letters.newest(FEED, 1) == []
    buffer.intake.expire(at(50))
    (row,) = buffer.letters.newest(FEED, 1)
    assert (row.letter.reason, row.letter.value) == ("no_event", b"raw label a pos")
    assert "50 s (event_wait_s)" in row.letter.detail
    counts = buffer.counts(FEED)
    assert (counts.labels_waiting, counts.label_dead_letters, counts.dead_letters) == (0, 1, 0)


def test_a_prediction_without_event_is_counted(buffer: Buffer) -> None:
    buffer.intake.append([prediction("a", "pos", 1)], up_to(PREDICTIONS, 1), at(0))
    buffer.intake.expire(at(50))
    counts = buffer.counts(FEED)
    assert (counts.predictions_waiting, counts.predictions_expired) == (0, 1)


def test_an_example_is_offered_when_its_prediction_wait_is_over(buffer: Buffer) -> None:
    buffer.intake.append([event("a", 0)], up_to(EVENTS, 1), at(0))
    buffer.intake.append([label("a", "pos")], up_to(LABELS, 1), at(5))
    buffer.intake.expire(at(14.9))
    assert buffer.ledger.fresh_count(FEED) == 0
    buffer.intake.expire(at(15))
    assert buffer.ledger.fresh_count(FEED) == 1


def test_full_waiting_rooms_let_the_oldest_go_first(buffer: Buffer) -> None:
    buffer.intake.append([event(f"e{i}", i) for i in range(5)], up_to(EVENTS, 5), at(0))
    buffer.intake.append([label(f"x{i}", "pos", i) for i in range(5)], up_to(LABELS, 5), at(0))
    buffer.intake.append([prediction(f"y{i}", "pos", 1, i) for i in range(5)], up_to(PREDICTIONS, 5), at(0))
    buffer.intake.expire(at(1))
    counts = buffer.counts(FEED)
    assert (counts.pending, counts.unlabelled, counts.overflowed) == (3, 2, 2)
    assert (counts.labels_waiting, counts.label_dead_letters) == (2, 3)
    assert (counts.predictions_waiting, counts.predictions_expired) == (3, 2)
    assert [row.letter.position.offset for row in buffer.letters.newest(FEED, 9)] == [2, 1, 0]
    assert "max_waiting_labels" in buffer.letters.newest(FEED, 1)[0].letter.detail
    buffer.intake.append([label(f"e{i}", "pos", 10 + i) for i in range(2, 5)], up_to(LABELS, 15), at(2))
    assert [e.event_id for e in buffer.ledger.examples_after(FEED, 0)] == ["e2", "e3", "e4"]


def test_nothing_is_given_up_while_a_topic_is_not_read_up_to_date(buffer: Buffer) -> None:
    buffer.intake.append([event("a", 0), event("b", 1, label="pos")], up_to(EVENTS, 2), at(0))
    buffer.intake.append([label("x", "pos")], up_to(LABELS, 1), at(0))
    buffer.intake.append([prediction("x", "pos", 1)], up_to(PREDICTIONS, 1), at(0))
    buffer.intake.expire(at(10**6), current=[])
    counts = buffer.counts(FEED)
    assert (counts.pending, counts.labels_waiting, counts.predictions_waiting) == (1, 1, 1)
    assert counts.fresh == 1, "offered all the same"
    buffer.intake.expire(at(10**6), current=[FEED])
    counts = buffer.counts(FEED)
    assert (counts.pending, counts.labels_waiting, counts.predictions_waiting) == (0, 0, 0)


@pytest.fixture
def waiting(buffer: Buffer) -> Buffer:
    """An event, an example without prediction, a label and a prediction that came at 0, when the clock was right."""
    buffer.intake.append([event("a", 0), event("b", 1, label="pos")], up_to(EVENTS, 2), at(0))
    buffer.intake.append([label("x", "pos")], up_to(LABELS, 1), at(0))
    buffer.intake.append([prediction("x", "pos", 1)], up_to(PREDICTIONS, 1), at(0))
    return buffer


def waits(buffer: Buffer) -> tuple[int, int, int, int]:
    """How many events, examples, labels and predictions wait."""
    counts = buffer.counts(FEED)
    return counts.pending, counts.awaiting_prediction, counts.labels_waiting, counts.predictions_waiting


def test_a_clock_that_is_wrong_for_a_while_ends_no_wait_early(waiting: Buffer) -> None:
    waiting.intake.expire(datetime(1970, 1, 1, tzinfo=UTC))
    waiting.intake.expire(datetime(1970, 1, 2, tzinfo=UTC))
    assert waits(waiting) == (1, 1, 1, 1)
    waiting.intake.expire(at(9.9))
    assert waits(waiting) == (1, 1, 1, 1)
    waiting.intake.expire(at(10))
    assert waits(waiting) == (1, 0, 1, 1)
    waiting.intake.expire(at(49.9))
    assert waits(waiting) == (1, 0, 1, 1)
    waiting.intake.expire(at(50))
    assert waits(waiting) == (1, 0, 0, 0)
    waiting.intake.expire(at(99.9))
    assert waits(waiting) == (1, 0, 0, 0)
    waiting.intake.append([label("a", "pos", 1)], up_to(LABELS, 2), at(99.9))
    assert waiting.counts(FEED).examples == 2


def test_what_is_stamped_in_the_future_waits_until_then_and_holds_up_nothing(buffer: Buffer) -> None:
    ahead = 10**7
    buffer.intake.append([event("a", 0), event("b", 1, label="pos")], up_to(EVENTS, 2), at(ahead))
    buffer.intake.append([label("x", "pos")], up_to(LABELS, 1), at(ahead))
    buffer.intake.append([prediction("x", "pos", 1)], up_to(PREDICTIONS, 1), at(ahead))
    buffer.intake.append([event("c", 2), event("d", 3, label="pos")], up_to(EVENTS, 4), at(0))
    buffer.intake.append([label("y", "pos", 1)], up_to(LABELS, 2), at(0))
    buffer.intake.append([prediction("y", "pos", 1, 1)], up_to(PREDICTIONS, 2), at(0))
    buffer.intake.expire(at(9.9))
    assert waits(buffer) == (2, 2, 2, 2)
    buffer.intake.expire(at(100))
    assert waits(buffer) == (1, 1, 1, 1)
    assert [example.event_id for example in buffer.ledger.fresh(FEED, 9)] == ["d"]
    buffer.intake.expire(at(ahead + 9.9))
    assert waits(buffer) == (1, 1, 1, 1)
    buffer.intake.expire(at(ahead + 100))
    assert waits(buffer) == (0, 0, 0, 0)


def test_more_rows_from_the_future_than_one_look_sees(tmp_path: Path) -> None:
    count = expiry.LIMIT + 7
    buffer = Buffer.open(tmp_path / "b.sqlite3", rules(label_wait_s=1.0, prediction_wait_s=1.0), KEY)
    buffer.intake.append([event(f"e{i}", i) for i in range(count)], up_to(EVENTS, count), at(10**7))
    buffer.intake.append([event(f"l{i}", i, label="pos") for i in range(count)], {}, at(10**7))
    buffer.intake.append([event("young", count), event("labelled", label="pos")], {}, at(0))
    buffer.intake.expire(at(1))
    assert (buffer.counts(FEED).unlabelled, buffer.ledger.fresh_count(FEED)) == (1, 1)
    assert (buffer.counts(FEED).pending, buffer.counts(FEED).awaiting_prediction) == (count, count)
    buffer.close()


def test_waits_are_found_by_an_index_in_the_order_of_their_stamps(waiting: Buffer) -> None:
    statements: list[str] = []
    connection = waiting._store._connection
    connection.set_trace_callback(statements.append)
    waiting.intake.expire(at(0))
    connection.set_trace_callback(None)
    looks = [one for one in statements if one.startswith("SELECT") and "LIMIT" in one]
    plans = [connection.execute(f"EXPLAIN QUERY PLAN {one}").fetchall() for one in looks]
    assert [plan[0][3].split(" USING ")[1].split(" (")[0].removeprefix("COVERING ") for plan in plans] == [
        "INDEX examples_awaiting",
        "INDEX events_pending",
        "INDEX labels_by_age",
        "INDEX predictions_by_age",
        "INDEX letters_done",
    ]
    assert [len(plan) for plan in plans] == [1, 1, 1, 1, 1], "nothing is sorted"


def test_more_than_one_batch_of_rows(tmp_path: Path) -> None:
    count = expiry.LIMIT * 2 + 7
    buffer = Buffer.open(tmp_path / "b.sqlite3", rules(label_wait_s=1.0), KEY)
    buffer.intake.append([event(f"e{i}", i) for i in range(count)], up_to(EVENTS, count), at(0))
    buffer.intake.append([event(f"l{i}", i, label="pos") for i in range(count)], {}, at(0))
    buffer.intake.expire(at(60))
    assert buffer.counts(FEED).unlabelled == count
    assert buffer.ledger.fresh_count(FEED) == count
    buffer.close()


def sent(buffer: Buffer, count: int, seconds: float) -> None:
    """So many dead letters of ten bytes each, that came and were sent then."""
    first = buffer.counts(FEED).label_dead_letters
    records = [replace(letter(LABELS, first + i), value=b"0123456789") for i in range(count)]
    buffer.intake.append(records, {}, at(seconds))
    buffer.letters.mark_sent(FEED, buffer.letters.to_send(FEED, 100), at(seconds))


def test_letters_that_were_sent_are_kept_for_a_while_and_then_only_counted(tmp_path: Path) -> None:
    buffer = Buffer.open(tmp_path / "b.sqlite3", rules(keep_letters_s=100.0), KEY)
    sent(buffer, 2, 0)
    sent(buffer, 1, 50)
    buffer.intake.append([letter(EVENTS, 9)], {}, at(0))  # not sent yet: kept however long it takes
    buffer.letters.mark_for_retry(FEED, buffer.letters.numbers(FEED)[:1])  # nor is one that is to be tried again let go
    buffer.intake.expire(at(99))
    assert len(buffer.letters.numbers(FEED)) == 4
    buffer.intake.expire(at(120))
    assert [row.state for row in buffer.letters.newest(FEED, 9)] == ["to_send", "sent", "retry"]
    buffer.intake.expire(at(10**6))
    found = buffer.counts(FEED)
    assert [row.state for row in buffer.letters.newest(FEED, 9)] == ["to_send", "retry"]
    assert (found.label_dead_letters, found.dead_letters, found.letters_let_go) == (3, 1, 2)
    assert found.by_reason == {"undecodable": 4}, "they stay counted"
    assert found.letter_bytes == sum(len(row.letter.value) for row in buffer.letters.newest(FEED, 9))
    buffer.close()


def test_letters_beyond_the_bytes_that_are_allowed_go_oldest_first(tmp_path: Path) -> None:
    buffer = Buffer.open(tmp_path / "b.sqlite3", rules(max_letter_bytes=35), KEY)
    sent(buffer, 3, 0)
    sent(buffer, 2, 1)
    buffer.intake.expire(at(2))
    kept = buffer.letters.newest(FEED, 9)
    assert [row.letter.position.offset for row in kept] == [4, 3, 2]
    assert (buffer.counts(FEED).letter_bytes, buffer.counts(FEED).letters_let_go) == (30, 2)
    buffer.close()


def test_a_resolved_letter_is_let_go_uncounted(tmp_path: Path) -> None:
    path = tmp_path / "b.sqlite3"
    buffer = Buffer.open(path, rules(keep_letters_s=100.0), KEY)
    sent(buffer, 1, 0)
    buffer.letters.mark_for_retry(FEED, None)
    numbers = [number for number, _ in buffer.letters.to_retry(FEED, 9)]
    buffer.intake.append([label("a", "pos", 0)], {}, at(10), retried=numbers)
    buffer.intake.expire(at(200))
    found = buffer.counts(FEED)
    assert (found.letters_let_go, found.label_dead_letters, found.letter_bytes, found.by_reason) == (0, 0, 0, {})
    with buffer._store.reading() as db:
        assert db.execute("SELECT COUNT(*) FROM letters").fetchone() == (0,)
    buffer.close()
