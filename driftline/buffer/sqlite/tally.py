"""Changes of counters, collected during a transaction and written at its end."""

import sqlite3
from collections import Counter

from driftline.buffer.counts import REASON
from driftline.buffer.states import STATE_COUNTERS


class Tally:
    """What one transaction counts, of all its feeds."""

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
        self.add(feed, f"{REASON}{kind}:{reason}", n)

    def write(self, db: sqlite3.Connection) -> None:
        """Add the changes to the stored values."""
        db.executemany(
            "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(feed, name, n) for (feed, name), n in self._changes.items() if n],
        )
