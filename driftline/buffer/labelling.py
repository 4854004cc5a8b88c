"""How soon events get their label, and how many get one. Reads a bounded number of rows through indices."""

import sqlite3
from dataclasses import dataclass

SETTLED = 60_000_000
"""Microseconds. An event of the last minute says nothing yet: its label may well be on its way."""
MOST_PENDING = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """`delays_s`: from event to label, of the newest labelled events, rising; below 0 where a clock is wrong.
    `labelled` and `pending`: of the events received since the oldest of these, those of the last minute aside, how many
    have a label and how many still wait for one (up to 100,000)."""

    delays_s: tuple[float, ...]
    labelled: int
    pending: int

    @property
    def coverage(self) -> float | None:
        """The share that has a label, 0..1; None of nothing."""
        return self.labelled / (self.labelled + self.pending) if self.labelled + self.pending else None


def read(db: sqlite3.Connection, feed: int, last: int, now: int) -> Labelling:
    """See `Labelling`. Events that were let go as unlabelled are not in the buffer any more, and so not counted."""
    rows = db.execute(
        "SELECT labelled_at - occurred_at, received_at FROM events "
        "WHERE feed = ? AND seq IS NOT NULL ORDER BY arrival DESC LIMIT ?",
        (feed, last),
    ).fetchall()
    settled = now - SETTLED
    (pending,) = db.execute(
        "SELECT COUNT(*) FROM "
        "(SELECT 1 FROM events WHERE feed = ? AND state = 0 AND received_at BETWEEN ? AND ? LIMIT ?)",
        (feed, min((received for _, received in rows), default=0), settled, MOST_PENDING),
    ).fetchone()
    return Labelling(
        delays_s=tuple(sorted(delay / 1e6 for delay, _ in rows)),
        labelled=sum(received <= settled for _, received in rows),
        pending=pending,
    )
