"""An opened buffer: one SQLite file with its faces (`driftline.buffer`), all over one connection and its lock.

Safe in several processes and threads. Feeds are named as in the config; a feed that the buffer was not opened with is
refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from driftline.buffer.corrections import Corrections
from driftline.buffer.counts import FeedCounts
from driftline.buffer.exams import Exams
from driftline.buffer.fast import FastClockBooks
from driftline.buffer.holdouts import HoldoutSplit
from driftline.buffer.intake import Intake
from driftline.buffer.labels import Labels
from driftline.buffer.ledger import Ledger
from driftline.buffer.letters import Letters
from driftline.buffer.rules import FeedRules
from driftline.buffer.sqlite.corrections import SqliteCorrections
from driftline.buffer.sqlite.counters import read_counts
from driftline.buffer.sqlite.exams import SqliteExams
from driftline.buffer.sqlite.fast import SqliteFastClockBooks
from driftline.buffer.sqlite.intake import SqliteIntake
from driftline.buffer.sqlite.labels import SqliteLabels
from driftline.buffer.sqlite.ledger import SqliteLedger
from driftline.buffer.sqlite.letters import SqliteLetters
from driftline.buffer.sqlite.store import Store, check_split, open_for_reading, open_store
from driftline.buffer.sqlite.unit import Work


class Buffer:
    """The faces, and what is said of the file as a whole."""

    intake: Intake
    ledger: Ledger
    exams: Exams
    letters: Letters
    labels: Labels
    corrections: Corrections
    fast: FastClockBooks

    def __init__(self, store: Store, rules: Mapping[str, FeedRules], holdout_key: bytes) -> None:
        self._store = store
        self._work = work = Work(store, rules)
        self._holdout_key = holdout_key
        self.intake = SqliteIntake(work, HoldoutSplit(holdout_key))
        self.ledger = SqliteLedger(work)
        self.exams = SqliteExams(work)
        self.letters = SqliteLetters(work)
        self.labels = SqliteLabels(work)
        self.corrections = SqliteCorrections(work)
        self.fast = SqliteFastClockBooks(work)

    @classmethod
    def open(
        cls,
        path: Path,
        rules: Mapping[str, FeedRules],
        holdout_key: bytes,
        *,
        read_only: bool = False,
        identity: str | None = None,
    ) -> Self:
        """Open the file, and make it if need be (not if `read_only`). BufferStoreError says what is wrong with it.

        `identity`: of a file that is made now (see `identity`); None: one that no other buffer has.
        """
        if read_only:
            return cls(open_for_reading(path), rules, holdout_key)
        return cls(open_store(path, _shares(rules), holdout_key, identity), rules, holdout_key)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._store.close()

    def identity(self) -> str:
        """What tells this buffer from all others: whoever keeps its examples' numbers elsewhere keeps it with them."""
        with self._store.reading() as db:
            (identity,) = db.execute("SELECT value FROM settings WHERE name = 'identity'").fetchone()
        return str(identity)

    def check_split(self) -> None:
        """BufferStoreError if opening for writing would refuse this key or these shares. A read-only buffer may ask."""
        with self._store.reading() as db:
            check_split(db, self._store.path, _shares(self._work.rules), self._holdout_key)

    def counts(self, feed: str) -> FeedCounts:
        """All counters of the feed, as of one moment."""
        with self._work.reading(feed) as unit:
            return read_counts(unit)

    def others(self) -> dict[str, int]:
        """Feeds that the file holds and the config does not name, such as one under its old name: how many examples."""
        query = (
            "SELECT feeds.name, COALESCE(value, 0) FROM feeds "
            "LEFT JOIN counters ON feed = feeds.id AND counters.name = 'examples' ORDER BY feeds.id"
        )
        with self._store.reading() as db:
            return {name: examples for name, examples in db.execute(query) if name not in self._work.rules}


def _shares(rules: Mapping[str, FeedRules]) -> dict[str, float]:
    return {feed: rule.holdout_share for feed, rule in rules.items()}
