"""The letters' face on SQLite, and what the intake writes for it (see `driftline.buffer.letters`)."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from driftline.buffer.letters import LetterRow, Letters
from driftline.buffer.sqlite.counters import letter_reasons, read_counter
from driftline.buffer.sqlite.examples import CHOSEN, numbers
from driftline.buffer.sqlite.unit import Unit, Work
from driftline.buffer.states import from_micros, to_micros
from driftline.names import RECORD_TOO_LARGE
from driftline.records import DeadLetter, Position

TO_SEND, SENT, RETRY, RESOLVED = "to_send", "sent", "retry", "resolved"
MAX_BYTES = 16 << 20
END_OF_TIME = (1 << 63) - 1
_COLUMNS = 'id, reason, detail, topic, "partition", "offset", value, kind, state, at'


class SqliteLetters(Letters):
    """See `Letters`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def to_send(self, feed: str, limit: int) -> list[tuple[int, DeadLetter]]:
        with self._work.reading(feed) as unit:
            return _waiting(unit, TO_SEND, limit)

    def mark_sent(self, feed: str, letters: Sequence[tuple[int, DeadLetter]], now: datetime) -> None:
        with self._work.writing(feed) as unit:
            unit.db.executemany(  # one that was marked for retry meanwhile stays marked
                "UPDATE letters SET sent_reason = ?2, "
                "done_at = CASE WHEN state = 'to_send' AND reason = ?2 THEN ?3 ELSE done_at END, "
                "state = CASE WHEN state = 'to_send' AND reason = ?2 THEN 'sent' ELSE state END WHERE id = ?1",
                [(number, letter.reason, to_micros(now)) for number, letter in letters],
            )

    def to_retry(self, feed: str, limit: int) -> list[tuple[int, DeadLetter]]:
        with self._work.reading(feed) as unit:
            return _waiting(unit, RETRY, limit)

    def mark_for_retry(self, feed: str, ids: Sequence[int] | None) -> int:
        chosen, values = ("", ()) if ids is None else (f"AND id IN {CHOSEN}", (numbers(ids),))
        with self._work.writing(feed) as unit:
            return unit.db.execute(  # bytes that were never kept cannot be decoded again
                "UPDATE letters SET state = 'retry', done_at = NULL "
                f"WHERE feed = ? AND state IN ('to_send', 'sent') AND reason <> ? {chosen}",
                (unit.feed, RECORD_TOO_LARGE, *values),
            ).rowcount

    def newest(self, feed: str, limit: int, reason: str | None = None) -> list[LetterRow]:
        with self._work.reading(feed) as unit:
            rows = unit.db.execute(
                f"SELECT {_COLUMNS} FROM letters WHERE feed = ?1 AND state <> 'resolved' "
                "AND (?3 IS NULL OR reason = ?3) ORDER BY id DESC LIMIT ?2",
                (unit.feed, limit, reason),
            )
            return [_row(row, feed) for row in rows]

    def numbers(self, feed: str) -> list[int]:
        with self._work.reading(feed) as unit:
            query = "SELECT id FROM letters WHERE feed = ? AND state <> 'resolved' ORDER BY id"
            return [number for (number,) in unit.db.execute(query, (unit.feed,))]

    def reasons(self, feed: str) -> dict[str, dict[str, int]]:
        with self._work.reading(feed) as unit:
            return letter_reasons(unit)


def put(unit: Unit, letters: Iterable[tuple[str, DeadLetter]], now: int) -> None:
    """Write (kind, letter) pairs; one that is back after a retry returns to its row."""
    for kind, letter in letters:
        at = letter.position
        place = (unit.feed, at.topic, at.partition, at.offset)
        before = unit.db.execute(
            "SELECT kind, reason, state, LENGTH(value) FROM letters "
            'WHERE feed = ? AND topic = ? AND "partition" = ? AND "offset" = ?',
            place,
        ).fetchone()
        if before is not None and before[2] != RESOLVED:
            unit.tally.letter(unit.feed, before[0], before[1], -1)
        unit.tally.letter(unit.feed, kind, letter.reason)
        unit.tally.add(unit.feed, "letter_bytes", len(letter.value) - (before[3] if before else 0))
        unit.db.execute(
            'INSERT INTO letters (feed, topic, "partition", "offset", kind, reason, detail, value, state, at) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'to_send', ?9) ON CONFLICT DO UPDATE SET "
            "kind = excluded.kind, reason = excluded.reason, detail = excluded.detail, value = excluded.value, "
            "state = CASE WHEN sent_reason = excluded.reason THEN 'sent' ELSE 'to_send' END, "
            "done_at = CASE WHEN sent_reason = excluded.reason THEN ?9 END",
            (*place, kind, letter.reason, letter.detail, letter.value, now),
        )


def resolve(unit: Unit, letter: int, now: int) -> bool:
    """Take a letter marked for retry off the books, as if its record had not come yet. False if it is not marked."""
    query = "SELECT kind, reason, LENGTH(value) FROM letters WHERE id = ? AND feed = ? AND state = 'retry'"
    row = unit.db.execute(query, (letter, unit.feed)).fetchone()
    if row is None:
        return False
    kind, reason, size = row
    unit.db.execute("UPDATE letters SET state = 'resolved', value = x'', done_at = ? WHERE id = ?", (now, letter))
    unit.tally.letter(unit.feed, kind, reason, -1)
    unit.tally.add(unit.feed, "letter_bytes", -size)
    if kind == "event":
        unit.tally.add(unit.feed, "event_records", -1)
    return True


def let_go(unit: Unit, until: int, limit: int) -> int:
    """Drop letters that were sent or resolved by then, and the oldest of them beyond `max_letter_bytes`; how many.
    Those that are not resolved stay counted."""
    over = read_counter(unit, "letter_bytes") - unit.rules.max_letter_bytes
    rows = unit.db.execute(
        "SELECT id, state, LENGTH(value), done_at FROM letters WHERE feed = ? AND done_at <= ? "
        "ORDER BY done_at, id LIMIT ?",
        (unit.feed, END_OF_TIME if over > 0 else until, limit),
    ).fetchall()
    gone = []
    for number, state, size, done_at in rows:
        if done_at > until and over <= 0:
            break
        gone.append(number)
        over -= size
        unit.tally.add(unit.feed, "letter_bytes", -size)
        unit.tally.add(unit.feed, "letters_let_go", state != RESOLVED)
    unit.db.execute(f"DELETE FROM letters WHERE id IN {CHOSEN}", (numbers(gone),))
    return len(gone)


def _waiting(unit: Unit, state: str, limit: int) -> list[tuple[int, DeadLetter]]:
    """The oldest letters of a state, with their numbers; fewer than `limit` where they are big."""
    query = f"SELECT {_COLUMNS} FROM letters WHERE feed = ? AND state = ? ORDER BY id LIMIT ?"
    letters: list[tuple[int, DeadLetter]] = []
    size = 0
    for row in unit.db.execute(query, (unit.feed, state, limit)):
        letters.append((row[0], _letter(row, unit.rules.feed)))
        size += len(letters[-1][1].value)
        if size >= MAX_BYTES:
            break
    return letters


def _row(row: tuple, feed: str) -> LetterRow:
    return LetterRow(id=row[0], letter=_letter(row, feed), state=row[8], at=from_micros(row[9]))


def _letter(row: tuple, feed: str) -> DeadLetter:
    _, reason, detail, topic, partition, offset, value, kind, _, at = row
    position = Position(topic=topic, partition=partition, offset=offset)
    return DeadLetter(
        feed=feed, reason=reason, detail=detail, position=position, value=value, kind=kind, at=from_micros(at)
    )
