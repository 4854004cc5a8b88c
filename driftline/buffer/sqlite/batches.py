"""One batch of records inside a write transaction: what is known of their ids, joined, and written back."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from driftline.buffer.batch import Answer, Batch, Entry, WaitingLabel, WaitingPrediction
from driftline.buffer.holdouts import HoldoutSplit
from driftline.buffer.intake import IntakeCounts
from driftline.buffer.joining import Joining
from driftline.buffer.sqlite import corrections, segments
from driftline.buffer.sqlite.examples import become_due
from driftline.buffer.sqlite.fast import judge_late_answers, keep_features
from driftline.buffer.sqlite.letters import put, resolve
from driftline.buffer.sqlite.unit import Unit
from driftline.buffer.states import PENDING
from driftline.records import DeadLetter, Position, Record
from driftline.topics import Partition

_IDS_PER_QUERY = 900


class Batches:
    """The records of one `append`, a batch for each feed, in the caller's write transaction. `now`: microseconds."""

    def __init__(self, units: Mapping[str, Unit], split: HoldoutSplit, now: int) -> None:
        self._units = units
        self._split = split
        self._now = now

    def take(self, records: Sequence[Record], retried: bool) -> list[Joining]:
        """Apply the records, in order, and write what comes of them."""
        joinings = {feed: self._joining(self._units[feed], own, retried) for feed, own in _by_feed(records).items()}
        for record in records:
            joinings[record.feed].take(record)
        for feed, joining in joinings.items():
            self._write(self._units[feed], joining)
        return list(joinings.values())

    def resolve(self, records: Sequence[Record], letters: Sequence[int]) -> list[Record]:
        """The records whose letters are still marked for retry; those letters count as if they had never been."""
        if len(records) != len(letters):
            raise ValueError(f"{len(records)} records for {len(letters)} retried letters")
        return [
            record
            for record, letter in zip(records, letters, strict=True)
            if resolve(self._units[record.feed], letter, self._now)
        ]

    def _joining(self, unit: Unit, records: Sequence[Record], retried: bool) -> Joining:
        batch = load(unit, records)
        batch.retried = retried
        (first,) = unit.db.execute("SELECT next_seq FROM feeds WHERE id = ?", (unit.feed,)).fetchone()
        return Joining(unit.rules, self._split, batch, self._now, itertools.count(first))

    def _write(self, unit: Unit, joining: Joining) -> None:
        batch = joining.batch
        _insert_events(unit, batch.new, self._now)
        _update_events(unit, batch.changed.values())
        _write_examples(unit, batch)
        become_due(unit, [entry.seq or 0 for entry in batch.due])
        keep_features(unit, itertools.chain(batch.new, batch.changed.values()))
        judge_late_answers(unit, batch.changed.values())
        corrections.write(unit, batch.corrected, self._now)
        _write_labels(unit, batch, self._now)
        _write_predictions(unit, batch, self._now)
        put(unit, batch.letters, self._now)
        segments.extend(unit, [(entry.seq or 0, entry.holdout) for entry in batch.joined])
        for name, n in joining.counts.items():  # letters are counted where they are written
            unit.tally.add(unit.feed, name, n)


def unseen(records: Sequence[Record], stored: Mapping[Partition, int]) -> list[Record]:
    """Without the records that stand before the stored position of their partition."""
    limits = {(partition.topic, partition.partition): offset for partition, offset in stored.items()}
    if not limits:
        return list(records)
    return [record for record in records if not _seen(record.position, limits)]


def _seen(position: Position | None, limits: Mapping[tuple[str, int], int]) -> bool:
    return position is not None and position.offset < limits.get((position.topic, position.partition), 0)


def load(unit: Unit, records: Sequence[Record]) -> Batch:
    """What the buffer knows of these records' ids. Three look-ups by index, however big the tables are."""
    batch = Batch()
    ids = {record.event_id for record in records if not isinstance(record, DeadLetter)}
    for row in _rows(unit, _EVENTS, ids):
        entry = _entry(row)
        batch.entries[entry.event_id] = entry
    unknown = ids - batch.entries.keys()
    for event_id, row, label, labelled_at, *place, value, labeller, trusted in _rows(unit, _LABELS, unknown):
        topic, partition, offset = place
        position = Position(topic=topic, partition=partition, offset=offset)
        batch.labels[event_id] = WaitingLabel(label, labelled_at, position, value, row, labeller, bool(trusted))
    for event_id, row, *answer in _rows(unit, _PREDICTIONS, unknown):
        batch.predictions[event_id] = WaitingPrediction(Answer(*answer), row)
    return batch


_EVENTS = f"""
    SELECT event_id, text, COALESCE(state, {PENDING}), events.arrival, events.seq, label, labelled_at, joined_at,
           holdout, label_trusted, answer_version, answer_label, answer_partition, answer_offset
    FROM events LEFT JOIN examples ON examples.feed = events.feed AND examples.seq = events.seq
    WHERE events.feed = ? AND event_id IN"""
