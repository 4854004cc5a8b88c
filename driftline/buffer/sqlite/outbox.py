"""The table of dead letters (see `driftline.buffer.letters`)."""

import json
import sqlite3
from collections.abc import Iterable, Sequence

from driftline.buffer.letters import LetterRow
from driftline.buffer.sqlite.counters import Tally
from driftline.buffer.states import from_micros
from driftline.names import RECORD_TOO_LARGE
from driftline.records import DeadLetter, Position

TO_SEND, SENT, RETRY, RESOLVED = "to_send", "sent", "retry", "resolved"
MAX_BYTES = 16 << 20
_COLUMNS = 'letters.id, feeds.name, reason, detail, topic, "partition", "offset", value, kind, state, at'


def put(db: sqlite3.Connection, feed: int, letters: Iterable[tuple[str, DeadLetter]], now: int, tally: Tally) -> None:
    """Write (kind, letter) pairs; one that is back after a retry returns to its row."""
    for kind, letter in letters:
        at = letter.position
        before = db.execute(
            'SELECT kind, reason, state FROM letters WHERE feed = ? AND topic = ? AND "partition" = ? AND "offset" = ?',
            (feed, at.topic, at.partition, at.offset),
        ).fetchone()
        if before is not None and before[2] != RESOLVED:
            tally.letter(feed, before[0], before[1], -1)
        tally.letter(feed, kind, letter.reason)
        db.execute(
            'INSERT INTO letters (feed, kind, reason, detail, topic, "partition", "offset", value, state, at) '
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'to_send', ?) ON CONFLICT DO UPDATE SET "
            "kind = excluded.kind, reason = excluded.reason, detail = excluded.detail, value = excluded.value, "
            "state = CASE WHEN sent_reason = excluded.reason THEN 'sent' ELSE 'to_send' END",
            (feed, kind, letter.reason, letter.detail, at.topic, at.partition, at.offset, letter.value, now),
        )


def resolve(db: sqlite3.Connection, letter: int, tally: Tally) -> bool:
    """Take a letter marked for retry off the books, as if its record had not come yet. False if it is not marked."""
    row = db.execute("SELECT feed, kind, reason FROM letters WHERE id = ? AND state = 'retry'", (letter,)).fetchone()
    if row is None:
        return False
    feed, kind, reason = row
    db.execute("UPDATE letters SET state = 'resolved', value = x'' WHERE id = ?", (letter,))
    tally.letter(feed, kind, reason, -1)
    if kind == "event":
        tally.add(feed, "event_records", -1)
    return True


def waiting(db: sqlite3.Connection, state: str, feeds: Sequence[int], limit: int) -> list[tuple[int, DeadLetter]]:
    """The oldest letters of a state, with their numbers; fewer than `limit` where they are big."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM letters JOIN feeds ON feeds.id = letters.feed WHERE state = ? "
        "AND letters.feed IN (SELECT value FROM json_each(?)) ORDER BY letters.id LIMIT ?",
        (state, json.dumps(list(feeds)), limit),
    )
    letters: list[tuple[int, DeadLetter]] = []
    size = 0
    for row in rows:
        letters.append((row[0], _letter(row)))
        size += len(letters[-1][1].value)
        if size >= MAX_BYTES:
            break
    return letters


def listed(db: sqlite3.Connection, feed: int, limit: int, reason: str | None) -> list[LetterRow]:
    """The feed's newest letters (of one reason or all) that are not resolved, newest first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM letters JOIN feeds ON feeds.id = letters.feed "
        "WHERE letters.feed = ?1 AND state <> 'resolved' AND (?3 IS NULL OR reason = ?3) "
        "ORDER BY letters.id DESC LIMIT ?2",
        (feed, limit, reason),
    )
    return [LetterRow(id=row[0], letter=_letter(row), state=row[9], at=from_micros(row[10])) for row in rows]


def numbers(db: sqlite3.Connection, feed: int) -> list[int]:
    """The numbers of the feed's letters that are not resolved."""
    rows = db.execute("SELECT id FROM letters WHERE feed = ? AND state <> 'resolved' ORDER BY id", (feed,))
    return [number for (number,) in rows]


def reasons(db: sqlite3.Connection, feed: int) -> dict[str, dict[str, int]]:
    """How many letters are not resolved, by kind and reason. For reports: it reads them all."""
    found: dict[str, dict[str, int]] = {}
    for kind, reason, n in db.execute(
        "SELECT kind, reason, COUNT(*) FROM letters WHERE feed = ? AND state <> 'resolved' GROUP BY kind, reason",
        (feed,),
    ):
        found.setdefault(kind, {})[reason] = n
    return found


def mark_sent(db: sqlite3.Connection, letters: Sequence[tuple[int, str]]) -> None:
    """These (number, reason) stand on the dead-letter topic. One that was marked for retry meanwhile stays marked."""
    db.executemany(
        "UPDATE letters SET sent_reason = ?2, state = CASE WHEN state = 'to_send' AND reason = ?2 THEN 'sent' "
        "ELSE state END WHERE id = ?1",
        letters,
    )


def mark_for_retry(db: sqlite3.Connection, feed: int | None, letters: Sequence[int] | None) -> int:
    """Mark unresolved letters (of a feed, by number, or all) whose bytes were kept; returns how many it marked now."""
    done = db.execute(
        "UPDATE letters SET state = 'retry' WHERE state IN ('to_send', 'sent') AND reason <> ?3 "
        "AND (?1 IS NULL OR feed = ?1) AND (?2 IS NULL OR id IN (SELECT value FROM json_each(?2)))",
        (feed, None if letters is None else json.dumps(list(letters)), RECORD_TOO_LARGE),
    )
    return done.rowcount


def _letter(row: tuple) -> DeadLetter:
    _, feed, reason, detail, topic, partition, offset, value, kind, _, at = row
    position = Position(topic=topic, partition=partition, offset=offset)
    return DeadLetter(
        feed=feed, reason=reason, detail=detail, position=position, value=value, kind=kind, at=from_micros(at)
    )
