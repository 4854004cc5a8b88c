"""The ledger's face on SQLite; `cycles` and `examples` beside it have the statements."""

from collections.abc import Sequence
from datetime import datetime

from driftline.buffer.ledger import CycleRow, Ledger, Outcome
from driftline.buffer.lineage import down
from driftline.buffer.sqlite import cycles, examples, standing
from driftline.buffer.sqlite.corrections import newest_version
from driftline.buffer.sqlite.counters import read_counter
from driftline.buffer.sqlite.examples import move
from driftline.buffer.sqlite.labels import check_adopted
from driftline.buffer.sqlite.unit import Unit, Work
from driftline.buffer.states import FRESH, RETIRED, from_micros
from driftline.records import Cycle, Example


class SqliteLedger(Ledger):
    """See `Ledger`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def fresh(self, feed: str, limit: int) -> list[Example]:
        with self._work.reading(feed) as unit:
            return examples.by_state(unit, FRESH, limit)

    def fresh_count(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return read_counter(unit, "fresh")

    def new_count(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return read_counter(unit, "fresh") - examples.returned(unit)

    def example_count(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return read_counter(unit, "examples")

    def unanswered(self, feed: str) -> tuple[int, int] | None:
        with self._work.reading(feed) as unit:
            return examples.unanswered(unit)

    def retired(self, feed: str, limit: int) -> list[Example]:
        with self._work.reading(feed) as unit:
            return examples.by_state(unit, RETIRED, limit)

    def retire_overflow(self, feed: str, keep: int) -> int:
        with self._work.writing(feed) as unit:
            over = read_counter(unit, "fresh") - keep
            return move(unit, examples.oldest(unit, FRESH, over), FRESH, RETIRED) if over > 0 else 0

    def examples(self, feed: str, seqs: Sequence[int]) -> list[Example]:
        with self._work.reading(feed) as unit:
            return examples.by_number(unit, seqs)

    def examples_after(self, feed: str, seq: int) -> list[Example]:
        with self._work.reading(feed) as unit:
            return examples.after(unit, seq)

    def take(self, cycle: Cycle) -> None:
        with self._work.writing(cycle.feed) as unit:
            check_adopted(unit)
            cycles.take(unit, cycle)

    def open_cycle(self, feed: str) -> Cycle | None:
        with self._work.reading(feed) as unit:
            return cycles.open_cycle(unit)

    def ack(self, cycle_id: str, outcome: Outcome) -> None:
        with self._work.writing_all() as (db, units):
            feed = cycles.feed_of(db, cycle_id)
            self._work.require([feed])
            cycles.acknowledge(units[feed], cycle_id, outcome)

    def last_taken_at(self, feed: str) -> datetime | None:
        with self._work.reading(feed) as unit:
            query = "SELECT MAX(taken_at) FROM cycles WHERE feed = ?"
            (micros,) = unit.db.execute(query, (unit.feed,)).fetchone()
        return None if micros is None else from_micros(micros)

    def last_version(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return newest_version(unit)

    def has_version(self, feed: str, version: int) -> bool:
        query = "SELECT 1 FROM cycles WHERE feed = ? AND version = ?"
        with self._work.reading(feed) as unit:
            return unit.db.execute(query, (unit.feed, version)).fetchone() is not None

    def cycles(self, feed: str) -> list[CycleRow]:
        with self._work.reading(feed) as unit:
            return cycles.all_cycles(unit)

    def lineage(self, feed: str, version: int) -> list[int]:
        with self._work.reading(feed) as unit:
            return [*down(version, standing.Parents(unit))]

    def reconcile(self, feed: str, live_version: int, revision: int) -> bool:
        with self._work.writing(feed) as unit:
            if revision < _seen_revision(unit):
                return False
            _see_revision(unit, revision)
            standing.reconcile(unit, live_version)
        return True

    def relearn(self, feed: str) -> int:
        with self._work.writing(feed) as unit:
            return standing.relearn(unit)

    def remember_revision(self, feed: str, revision: int) -> None:
        with self._work.writing(feed) as unit:
            _see_revision(unit, revision)

    def seen_revision(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return _seen_revision(unit)


def _see_revision(unit: Unit, revision: int) -> None:
    query = "UPDATE feeds SET seen_revision = MAX(seen_revision, ?) WHERE id = ?"
    unit.db.execute(query, (revision, unit.feed))


def _seen_revision(unit: Unit) -> int:
    row = unit.db.execute("SELECT seen_revision FROM feeds WHERE id = ?", (unit.feed,)).fetchone()
    return row[0] if row else 0
