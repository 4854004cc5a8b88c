"""The unit of work that all faces share: one transaction on one feed, and the counts that are written at its end.

Atomicity: what is done between entering and leaving is one transaction, counts included. Errors: as `Store`;
BufferStoreError for a feed that the buffer was not opened with. Units may not be nested.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from driftline.buffer.rules import FeedRules
from driftline.buffer.sqlite.store import Store
from driftline.buffer.sqlite.tally import Tally
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
    def reading(self, feed: str) -> Iterator[Unit]:
        """One snapshot of a feed."""
        self.require([feed])
        with self.store.reading() as db:
            yield self._unit(db, feed, Tally())

    @contextmanager
    def writing(self, feed: str) -> Iterator[Unit]:
        """One write transaction on a feed."""
        self.require([feed])
        with self.writing_all() as (_, units):
            yield units[feed]

    @contextmanager
    def writing_all(self) -> Iterator[tuple[sqlite3.Connection, dict[str, Unit]]]:
        """One write transaction on all feeds, by name."""
        with self.store.writing() as db:
            tally = Tally()
            yield db, {feed: self._unit(db, feed, tally) for feed in self.rules}
            tally.write(db)

    def require(self, feeds: Iterable[str]) -> None:
        """BufferStoreError if one of these is none of them."""
        if unknown := set(feeds) - self.rules.keys():
            known = ", ".join(sorted(self.rules))
            raise BufferStoreError(f"feed {min(unknown)!r} is not in the config: its feeds are {known}")

    def numbers(self) -> dict[str, int]:
        """The feeds' numbers in the file; -1, which no row has, of one that a read-only buffer does not hold yet."""
        return {feed: self.store.feed_id(feed) for feed in self.rules}

    def _unit(self, db: sqlite3.Connection, feed: str, tally: Tally) -> Unit:
        return Unit(db, self.store.feed_id(feed), self.rules[feed], tally)
