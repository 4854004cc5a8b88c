"""The fast clock's face on SQLite (see `driftline.buffer.fast`), and what the other faces leave for it.

What becomes fresh is due (`examples.move`), and what is corrected; what is set aside or withdrawn is not any more.
"""

from collections.abc import Iterable, Sequence

from driftline.buffer.batch import Entry
from driftline.buffer.fast import FastClockBooks, KeptState, Learned, Lesson
from driftline.buffer.sqlite.counters import read_counter
from driftline.buffer.sqlite.examples import CHOSEN, no_more_due, numbers
from driftline.buffer.sqlite.labels import check_adopted
from driftline.buffer.sqlite.unit import Unit, Work
from driftline.buffer.states import AWAITING, PENDING
from driftline.errors import BufferStoreError
from driftline.records import Pulse

MOST_FEATURES = 50_000
"""Of a feed: about 40 MB with 384 numbers each, should nobody learn from them."""


def keep_features(unit: Unit, entries: Iterable[Entry]) -> None:
    """What was served with these entries' answers, of those that are still to be learned. Call it once what became due
    was written."""
    if not unit.rules.fast:
        return
    wanted = [entry for entry in entries if entry.answer is not None and entry.answer.arrived and entry.holdout is None]
    due = _due_among(unit, [entry.seq for entry in wanted if entry.seq is not None])
    kept = [one for one in wanted if one.state in (PENDING, AWAITING) or one.seq in due]
    drop_features(unit, [entry.arrival or 0 for entry in kept])
    rows = [(one.arrival, unit.feed, one.answer.feature) for one in kept if one.answer and one.answer.feature]
    unit.db.executemany("INSERT INTO features VALUES (?, ?, ?)", rows)
    unit.tally.add(unit.feed, "features", len(rows))


def judge_late_answers(unit: Unit, entries: Iterable[Entry]) -> None:
    """Of examples that the fast clock learned before their answer came: whether the answer's pulse knew them
    (invariant 4)."""
    late = [(one.answer.pulse, unit.feed, one.seq) for one in entries if one.seq and one.answer and one.answer.arrived]
    unit.db.executemany("UPDATE learned_unanswered SET knew = number <= ? WHERE feed = ? AND seq = ?", late)


def drop_features(unit: Unit, arrivals: Sequence[int]) -> None:
    """Those of these events, if there are any."""
    query = f"DELETE FROM features WHERE arrival IN {CHOSEN}"
    unit.tally.add(unit.feed, "features", -unit.db.execute(query, (numbers(arrivals),)).rowcount)


def drop_overflow(unit: Unit, limit: int) -> int:
    """The oldest features beyond `MOST_FEATURES`; of a feed without a fast clock (any more) all, and what
    was due. Returns how many rows."""
    over = read_counter(unit, "features") - (
        min(MOST_FEATURES, unit.rules.max_waiting_events) if unit.rules.fast else 0
    )
    gone = _first(unit, "SELECT arrival FROM features WHERE feed = ? ORDER BY arrival LIMIT ?", min(over, limit))
    drop_features(unit, gone)
    due = 0 if unit.rules.fast else min(read_counter(unit, "due"), limit - len(gone))
    no_more_due(unit, _first(unit, "SELECT seq FROM due WHERE feed = ? LIMIT ?", due))
    return len(gone) + max(due, 0)


def _first(unit: Unit, query: str, count: int) -> list[int]:
    return [row for (row,) in unit.db.execute(query, (unit.feed, count))] if count > 0 else []


def _due_among(unit: Unit, seqs: Sequence[int]) -> set[int]:
    query = f"SELECT seq FROM due WHERE feed = ? AND seq IN {CHOSEN}"
    return {seq for (seq,) in unit.db.execute(query, (unit.feed, numbers(seqs)))}


