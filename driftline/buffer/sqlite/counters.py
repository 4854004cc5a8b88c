"""Counters that change in the same transaction as what they count (`tally`), so that no report ever scans a table."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence

from driftline.buffer.counts import REASON, FeedCounts
from driftline.buffer.sqlite import examples
from driftline.buffer.sqlite.unit import Unit


def read_counts(unit: Unit) -> FeedCounts:
    """All counters of a feed, as of one moment."""
    rows = unit.db.execute("SELECT name, value FROM counters WHERE feed = ?", (unit.feed,)).fetchall()
    plain = {name: n for name, n in rows if ":" not in name}
    reasons: Counter[str] = Counter()
    for by_reason in letter_reasons(unit).values():
        reasons.update(by_reason)
    return FeedCounts(**plain, returned=examples.returned(unit), by_reason=dict(reasons))


def letter_reasons(unit: Unit) -> dict[str, dict[str, int]]:
    """How many letters are not resolved, by kind and reason."""
    found: dict[str, dict[str, int]] = {}
    for name, n in read_named(unit, REASON).items():
        kind, reason = name.split(":", 1)
        found.setdefault(kind, {})[reason] = n
    return found


def read_named(unit: Unit, prefix: str) -> dict[str, int]:
    """The counters that are not 0 of those whose names begin so, by the rest of their names."""
    rows = unit.db.execute(
        "SELECT SUBSTR(name, LENGTH(?2) + 1), value FROM counters "
        "WHERE feed = ?1 AND name >= ?2 AND name < ?2 || CHAR(0x10FFFF) AND value <> 0",
        (unit.feed, prefix),
    )
    return dict(rows.fetchall())


def read_counter(unit: Unit, name: str) -> int:
    """One counter of a feed."""
    row = unit.db.execute("SELECT value FROM counters WHERE feed = ? AND name = ?", (unit.feed, name)).fetchone()
    return row[0] if row else 0


def read_total(db: sqlite3.Connection, feeds: Sequence[int], names: Sequence[str]) -> int:
    """The sum of these counters over these feeds."""
    (total,) = db.execute(
        "SELECT COALESCE(SUM(value), 0) FROM counters WHERE feed IN (SELECT value FROM json_each(?)) "
        "AND name IN (SELECT value FROM json_each(?))",
        (json.dumps(feeds), json.dumps(names)),
    ).fetchone()
    return int(total)
