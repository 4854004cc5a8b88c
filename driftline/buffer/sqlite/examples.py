"""Reading examples by number and by state. Every query follows an index; none counts rows."""

import json
import sqlite3
from collections.abc import Sequence

from driftline.buffer.states import AWAITING, FRESH, HOLDOUT, RETIRED, from_micros
from driftline.records import Example, ServedAnswer

_COLUMNS = """seq, feeds.name, event_id, text, label, occurred_at, labelled_at, source, holdout,
    answer_version, answer_label FROM events JOIN feeds ON feeds.id = events.feed"""


def by_state(db: sqlite3.Connection, feed: int, state: int, limit: int) -> list[Example]:
    """The feed's oldest examples of a state, by number."""
    rows = db.execute(
        f"SELECT {_COLUMNS} WHERE feed = ? AND state = ? AND seq IS NOT NULL ORDER BY seq LIMIT ?", (feed, state, limit)
    )
    return [_example(row) for row in rows]


def fresh(db: sqlite3.Connection, feed: int, limit: int) -> list[Example]:
    """Examples that may be taken, oldest first."""
    return by_state(db, feed, FRESH, limit)


def returned(db: sqlite3.Connection, feed: int) -> int:
    """How many fresh examples a rejected cycle gave back."""
    query = f"SELECT COUNT(*) FROM events WHERE feed = ? AND state = {FRESH} AND attempts > 0"  # events_returned
    (count,) = db.execute(query, (feed,)).fetchone()
    return int(count)


def unanswered(db: sqlite3.Connection, feed: int) -> tuple[int, int] | None:
    """The least and the greatest number of those that wait for the answer that was served; None if none does."""
    query = "SELECT MIN(seq), MAX(seq) FROM events WHERE feed = ? AND state = ?"  # events_by_state
    least, greatest = db.execute(query, (feed, AWAITING)).fetchone()
    return None if least is None else (least, greatest)


def retired(db: sqlite3.Connection, feed: int, limit: int) -> list[Example]:
    """Examples that wait to be offered to the reservoir, oldest first."""
    return by_state(db, feed, RETIRED, limit)


def after(db: sqlite3.Connection, feed: int, seq: int) -> list[Example]:
    """All the feed's examples with a greater number, hold-outs included."""
    return [
        _example(row) for row in db.execute(f"SELECT {_COLUMNS} WHERE seq > ? AND +feed = ? ORDER BY seq", (seq, feed))
    ]


def by_number(db: sqlite3.Connection, seqs: Sequence[int]) -> list[Example]:
    """These examples in this order, repeats included. KeyError for a number that there is none of."""
    rows = db.execute(f"SELECT {_COLUMNS} WHERE seq IN (SELECT value FROM json_each(?))", (json.dumps(list(seqs)),))
    found = {row[0]: _example(row) for row in rows}
    return [found[seq] for seq in seqs]


def recent_holdouts(db: sqlite3.Connection, feed: int, count: int) -> list[int]:
    """Numbers of the newest hold-outs, rising."""
    rows = db.execute(
        "SELECT seq FROM events WHERE feed = ? AND state = ? AND seq IS NOT NULL ORDER BY seq DESC LIMIT ?",
        (feed, HOLDOUT, count),
    )
    return sorted(seq for (seq,) in rows)


def _example(row: tuple) -> Example:
    seq, feed, event_id, text, label, occurred_at, labelled_at, source, holdout, version, answer = row
    return Example(
        seq=seq,
        feed=feed,
        event_id=event_id,
        text=text,
        label=label,
        occurred_at=from_micros(occurred_at),
        labelled_at=from_micros(labelled_at),
        source=source,
        holdout=holdout is not None,
        answer=None if version is None else ServedAnswer(label=answer, adapter_version=version),
    )