class SqliteFastClockBooks(FastClockBooks):
    """See `FastClockBooks`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def due(self, feed: str, limit: int) -> list[Lesson]:
        with self._work.reading(feed) as unit:
            check_adopted(unit)
            return [_lesson(row) for row in unit.db.execute(_DUE, (unit.feed, limit))]

    def due_count(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return read_counter(unit, "due")

    def record(self, feed: str, pulse: Pulse, sealed: bytes, lessons: Sequence[Lesson]) -> None:
        with self._work.writing(feed) as unit:
            check_adopted(unit)
            if pulse.number != (last := _last_number(unit)) + 1:
                raise BufferStoreError(
                    f"feed {feed!r}: pulse {pulse.number} does not follow pulse {last}: another process keeps this "
                    "fast clock by now"
                )
            _learn(unit, pulse.number, lessons)
            _write_pulse(unit, pulse.number, sealed)

    def keep(self, feed: str, kept: KeptState) -> None:
        with self._work.writing(feed) as unit:
            check_adopted(unit)
            if kept.number < (last := _last_number(unit)):
                raise BufferStoreError(f"feed {feed!r}: the state of pulse {kept.number} is older than pulse {last}")
            unit.db.execute(
                "INSERT OR REPLACE INTO fast_states VALUES (?, ?, ?, ?, ?)",
                (unit.feed, kept.epoch, kept.number, kept.pulse, kept.state),
            )
            unit.db.execute("DELETE FROM pulse_examples WHERE feed = ?", (unit.feed,))
            _write_pulse(unit, kept.number, kept.pulse)

    def kept(self, feed: str) -> KeptState | None:
        query = "SELECT epoch, number, pulse, state FROM fast_states WHERE feed = ?"
        with self._work.reading(feed) as unit:
            row = unit.db.execute(query, (unit.feed,)).fetchone()
        return None if row is None else KeptState(epoch=row[0], number=row[1], pulse=row[2], state=row[3])

    def since_kept(self, feed: str) -> list[Learned]:
        found: dict[int, list[Lesson]] = {}
        with self._work.reading(feed) as unit:
            for number, *row in unit.db.execute(_SINCE, (unit.feed,)):
                found.setdefault(number, []).append(_lesson(row))
        return [Learned(number=number, lessons=tuple(lessons)) for number, lessons in found.items()]

    def last_pulse(self, feed: str) -> bytes | None:
        with self._work.reading(feed) as unit:
            row = unit.db.execute("SELECT pulse FROM pulses WHERE feed = ?", (unit.feed,)).fetchone()
        return None if row is None else bytes(row[0])

    def last_number(self, feed: str) -> int:
        with self._work.reading(feed) as unit:
            return _last_number(unit)


_DUE = """
    SELECT due.seq, text, label, answer_version, feature FROM due
    JOIN examples USING (feed, seq) JOIN events USING (arrival) LEFT JOIN features USING (arrival)
    WHERE due.feed = ? ORDER BY due.seq LIMIT ?"""
_SINCE = """
    SELECT number, pulse_examples.seq, text, pulse_examples.label, version, feature FROM pulse_examples
    JOIN examples USING (feed, seq) JOIN events USING (arrival)
    WHERE pulse_examples.feed = ? ORDER BY number, place"""


def _lesson(row: Sequence) -> Lesson:
    seq, text, label, version, feature = row
    return Lesson(seq=seq, text=text, label=label, version=version, feature=feature)


def _last_number(unit: Unit) -> int:
    row = unit.db.execute("SELECT number FROM pulses WHERE feed = ?", (unit.feed,)).fetchone()
    return row[0] if row else 0


def _write_pulse(unit: Unit, number: int, sealed: bytes) -> None:
    unit.db.execute("INSERT OR REPLACE INTO pulses VALUES (?, ?, ?)", (unit.feed, number, sealed))


def _learn(unit: Unit, number: int, lessons: Sequence[Lesson]) -> None:
    """These are due no more, but for those whose label was corrected meanwhile."""
    unit.db.executemany(
        "INSERT INTO pulse_examples VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(unit.feed, number, place, one.seq, one.label, one.version, one.feature) for place, one in enumerate(lessons)],
    )
    unit.db.executemany(
        "INSERT OR IGNORE INTO learned_unanswered (feed, seq, number) VALUES (?, ?, ?)",
        [(unit.feed, one.seq, number) for one in lessons if one.version is None],
    )
    query = (
        "SELECT examples.seq, arrival, label FROM examples JOIN events USING (arrival) "
        f"WHERE examples.feed = ? AND examples.seq IN {CHOSEN}"
    )
    taught = {one.seq: one.label for one in lessons}
    rows = unit.db.execute(query, (unit.feed, numbers(taught))).fetchall()
    done = [(seq, arrival) for seq, arrival, label in rows if label == taught[seq]]
    no_more_due(unit, [seq for seq, _ in done])
    drop_features(unit, [arrival for _, arrival in done])
