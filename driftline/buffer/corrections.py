"""Labels that replaced another one of the same example: written by the intake, named to whoever asks.

Keeps the rest of invariant 1 for them: an example whose label was corrected is learned again, and by that alone it does
not become learned that a version learned its wrong label. `relearn_after` is the newest version number that a cycle had
been taken for by then, so whatever plan holds the example under a greater number was trained with the right label.

Atomicity: written in the intake's transaction, after the examples themselves.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from driftline.buffer.batch import Corrected
from driftline.buffer.states import from_micros
from driftline.buffer.store import Store
from driftline.records import Correction


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCorrection:
    """A correction, and the versions that had learned the example, fresh or replayed, with the wrong label. The newest
    of them may have been in training when the label was corrected, and have learned the right one."""

    correction: Correction
    learned_by: tuple[int, ...]


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


class CorrectionBook:
    """`Buffer.corrections`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def labels(self, seqs: Iterable[int]) -> dict[int, str]:
        """The labels, as they are now, of those of these examples that were corrected."""
        query = (
            "SELECT seq, label FROM events WHERE seq IN (SELECT value FROM json_each(?)) AND relearn_after IS NOT NULL"
        )
        with self._store.reading() as db:
            return dict(db.execute(query, (json.dumps(list(seqs)),)).fetchall())

    def newest(self, feed: str, last: int | None = None) -> list[NamedCorrection]:
        """The feed's newest corrections (None: all), newest first, with the versions that learned the wrong label."""
        with self._store.reading() as db:
            number = self._store.feed_id(feed)
            rows = db.execute(_NEWEST, (number, -1 if last is None else last)).fetchall()
            learners = _learners(db, number, {row[0] for row in rows})
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
