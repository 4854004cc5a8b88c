"""The corrections' face on SQLite, and what the intake writes for it (see `driftline.buffer.corrections`)."""

import json
import sqlite3
from collections.abc import Iterable, Sequence

from driftline.buffer.batch import Corrected
from driftline.buffer.corrections import Corrections, NamedCorrection
from driftline.buffer.sqlite.unit import Work
from driftline.buffer.states import from_micros
from driftline.records import Correction


def write(db: sqlite3.Connection, feed: int, corrected: Sequence[Corrected], now: int) -> None:
    """Note them, and that only later versions learn the right labels. A fresh one has all its attempts again."""
    if not corrected:
        return
    newest = newest_version(db, feed)
    db.executemany(
        "INSERT INTO corrections (feed, seq, was, becomes, labeller, corrected_at, after_version) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(feed, one.entry.seq, one.was, one.becomes, one.labeller, now, newest) for one in corrected],
    )
    db.executemany(
        "UPDATE events SET relearn_after = ?, attempts = 0 WHERE seq = ?",
        [(newest, one.entry.seq) for one in corrected],
    )


def newest_version(db: sqlite3.Connection, feed: int) -> int:
    """The greatest version number that a cycle of the feed was taken for; 0 if none. One step in an index."""
    (newest,) = db.execute("SELECT COALESCE(MAX(version), 0) FROM cycles WHERE feed = ?", (feed,)).fetchone()
    return int(newest)


def relearn_after(db: sqlite3.Connection, seqs: Iterable[int]) -> dict[int, int]:
    """Of those of the examples that were corrected: only versions beyond this one learned the right label."""
    rows = db.execute(
        "SELECT seq, relearn_after FROM events WHERE seq IN (SELECT value FROM json_each(?)) "
        "AND relearn_after IS NOT NULL",
        (json.dumps(list(seqs)),),
    )
    return dict(rows.fetchall())


class SqliteCorrections(Corrections):
    """See `Corrections`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def labels(self, feed: str, seqs: Iterable[int]) -> dict[int, str]:
        query = (
            "SELECT seq, label FROM events WHERE seq IN (SELECT value FROM json_each(?)) AND relearn_after IS NOT NULL"
        )
        with self._work.reading(feed) as unit:
            return dict(unit.db.execute(query, (json.dumps(list(seqs)),)).fetchall())

    def newest(self, feed: str, last: int | None = None) -> list[NamedCorrection]:
        with self._work.reading(feed) as unit:
            rows = unit.db.execute(_NEWEST, (unit.feed, -1 if last is None else last)).fetchall()
            learners = _learners(unit.db, unit.feed, {row[0] for row in rows})
        return [_named(row, learners.get(row[0], ())) for row in rows]


_NEWEST = """
    SELECT seq, event_id, was, becomes, labeller, corrected_at, after_version, COALESCE((
        SELECT MAX(after_version) FROM corrections AS b WHERE b.seq = corrections.seq AND b.id < corrections.id), 0)
    FROM corrections JOIN events USING (seq) WHERE corrections.feed = ? AND was <> becomes  -- equal: merged since
    ORDER BY corrections.id DESC LIMIT ?"""


def _named(row: tuple, learners: Sequence[int]) -> NamedCorrection:
    seq, event_id, was, becomes, labeller, corrected_at, after_version, since = row
    return NamedCorrection(
        correction=Correction(
            seq=seq,
            event_id=event_id,
            was=was,
            becomes=becomes,
            labeller=labeller,
            corrected_at=from_micros(corrected_at),
            after_version=after_version,
        ),
        learned_by=tuple(version for version in learners if since < version <= after_version),
    )


def _learners(db: sqlite3.Connection, feed: int, wanted: set[int]) -> dict[int, list[int]]:
    """Example → the versions whose plans hold it to train on, rising."""
    found: dict[int, list[int]] = {}
    rows = db.execute(
        "SELECT version, plan FROM cycles WHERE feed = ? AND outcome IS NOT 'abandoned' AND newest >= ? "
        "ORDER BY version",
        (feed, min(wanted, default=0)),
    )
    for version, plan in rows:
        seqs = json.loads(plan)
        for seq in wanted.intersection(seqs["fresh"] + seqs["replayed"]):
            found.setdefault(seq, []).append(version)
    return found
