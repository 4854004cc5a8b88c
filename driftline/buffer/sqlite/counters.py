"""Counters that change in the same transaction as what they count, so that no report ever scans a big table."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence

from driftline.buffer.counts import FeedCounts
from driftline.buffer.sqlite.examples import returned
from driftline.buffer.states import STATE_COUNTERS

_REASON = "reason:"


class Tally:
    """Changes of counters, collected during a transaction and written at its end."""

    def __init__(self) -> None:
        self._changes: Counter[tuple[int, str]] = Counter()

    def add(self, feed: int, name: str, n: int = 1) -> None:
        """Count n more (or fewer, if negative)."""
        self._changes[feed, name] += n

    def move(self, feed: int, before: int, after: int, n: int = 1) -> None:
        """n rows changed from one state to another."""
        self.add(feed, STATE_COUNTERS[before], -n)
        self.add(feed, STATE_COUNTERS[after], n)

    def letter(self, feed: int, kind: str, reason: str, n: int = 1) -> None:
        """n more (or fewer) unresolved dead letters."""
        self.add(feed, "dead_letters" if kind == "event" else f"{kind}_dead_letters", n)
        self.add(feed, _REASON + reason, n)

    def write(self, db: sqlite3.Connection) -> None:
        """Add the changes to the stored values."""
        db.executemany(
            "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(feed, name, n) for (feed, name), n in self._changes.items() if n],
        )


def read_counts(db: sqlite3.Connection, feed: int) -> FeedCounts:
    """All counters of a feed; one small index range."""
    values = dict(db.execute("SELECT name, value FROM counters WHERE feed = ?", (feed,)).fetchall())
    reasons = {name.removeprefix(_REASON): n for name, n in values.items() if name.startswith(_REASON) and n}
    plain = {name: n for name, n in values.items() if not name.startswith(_REASON)}
    return FeedCounts(**plain, returned=returned(db, feed), awaiting_label=plain.get("pending", 0), by_reason=reasons)


def read_counter(db: sqlite3.Connection, feed: int, name: str) -> int:
    """One counter of a feed."""
    row = db.execute("SELECT value FROM counters WHERE feed = ? AND name = ?", (feed, name)).fetchone()
    return row[0] if row else 0


def read_total(db: sqlite3.Connection, feeds: Sequence[int], names: Sequence[str]) -> int:
    """The sum of these counters over these feeds."""
    (total,) = db.execute(
        "SELECT COALESCE(SUM(value), 0) FROM counters WHERE feed IN (SELECT value FROM json_each(?)) "
        "AND name IN (SELECT value FROM json_each(?))",
        (json.dumps(feeds), json.dumps(names)),
    ).fetchone()
    return int(total)
