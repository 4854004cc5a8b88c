"""The ledger's face on SQLite; `cycles` and `examples` beside it have the statements."""

from collections.abc import Sequence
from datetime import datetime

from driftline.buffer.ledger import CycleRow, Ledger, Outcome
from driftline.buffer.lineage import lineage
from driftline.buffer.sqlite import cycles, examples
from driftline.buffer.sqlite.corrections import newest_version
from driftline.buffer.sqlite.counters import read_counter
from driftline.buffer.sqlite.labels import check_adopted
from driftline.buffer.sqlite.unit import Work
from driftline.buffer.states import from_micros
from driftline.records import Cycle, Example


class SqliteLedger(Ledger):
    """See `Ledger`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def fresh(self, feed: str, limit: int) -> list[Example]:
        with self._work.reading(feed) as unit:
            return examples.fresh(unit.db, unit.feed, limit)

    def fresh_count(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return read_counter(unit.db, unit.feed, "fresh")

    def new_count(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return read_counter(unit.db, unit.feed, "fresh") - examples.returned(unit.db, unit.feed)

    def example_count(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return read_counter(unit.db, unit.feed, "examples")

    def unanswered(self, feed: str) -> tuple[int, int] | None:
        with self._work.reading(feed) as unit:
            return examples.unanswered(unit.db, unit.feed)

    def retired(self, feed: str, limit: int) -> list[Example]:
        with self._work.reading(feed) as unit:
            return examples.retired(unit.db, unit.feed, limit)

    def retire_overflow(self, feed: str, keep: int) -> int:
        with self._work.writing(feed) as unit:
            over = read_counter(unit.db, unit.feed, "fresh") - keep
            return cycles.retire_overflow(unit.db, unit.feed, over, unit.tally) if over > 0 else 0

    def examples(self, feed: str, seqs: Sequence[int]) -> list[Example]:
        with self._work.reading(feed) as unit:
            return examples.by_number(unit.db, seqs)

    def examples_after(self, feed: str, seq: int) -> list[Example]:
        with self._work.reading(feed) as unit:
            return examples.after(unit.db, unit.feed, seq)

    def take(self, cycle: Cycle) -> None:
        with self._work.writing(cycle.feed) as unit:
            check_adopted(unit.db, unit.feed, unit.rules)
            cycles.take(unit.db, unit.feed, cycle, unit.tally)

    def open_cycle(self, feed: str) -> Cycle | None:
        with self._work.reading(feed) as unit:
            return cycles.open_cycle(unit.db, unit.feed, feed)

    def ack(self, cycle_id: str, outcome: Outcome) -> None:
        with self._work.writing_all() as (db, tally):
            feed = cycles.feed_of(db, cycle_id)
            cycles.acknowledge(db, self._work.number(feed), self._work.rules[feed], cycle_id, outcome, tally)

    def last_taken_at(self, feed: str) -> datetime | None:
        with self._work.reading(feed) as unit:
            query = "SELECT MAX(taken_at) FROM cycles WHERE feed = ?"
            (micros,) = unit.db.execute(query, (unit.feed,)).fetchone()
        return None if micros is None else from_micros(micros)

    def last_version(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return newest_version(unit.db, unit.feed)

    def has_version(self, feed: str, version: int) -> bool:
        query = "SELECT 1 FROM cycles WHERE feed = ? AND version = ? LIMIT 1"
        with self._work.reading(feed) as unit:
            return unit.db.execute(query, (unit.feed, version)).fetchone() is not None

    def cycles(self, feed: str) -> list[CycleRow]:
        with self._work.reading(feed) as unit:
            return cycles.all_cycles(unit.db, unit.feed, feed)

    def lineage(self, feed: str, version: int) -> list[int]:
        with self._work.reading(feed) as unit:
            return lineage(cycles.parents(unit.db, unit.feed), version)

    def reconcile(self, feed: str, live_version: int) -> None:
        with self._work.writing(feed) as unit:
            cycles.reconcile(unit.db, unit.feed, live_version, unit.tally)

    def relearn(self, feed: str) -> int:
        with self._work.writing(feed) as unit:
            return cycles.relearn(unit.db, unit.feed, unit.tally)

    def remember_revision(self, feed: str, revision: int) -> None:
        query = "UPDATE feeds SET seen_revision = MAX(seen_revision, ?) WHERE id = ?"
        with self._work.writing(feed) as unit:
            unit.db.execute(query, (revision, unit.feed))

    def seen_revision(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            row = unit.db.execute("SELECT seen_revision FROM feeds WHERE id = ?", (unit.feed,)).fetchone()
        return row[0] if row else 0
