"""The unit of work that all faces share: one transaction on one feed, and the counts that are written at its end.

Atomicity: what is done between entering and leaving is one transaction, counts included. Errors: as `Store`;
BufferStoreError for a feed that the buffer was not opened with. Units may not be nested.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from driftline.buffer.rules import FeedRules
from driftline.buffer.sqlite.counters import Tally
from driftline.buffer.sqlite.store import Store
from driftline.errors import BufferStoreError


@dataclass(frozen=True, slots=True)
class Unit:
    """One feed within an open transaction. `feed` is its number in the file."""

    db: sqlite3.Connection
    feed: int
    rules: FeedRules
    tally: Tally


class Work:
    """An open file and the rules of the feeds it was opened for."""

    def __init__(self, store: Store, rules: Mapping[str, FeedRules]) -> None:
        self.store = store
        self.rules = dict(rules)

    @contextmanager
    def writing(self, feed: str) -> Iterator[Unit]:
        """One write transaction on a feed."""
        number = self.number(feed)
        with self.writing_all() as (db, tally):
            yield Unit(db, number, self.rules[feed], tally)

    @contextmanager
    def reading(self, feed: str) -> Iterator[Unit]:
        """One snapshot of a feed."""
        number = self.number(feed)
        with self.store.reading() as db:
            yield Unit(db, number, self.rules[feed], Tally())

    @contextmanager
    def writing_all(self) -> Iterator[tuple[sqlite3.Connection, Tally]]:
        """One write transaction on several feeds."""
        with self.store.writing() as db:
            tally = Tally()
            yield db, tally
            tally.write(db)

    def number(self, feed: str) -> int:
        """The feed's number in the file; -1, which no row has, if a read-only buffer does not hold it yet."""
        if feed not in self.rules:
            raise BufferStoreError(f"feed {feed!r} is not in the config: its feeds are {', '.join(sorted(self.rules))}")
        return self.store.feed_id(feed)

    def numbers(self, feeds: Iterable[str] | None = None) -> dict[str, int]:
        """The numbers of these feeds, or of all that the buffer was opened for."""
        return {feed: self.number(feed) for feed in (self.rules if feeds is None else feeds)}
