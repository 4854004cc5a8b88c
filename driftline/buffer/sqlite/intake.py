"""The intake's face on SQLite; `batches`, `expiry` and `positions` beside it have the statements."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from driftline.buffer.holdouts import HoldoutSplit
from driftline.buffer.intake import Intake, IntakeCounts
from driftline.buffer.sqlite import positions as places
from driftline.buffer.sqlite.batches import Batches, summary, unseen
from driftline.buffer.sqlite.counters import read_total
from driftline.buffer.sqlite.expiry import LIMIT, Expiry
from driftline.buffer.sqlite.labels import check_adopted
from driftline.buffer.sqlite.unit import Work
from driftline.buffer.states import to_micros
from driftline.records import Record
from driftline.topics import Partition

_DUE = (
    Expiry.offer,
    Expiry.let_go,
    Expiry.refuse_labels,
    Expiry.drop_predictions,
    Expiry.let_letters_go,
    Expiry.drop_features,
)


class SqliteIntake(Intake):
    """See `Intake`."""

    def __init__(self, work: Work, split: HoldoutSplit) -> None:
        self._work = work
        self._split = split

    def positions(self) -> dict[Partition, int]:
        with self._work.store.reading() as db:
            return places.read(db, self._owners())

    def bind_topic(self, topic: str, identity: str) -> None:
        with self._work.store.writing() as db:
            places.bind(db, self._owners()[topic], topic, identity, self._work.store.path)

    def append(
        self,
        records: Sequence[Record],
        positions: Mapping[Partition, int],
        now: datetime,
        *,
        retried: Sequence[int] = (),
    ) -> IntakeCounts:
        owners = self._owners()
        self._work.require(record.feed for record in records)
        with self._work.writing_all() as (db, units):
            for feed in {record.feed for record in records}:  # what changed in another one holds up none of these
                check_adopted(units[feed])
            batches = Batches(units, self._split, to_micros(now))
            new = batches.resolve(records, retried) if retried else self._unseen(db, records, positions)
            joinings = batches.take(new, bool(retried))
            places.write(db, positions, owners)
        return summary(len(records), len(new), joinings)

    def _unseen(
        self, db: sqlite3.Connection, records: Sequence[Record], positions: Mapping[Partition, int]
    ) -> list[Record]:
        stored = places.read(db, self._owners()) if positions else {}
        return unseen(records, {place: stored[place] for place in positions if place in stored})

    def expire(self, now: datetime, *, current: Iterable[str] | None = None) -> None:
        up_to_date = set(self._work.rules if current is None else current)
        for feed in self._work.rules:
            for handle in _DUE:
                while self._expire(feed, handle, to_micros(now), feed in up_to_date) == LIMIT:
                    pass

    def _expire(self, feed: str, handle: Callable[[Expiry], int], now: int, current: bool) -> int:
        with self._work.writing(feed) as unit:
            return handle(Expiry(unit, now, current))

    def waiting_examples(self) -> int:
        with self._work.store.reading() as db:
            return read_total(db, [*self._work.numbers().values()], ("fresh", "awaiting_prediction"))

    def _owners(self) -> dict[str, int]:
        """Topic → the number of the feed it is read for; the config sees to it that there is one."""
        numbers = self._work.numbers()
        return {topic: numbers[feed] for feed, rules in self._work.rules.items() for topic in rules.topics.read}
