"""Segments of a feed's examples, the hold-outs kept of each, and the accuracy matrix measured when each was closed.

Keeps its half of invariant 10: what the gate compares on stays the same for a closed segment, except that neighbours
are merged in pairs once more than `max_segments` are closed. Merging is accounted: a merged segment says of how many it
consists and how many hold-outs were seen; its columns are the sums of both, its row is the later one's, and again the
`segment_holdouts` hold-outs with the smallest keyed hashes are kept.

Ordering: segments follow the examples' numbers and close in that order. Atomicity: filling happens in the intake's
transaction, closing and merging in one of their own. Errors: BufferStoreError for closing out of order.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from driftline.buffer.exams import Cell, Segment
from driftline.buffer.merging import merge_columns, pairs
from driftline.buffer.sqlite.unit import Unit
from driftline.buffer.states import HOLDOUT, to_micros
from driftline.errors import BufferStoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A matrix row: `version` on each segment's hold-outs, as (correct, n), at the moment segment `index` closed."""

    index: int
    row: Mapping[int, tuple[int, int]]
    version: int
    at: datetime


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    first_seq: int
    last_seq: int
    examples: int
    holdouts: int
    merged: int
    closed: int
    version: int | None
    closed_at: int | None
    measured: str | None

    @property
    def cells(self) -> list[Cell]:
        return [None if cell is None else (cell[0], cell[1]) for cell in json.loads(self.measured or "[]")]


_ROW = "id, first_seq, last_seq, examples, holdouts, merged, closed, version, closed_at, measured"


def _rows(unit: Unit) -> list[_Row]:
    query = f"SELECT {_ROW} FROM segments WHERE feed = ? ORDER BY id"
    return [_Row(*row) for row in unit.db.execute(query, (unit.feed,))]


def extend(unit: Unit, joined: Sequence[tuple[int, int | None]]) -> None:
    """Put new examples, as (number, hold-out hash or None) by rising number, into the open segment and further ones."""
    db, rules = unit.db, unit.rules
    while joined:
        segment, examples = _open_segment(unit, joined[0][0])
        room = rules.segment_examples - examples
        part, joined = joined[:room], joined[room:]
        held_out = [(segment, hashed, seq) for seq, hashed in part if hashed is not None]
        db.execute(
            "UPDATE segments SET last_seq = ?, examples = examples + ?, holdouts = holdouts + ? WHERE id = ?",
            (part[-1][0], len(part), len(held_out), segment),
        )
        if held_out:
            db.executemany("INSERT INTO kept_holdouts VALUES (?, ?, ?)", held_out)
            _trim(db, segment, rules.segment_holdouts)


def _open_segment(unit: Unit, first_seq: int) -> tuple[int, int]:
    """The number of the segment that takes the next example, and how many it has."""
    query = "SELECT id, examples, closed FROM segments WHERE feed = ? ORDER BY id DESC LIMIT 1"
    last = unit.db.execute(query, (unit.feed,)).fetchone()
    if last is not None and not last[2] and last[1] < unit.rules.segment_examples:
        return last[0], last[1]
    made = unit.db.execute(
        "INSERT INTO segments (feed, first_seq, last_seq, examples, holdouts) VALUES (?, ?, ?, 0, 0)",
        (unit.feed, first_seq, first_seq),
    )
    return int(made.lastrowid or 0), 0


def _trim(db: sqlite3.Connection, segment: int, limit: int) -> None:
    """Keep the hold-outs with the smallest hashes: a choice nobody can aim at, and the same in any order of arrival."""
    db.execute(
        "DELETE FROM kept_holdouts WHERE segment = ?1 AND (hash, seq) > "
        "(SELECT hash, seq FROM kept_holdouts WHERE segment = ?1 ORDER BY hash, seq LIMIT 1 OFFSET ?2)",
        (segment, limit - 1),
    )


def read(unit: Unit) -> list[Segment]:
    """All segments in order."""
    kept: dict[int, list[int]] = {}
    for segment, seq in unit.db.execute(  # CROSS JOIN: in this order, else SQLite goes through all examples
        "SELECT segment, examples.seq FROM segments CROSS JOIN kept_holdouts ON segment = segments.id "
        "CROSS JOIN examples ON examples.feed = segments.feed AND examples.seq = kept_holdouts.seq "
        f"WHERE segments.feed = ? AND +state = {HOLDOUT}",
        (unit.feed,),
    ):
        kept.setdefault(segment, []).append(seq)
    return [
        Segment(
            index=index,
            first_seq=row.first_seq,
            last_seq=row.last_seq,
            examples=row.examples,
            holdouts=tuple(sorted(kept.get(row.id, ()))),
            closed=bool(row.closed),
            holdouts_seen=row.holdouts,
            merged=row.merged,
        )
        for index, row in enumerate(_rows(unit))
    ]


def close(unit: Unit, measured: Measured) -> None:
    """Close the first open segment with its matrix row, then merge if there are too many."""
    rows = _rows(unit)
    closed = sum(segment.closed for segment in rows)
    if measured.index != closed or measured.index >= len(rows):
        raise BufferStoreError(
            f"feed {unit.rules.feed!r}: segment {measured.index} cannot be closed, the next one is {closed} of "
            f"{len(rows)}: read the segments again"
        )
    cells = json.dumps([measured.row.get(column) for column in range(closed + 1)])
    unit.db.execute(
        "UPDATE segments SET closed = 1, version = ?, closed_at = ?, measured = ? WHERE id = ?",
        (measured.version, to_micros(measured.at), cells, rows[closed].id),
    )
    if closed + 1 > unit.rules.max_segments:
        _merge(unit, _rows(unit)[: closed + 1])
        unit.tally.add(unit.feed, "segments_merged", closed // 2)


def _merge(unit: Unit, rows: Sequence[_Row]) -> None:
    """Merge neighbours in pairs, all but the newest."""
    db, groups = unit.db, [*pairs(len(rows) - 1), [len(rows) - 1]]
    for group in groups:
        first, last = rows[group[0]], rows[group[-1]]
        members = [rows[index] for index in group]
        db.execute(
            "UPDATE segments SET last_seq = ?, examples = ?, holdouts = ?, merged = ?, version = ?, closed_at = ?, "
            "measured = ? WHERE id = ?",
            (
                last.last_seq,
                sum(row.examples for row in members),
                sum(row.holdouts for row in members),
                sum(row.merged for row in members),
                last.version,
                last.closed_at,
                json.dumps(merge_columns(last.cells, groups)),
                first.id,
            ),
        )
        if last.id != first.id:
            db.execute("UPDATE kept_holdouts SET segment = ? WHERE segment = ?", (first.id, last.id))
            db.execute("DELETE FROM segments WHERE id = ?", (last.id,))
            _trim(db, first.id, unit.rules.segment_holdouts)


def matrix(unit: Unit) -> list[list[Cell]]:
    """a[i][j] as (correct, n), square, None for j > i."""
    rows = [row.cells for row in _rows(unit) if row.closed]
    return [cells + [None] * (len(rows) - len(cells)) for cells in rows]
