"""One batch of records inside a write transaction: what is known of their ids, joined, and written back."""

import itertools
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from driftline.buffer.batch import Answer, Batch, Entry, WaitingLabel, WaitingPrediction
from driftline.buffer.holdouts import HoldoutSplit
from driftline.buffer.intake import IntakeCounts
from driftline.buffer.joining import Joining
from driftline.buffer.sqlite import corrections, outbox, segments
from driftline.buffer.sqlite import positions as places
from driftline.buffer.sqlite.counters import Tally
from driftline.buffer.sqlite.unit import Work
from driftline.records import DeadLetter, Position, Record
from driftline.topics import Partition

_IDS_PER_QUERY = 900


class Batches:
    """The records of one `append`, a batch for each feed, in the caller's write transaction. `now`: microseconds."""

    def __init__(self, db: sqlite3.Connection, work: Work, split: HoldoutSplit, now: int, tally: Tally) -> None:
        self._db = db
        self._work = work
        self._split = split
        self._now = now
        self._tally = tally

    def take(
        self,
        records: Sequence[Record],
        positions: Mapping[Partition, int],
        owner: Mapping[str, int],
        retried: Sequence[int],
    ) -> IntakeCounts:
        """Apply the records and move the positions. `owner`: topic → number of the feed it is read for."""
        stored = places.read(self._db, owner) if positions else {}
        new = self._retried(records, retried) if retried else unseen(records, stored, positions)
        joinings = self._join(new, bool(retried))
        for feed, joining in joinings.items():
            self._write(feed, joining)
        places.write(self._db, positions, owner)
        return _summary(len(records), len(new), joinings.values())

    def _retried(self, records: Sequence[Record], retried: Sequence[int]) -> list[Record]:
        """The records whose letters are still marked; those letters count as if they had never been."""
        if len(records) != len(retried):
            raise ValueError(f"{len(records)} records for {len(retried)} retried letters")
        return [
            record
            for record, letter in zip(records, retried, strict=True)
            if outbox.resolve(self._db, letter, self._tally)
        ]

    def _join(self, records: Sequence[Record], retried: bool) -> dict[str, Joining]:
        numbers = _Numbers(self._db)
        joinings: dict[str, Joining] = {}
        for feed, own in _by_feed(records).items():
            number, rules = self._work.number(feed), self._work.rules[feed]
            batch = load(self._db, number, own)
            batch.retried = retried
            joinings[feed] = Joining(rules, self._split, batch, self._now, numbers)
        for record in records:
            joinings[record.feed].take(record)
        numbers.write()
        return joinings

    def _write(self, feed: str, joining: Joining) -> None:
        number, rules = self._work.number(feed), self._work.rules[feed]
        batch = joining.batch
        _insert_events(self._db, number, batch.new, self._now)
        _update_events(self._db, batch.changed.values())
        corrections.write(self._db, number, batch.corrected, self._now)
        _write_labels(self._db, number, batch, self._now)
        _write_predictions(self._db, number, batch, self._now)
        outbox.put(self._db, number, batch.letters, self._now, self._tally)
        joined = [(entry.seq or 0, entry.holdout) for entry in batch.joined]
        segments.extend(self._db, number, rules, joined)
        for name, n in joining.counts.items():  # letters are counted where they are written
            self._tally.add(number, name, n)


class _Numbers(Iterator[int]):
    """The next example numbers; `write` stores where the next batch goes on."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        (self._first,) = db.execute("SELECT value FROM settings WHERE name = 'next_seq'").fetchone()
        self._next = self._first

    def __next__(self) -> int:
        self._next += 1
        return self._next - 1

    def write(self) -> None:
        if self._next != self._first:
            self._db.execute("UPDATE settings SET value = ? WHERE name = 'next_seq'", (self._next,))


def unseen(records: Sequence[Record], stored: Mapping[Partition, int], read_to: Collection[Partition]) -> list[Record]:
    """Without the records that stand before the stored position of their partition, where that is read on now."""
    limits = {(one.topic, one.partition): stored[one] for one in read_to if one in stored}
    if not limits:
        return list(records)
    return [record for record in records if not _seen(record.position, limits)]


def _seen(position: Position | None, limits: Mapping[tuple[str, int], int]) -> bool:
    return position is not None and position.offset < limits.get((position.topic, position.partition), 0)


def load(db: sqlite3.Connection, feed: int, records: Sequence[Record]) -> Batch:
    """What the buffer knows of these records' ids. Three look-ups by index, however big the tables are."""
    batch = Batch()
    ids = {record.event_id for record in records if not isinstance(record, DeadLetter)}
    for row in _rows(db, _EVENTS, feed, ids):
        entry = _entry(row)
        batch.entries[entry.event_id] = entry
    unknown = ids - batch.entries.keys()
    for event_id, row, label, labelled_at, *place, value, labeller, trusted in _rows(db, _LABELS, feed, unknown):
        topic, partition, offset = place
        position = Position(topic=topic, partition=partition, offset=offset)
        batch.labels[event_id] = WaitingLabel(label, labelled_at, position, value, row, labeller, bool(trusted))
    for event_id, row, label, version, partition, offset in _rows(db, _PREDICTIONS, feed, unknown):
        batch.predictions[event_id] = WaitingPrediction(Answer(label, version, partition, offset), row)
    return batch


