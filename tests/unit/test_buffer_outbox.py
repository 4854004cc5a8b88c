"""Dead letters: sent at least once, retried under their position, one row each."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from driftline.buffer import Buffer
from driftline.buffer.sqlite import letters
from driftline.records import DeadLetter
from tests.fixtures.buffers import EVENTS, FEED, KEY, LABELS, at, event, label, letter, place, rules, up_to


@pytest.fixture
def buffer(tmp_path: Path):
    opened = Buffer.open(tmp_path / "buffer.sqlite3", rules(event_wait_s=50.0), KEY)
    yield opened
    opened.close()


def states(buffer: Buffer) -> list[tuple[int, str]]:
    return sorted((row.letter.position.offset, row.state) for row in buffer.letters.newest(FEED, 100))


def retry(buffer: Buffer, *records: object) -> None:
    buffer.letters.mark_for_retry(FEED, None)
    letters = buffer.letters.to_retry(FEED, 100)
    buffer.intake.append(records, {}, at(1), retried=[number for number, _ in letters])


def test_letters_are_sent_once_they_are_marked_and_until_then_again(buffer: Buffer) -> None:
    buffer.intake.append([letter(EVENTS, 0), letter(EVENTS, 1)], up_to(EVENTS, 2), at(0))
    letters = buffer.letters.to_send(FEED, 10)
    assert letters == buffer.letters.to_send(FEED, 10), "not marked: offered again"
    assert letters[0][1] == letter(EVENTS, 0)
    buffer.letters.mark_sent(FEED, letters[:1], at(0))
    assert [one for _, one in buffer.letters.to_send(FEED, 10)] == [letter(EVENTS, 1)]
    assert states(buffer) == [(0, "sent"), (1, "to_send")]


def test_a_retry_that_succeeds_resolves_the_letter(buffer: Buffer, tmp_path: Path) -> None:
    buffer.intake.append([letter(EVENTS, 0)], up_to(EVENTS, 1), at(0))
    retry(buffer, event("a", 0, label="pos"))
    counts = buffer.counts(FEED)
    assert (counts.event_records, counts.dead_letters, counts.examples) == (1, 0, 1)
    assert counts.by_reason == {}
    assert buffer.letters.newest(FEED, 10) == []
    with closing(sqlite3.connect(tmp_path / "buffer.sqlite3")) as db:
        assert db.execute("SELECT state, value FROM letters").fetchall() == [("resolved", b"")]


def test_resolved_letters_take_no_place_in_the_list(buffer: Buffer) -> None:
    buffer.intake.append([letter(EVENTS, 0), letter(EVENTS, 1)], up_to(EVENTS, 2), at(0))
    newest = max(row.id for row in buffer.letters.newest(FEED, 10))
    buffer.letters.mark_for_retry(FEED, [newest])
    buffer.intake.append([event("a", 1, label="pos")], {}, at(1), retried=[newest])
    assert [row.letter for row in buffer.letters.newest(FEED, 1)] == [letter(EVENTS, 0)]


def test_a_retry_that_fails_again_returns_to_its_row_and_is_not_sent_twice(buffer: Buffer) -> None:
    buffer.intake.append([letter(EVENTS, 0)], up_to(EVENTS, 1), at(0))
    buffer.letters.mark_sent(FEED, buffer.letters.to_send(FEED, 10), at(0))
    (before,) = buffer.letters.newest(FEED, 10)
    retry(buffer, letter(EVENTS, 0))
    (after,) = buffer.letters.newest(FEED, 10)
    assert (after.id, after.state, after.letter) == (before.id, "sent", before.letter)
    assert buffer.letters.to_send(FEED, 10) == []


def test_a_retry_that_fails_for_another_reason_is_sent_again(buffer: Buffer) -> None:
    buffer.intake.append([event("a", 0), letter(EVENTS, 1)], up_to(EVENTS, 2), at(0))
    buffer.letters.mark_sent(FEED, buffer.letters.to_send(FEED, 10), at(0))
    retry(buffer, event("a", 1, text="other"))
    ((_, again),) = buffer.letters.to_send(FEED, 10)
    assert (again.reason, again.position) == ("conflicting_duplicate", place(EVENTS, 1))
    counts = buffer.counts(FEED)
    assert (counts.event_records, counts.pending, counts.dead_letters) == (2, 1, 1)


def test_a_retried_label_that_waits_in_vain_returns_to_its_row(buffer: Buffer) -> None:
    buffer.intake.append([letter(LABELS, 3)], up_to(LABELS, 4), at(0))
    (before,) = buffer.letters.newest(FEED, 10)
    retry(buffer, label("a", "pos", 3))
    assert buffer.counts(FEED).label_dead_letters == 0
    buffer.intake.expire(at(60))
    (after,) = buffer.letters.newest(FEED, 10)
    assert (after.id, after.state, after.letter.reason) == (before.id, "to_send", "no_event")
    assert buffer.counts(FEED).label_dead_letters == 1


def test_only_what_is_marked_is_retried(buffer: Buffer) -> None:
    buffer.intake.append([letter(EVENTS, 0), letter(EVENTS, 1)], up_to(EVENTS, 2), at(0))
    numbers = [row.id for row in buffer.letters.newest(FEED, 10)]
    counts = buffer.intake.append([event("a", 0), event("b", 1)], {}, at(1), retried=numbers)
    assert counts.records == 0
    assert buffer.letters.mark_for_retry(FEED, [numbers[0]]) == 1
    assert buffer.letters.mark_for_retry(FEED, [numbers[0]]) == 0, "it is marked already"
    assert [number for number, _ in buffer.letters.to_retry(FEED, 10)] == [numbers[0]]


def test_a_letter_marked_for_retry_between_sending_and_marking_stays_marked(buffer: Buffer) -> None:
    buffer.intake.append([letter(EVENTS, 0)], up_to(EVENTS, 1), at(0))
    letters = buffer.letters.to_send(FEED, 10)
    buffer.letters.mark_for_retry(FEED, None)
    buffer.letters.mark_sent(FEED, letters, at(0))
    assert states(buffer) == [(0, "retry")]
    retry(buffer, letter(EVENTS, 0))
    assert states(buffer) == [(0, "sent")], "it was sent for this reason"


def test_big_letters_come_a_few_at_a_time(buffer: Buffer) -> None:
    big = [
        DeadLetter(feed=FEED, reason="text_too_long", detail="", position=place(EVENTS, i), value=bytes(5 << 20))
        for i in range(6)
    ]
    buffer.intake.append(big, up_to(EVENTS, 6), at(0))
    assert len(buffer.letters.to_send(FEED, 100)) == 4
    assert sum(len(one.value) for _, one in buffer.letters.to_send(FEED, 100)) < letters.MAX_BYTES + (5 << 20)