_LABELS = """
    SELECT event_id, id, label, labelled_at, topic, "partition", "offset", value, labeller, trusted
    FROM labels WHERE feed = ? AND event_id IN"""
_PREDICTIONS = """
    SELECT event_id, id, label, version, "partition", "offset", feature
    FROM predictions WHERE feed = ? AND event_id IN"""


def _rows(unit: Unit, query: str, ids: Iterable[str]) -> Iterator[tuple]:
    rest = iter(ids)
    while chunk := list(itertools.islice(rest, _IDS_PER_QUERY)):
        yield from unit.db.execute(f"{query} ({','.join('?' * len(chunk))})", (unit.feed, *chunk))


def _entry(row: tuple) -> Entry:
    version, label, partition, offset = row[10:]
    entry = Entry(*row[:9])
    entry.trusted = bool(row[9])
    if version is not None:
        entry.answer = Answer(label, version, partition, offset, arrived=False)
    return entry


def _by_feed(records: Sequence[Record]) -> dict[str, list[Record]]:
    feeds: dict[str, list[Record]] = {}
    for record in records:
        feeds.setdefault(record.feed, []).append(record)
    return feeds


def _insert_events(unit: Unit, entries: Sequence[Entry], now: int) -> None:
    (first,) = unit.db.execute("SELECT COALESCE(MAX(arrival), 0) + 1 FROM events").fetchone()
    for entry, arrival in zip(entries, itertools.count(first), strict=False):
        entry.arrival = arrival
    unit.db.executemany(
        "INSERT INTO events (arrival, feed, received_at, event_id, occurred_at, source, text, holdout, "
        "seq, labelled_at, label, label_trusted, answer_version, answer_label, answer_partition, answer_offset) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(*_arrived(unit, entry, now), *_found(entry)) for entry in entries],
    )


def _arrived(unit: Unit, entry: Entry, now: int) -> tuple:
    """The columns that the event fills."""
    place = (entry.arrival, unit.feed, now)
    return (*place, entry.event_id, entry.occurred_at, entry.source, entry.text, entry.holdout)


def _update_events(unit: Unit, entries: Iterable[Entry]) -> None:
    unit.db.executemany(
        "UPDATE events SET seq = ?, labelled_at = ?, label = ?, label_trusted = ?, "
        "answer_version = ?, answer_label = ?, answer_partition = ?, answer_offset = ? WHERE arrival = ?",
        [(*_found(entry), entry.arrival) for entry in entries],
    )


def _found(entry: Entry) -> tuple:
    """The columns that labels and predictions fill."""
    answer = entry.answer
    served = (None,) * 4 if answer is None else (answer.version, answer.label, answer.partition, answer.offset)
    return (entry.seq, entry.labelled_at, entry.label, entry.trusted, *served)


def _write_examples(unit: Unit, batch: Batch) -> None:
    """New ones, and those that changed their state."""
    rows = [
        (unit.feed, entry.seq, entry.arrival, entry.joined_at, entry.state)
        for entry in itertools.chain(batch.joined, batch.changed.values())
        if entry.seq is not None
    ]
    unit.db.executemany(
        "INSERT INTO examples (feed, seq, arrival, joined_at, state) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET state = excluded.state WHERE state <> excluded.state",
        rows,
    )
    if batch.joined:
        following = max(entry.seq or 0 for entry in batch.joined) + 1
        unit.db.execute("UPDATE feeds SET next_seq = ? WHERE id = ?", (following, unit.feed))


def _write_labels(unit: Unit, batch: Batch, now: int) -> None:
    unit.db.executemany("DELETE FROM labels WHERE id = ?", [(row,) for row in batch.used_labels])
    unit.db.executemany(
        'INSERT INTO labels (feed, event_id, received_at, topic, "partition", "offset", '
        "label, labelled_at, value, labeller, trusted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (unit.feed, event_id, now, at.topic, at.partition, at.offset, *_waiting(waiting))
            for event_id, waiting in batch.labels.items()
            if waiting.row is None
            for at in (waiting.position,)
        ],
    )


def _waiting(label: WaitingLabel) -> tuple:
    return label.label, label.labelled_at, label.value, label.labeller, label.trusted


def _write_predictions(unit: Unit, batch: Batch, now: int) -> None:
    unit.db.executemany("DELETE FROM predictions WHERE id = ?", [(row,) for row in batch.used_predictions])
    unit.db.executemany(
        'INSERT INTO predictions (feed, event_id, received_at, label, version, "partition", "offset", feature) '
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (unit.feed, event_id, now, answer.label, answer.version, answer.partition, answer.offset, answer.feature)
            for event_id, waiting in batch.predictions.items()
            if waiting.row is None
            for answer in (waiting.answer,)
        ],
    )


def summary(offered: int, taken: int, joinings: Iterable[Joining]) -> IntakeCounts:
    """What an `append` of so many records did."""
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