_EVENTS = """
    SELECT event_id, text, state, arrival, seq, label, labelled_at, joined_at, holdout, label_trusted,
           answer_version, answer_label, answer_partition, answer_offset
    FROM events WHERE feed = ? AND event_id IN"""
_LABELS = """
    SELECT event_id, id, label, labelled_at, topic, "partition", "offset", value, labeller, trusted
    FROM labels WHERE feed = ? AND event_id IN"""
_PREDICTIONS = """
    SELECT event_id, id, label, version, "partition", "offset"
    FROM predictions WHERE feed = ? AND event_id IN"""


def _rows(db: sqlite3.Connection, query: str, feed: int, ids: Iterable[str]) -> Iterator[tuple]:
    rest = iter(ids)
    while chunk := list(itertools.islice(rest, _IDS_PER_QUERY)):
        yield from db.execute(f"{query} ({','.join('?' * len(chunk))})", (feed, *chunk))


def _entry(row: tuple) -> Entry:
    version, label, partition, offset = row[10:]
    entry = Entry(*row[:9])
    entry.trusted = bool(row[9])
    if version is not None:
        entry.answer = Answer(label, version, partition, offset)
    return entry


def _by_feed(records: Sequence[Record]) -> dict[str, list[Record]]:
    feeds: dict[str, list[Record]] = {}
    for record in records:
        feeds.setdefault(record.feed, []).append(record)
    return feeds


def _insert_events(db: sqlite3.Connection, feed: int, entries: Sequence[Entry], now: int) -> None:
    db.executemany(
        "INSERT INTO events (feed, received_at, event_id, occurred_at, source, text, holdout, "
        "state, seq, joined_at, labelled_at, label, label_trusted, "
        "answer_version, answer_label, answer_partition, answer_offset) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (feed, now, entry.event_id, entry.occurred_at, entry.source, entry.text, entry.holdout, *_joined(entry))
            for entry in entries
        ],
    )


def _update_events(db: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    db.executemany(
        "UPDATE events SET state = ?, seq = ?, joined_at = ?, labelled_at = ?, label = ?, label_trusted = ?, "
        "answer_version = ?, answer_label = ?, answer_partition = ?, answer_offset = ? WHERE arrival = ?",
        [(*_joined(entry), entry.arrival) for entry in entries],
    )


def _joined(entry: Entry) -> tuple:
    """The columns that labels and predictions fill."""
    answer = entry.answer
    served = (None,) * 4 if answer is None else (answer.version, answer.label, answer.partition, answer.offset)
    return (entry.state, entry.seq, entry.joined_at, entry.labelled_at, entry.label, entry.trusted, *served)


def _write_labels(db: sqlite3.Connection, feed: int, batch: Batch, now: int) -> None:
    db.executemany("DELETE FROM labels WHERE id = ?", [(row,) for row in batch.used_labels])
    db.executemany(
        'INSERT INTO labels (feed, event_id, received_at, topic, "partition", "offset", '
        "label, labelled_at, value, labeller, trusted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (feed, event_id, now, at.topic, at.partition, at.offset, *_waiting(waiting))
            for event_id, waiting in batch.labels.items()
            if waiting.row is None
            for at in (waiting.position,)
        ],
    )


def _waiting(label: WaitingLabel) -> tuple:
    return label.label, label.labelled_at, label.value, label.labeller, label.trusted


def _write_predictions(db: sqlite3.Connection, feed: int, batch: Batch, now: int) -> None:
    db.executemany("DELETE FROM predictions WHERE id = ?", [(row,) for row in batch.used_predictions])
    db.executemany(
        'INSERT INTO predictions (feed, event_id, label, version, "partition", "offset", received_at) '
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (feed, event_id, answer.label, answer.version, answer.partition, answer.offset, now)
            for event_id, waiting in batch.predictions.items()
            if waiting.row is None
            for answer in (waiting.answer,)
        ],
    )


def _summary(offered: int, taken: int, joinings: Iterable[Joining]) -> IntakeCounts:
    done = list(joinings)

    def total(name: str) -> int:
        return sum(joining.counts.get(name, 0) for joining in done)

    return IntakeCounts(
        records=taken,
        skipped=offered - taken,
        events=total("event_records"),
        examples=total("examples"),
        duplicates=total("duplicates"),
        dead_letters=sum(len(joining.batch.letters) for joining in done),
    )
