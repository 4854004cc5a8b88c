"""How soon events get their label, and how many get one. Reads a bounded number of rows through indices."""

from driftline.buffer.exams import Labelling
from driftline.buffer.sqlite.unit import Unit

SETTLED = 60_000_000
"""Microseconds. An event of the last minute says nothing yet: its label may well be on its way."""
MOST_PENDING = 100_000


def read(unit: Unit, last: int, now: int) -> Labelling:
    """See `Labelling`."""
    rows = unit.db.execute(
        "SELECT labelled_at - occurred_at, received_at FROM events "
        "WHERE feed = ? AND seq IS NOT NULL ORDER BY arrival DESC LIMIT ?",
        (unit.feed, last),
    ).fetchall()
    settled = now - SETTLED
    (pending,) = unit.db.execute(
        "SELECT COUNT(*) FROM "
        "(SELECT 1 FROM events WHERE feed = ? AND seq IS NULL AND received_at BETWEEN ? AND ? LIMIT ?)",
        (unit.feed, min((received for _, received in rows), default=0), settled, MOST_PENDING),
    ).fetchone()
    return Labelling(
        delays_s=tuple(sorted(delay / 1e6 for delay, _ in rows)),
        labelled=sum(received <= settled for _, received in rows),
        pending=pending,
    )
