"""Counters that change in the same transaction as what they count, so that no report ever scans a big table.

    events = examples + unlabelled + pending + dead letters + duplicates        (hold-outs are among the examples)

holds after every transaction, for event records alone; labels and predictions are counted apart.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from driftline.buffer.examples import returned
from driftline.buffer.states import STATE_COUNTERS
from driftline.buffer.store import Store

_REASON = "reason:"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedCounts:
    """How many there are of what, in one feed. Everything is a number of records or rows.

    `event_records` = examples + unlabelled + pending + dead_letters + duplicates. `holdouts` are among the examples,
    and examples = holdouts + awaiting_prediction + fresh + taken + learned + retired + remembered + set_aside +
    withdrawn. `corrected` counts labels that replaced another one, also one that still waited for its event;
    `label_duplicates` those that changed nothing: the same again, or another one where `on_conflict` keeps the first.
    `times_fell_back` counts records whose own time could not be read. `returned` are those of the fresh ones that a
    rejected cycle gave back. `unlabelled` includes the `overflowed` ones, which the full waiting room let go early.
    `by_reason` counts dead letters of all kinds that are not resolved.
    """

    event_records: int = 0
    examples: int = 0
    holdouts: int = 0
    unlabelled: int = 0
    overflowed: int = 0
    pending: int = 0
    dead_letters: int = 0
    label_dead_letters: int = 0
    prediction_dead_letters: int = 0
    duplicates: int = 0
    fresh: int = 0
    returned: int = 0
    taken: int = 0
    learned: int = 0
    retired: int = 0
    remembered: int = 0
    set_aside: int = 0
    withdrawn: int = 0
    awaiting_label: int = 0
    awaiting_prediction: int = 0
    labels_waiting: int = 0
    predictions_waiting: int = 0
    predictions_expired: int = 0
    label_duplicates: int = 0
    prediction_duplicates: int = 0
    segments_merged: int = 0
    corrected: int = 0
    times_fell_back: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)


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


@contextmanager
def tallied(store: Store) -> Iterator[tuple[sqlite3.Connection, Tally]]:
    """One write transaction, and the tally that is written at its end."""
    with store.writing() as db:
        tally = Tally()
        yield db, tally
        tally.write(db)


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
