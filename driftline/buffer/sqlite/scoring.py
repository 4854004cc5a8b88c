"""Every example with the answer it is scored by, and the cache of versions' answers on hold-outs.

Keeps invariant 4 (a prediction is scored as served): the first prediction in topic order counts, whatever its delay,
but only if its version, or an ancestor of it, had not learned the example, fresh or replayed.
"""

import json
import sqlite3
from collections.abc import Mapping

from driftline.buffer.exams import Scored
from driftline.buffer.lineage import lineage
from driftline.buffer.sqlite.cycles import parents
from driftline.buffer.states import WITHDRAWN, from_micros


def scored(db: sqlite3.Connection, feed: int, last: int | None) -> list[Scored]:
    """The feed's last examples (None: all) in the order their events arrived, without withdrawn ones. For reports."""
    rows = db.execute(
        "SELECT seq, event_id, source, label, answer_label, answer_version, holdout, occurred_at FROM events "
        f"WHERE feed = ? AND seq IS NOT NULL AND state <> {WITHDRAWN} ORDER BY arrival DESC LIMIT ?",
        (feed, -1 if last is None else last),
    ).fetchall()
    knowledge = Knowledge(db, feed, {row[0]: row[5] for row in rows if row[5]})
    return [_scored(row, knowledge) for row in rows][::-1]


def _scored(row: tuple, knowledge: "Knowledge") -> Scored:
    seq, event_id, source, label, predicted, version, holdout, occurred_at = row
    counts = version is not None and not knowledge.knew(version, seq)
    return Scored(
        seq=seq,
        event_id=event_id,
        source=source,
        label=label,
        predicted=predicted if counts else None,
        version=version if counts else None,
        holdout=holdout is not None,
        occurred_at=from_micros(occurred_at),
        answered=counts,
    )


class Knowledge:
    """Which version had learned which of the `wanted` examples, itself or by an ancestor, from the cycles' plans.

    `wanted`: example number → the version that answered it, which is the one `knew` is to be asked about. Ancestors
    have smaller numbers, so only plans of versions up to the greatest one matter, and of these only plans that reach up
    to the smallest example number.
    """

    def __init__(self, db: sqlite3.Connection, feed: int, wanted: Mapping[int, int]) -> None:
        self._parents = parents(db, feed)
        self._lineages: dict[int, frozenset[int]] = {}
        self._learners: dict[int, list[int]] = {}
        rows = db.execute(
            "SELECT version, plan FROM cycles WHERE feed = ? AND outcome IS NOT 'abandoned' "
            "AND version <= ? AND newest >= ? ORDER BY version",
            (feed, max(wanted.values(), default=0), min(wanted, default=0)),
        )
        for version, plan in rows:
            seqs = json.loads(plan)
            for seq in wanted.keys() & (seqs["fresh"] + seqs["replayed"]):
                self._learners.setdefault(seq, []).append(version)

    def knew(self, version: int, seq: int) -> bool:
        """Whether the version or an ancestor learned the example, fresh or replayed."""
        learners = self._learners.get(seq, ())
        if not learners or learners[0] > version:  # the common case: it was answered before anything learned it
            return False
        return not self._lineage(version).isdisjoint(learners)

    def _lineage(self, version: int) -> frozenset[int]:
        if version not in self._lineages:
            self._lineages[version] = frozenset(lineage(self._parents, version))
        return self._lineages[version]


def cached(db: sqlite3.Connection, feed: int, version: int) -> dict[int, str | None]:
    """The version's cached answers by example number."""
    query = "SELECT seq, label FROM cached_predictions WHERE feed = ? AND version = ?"
    return dict(db.execute(query, (feed, version)).fetchall())


def cache(db: sqlite3.Connection, feed: int, version: int, predictions: Mapping[int, str | None]) -> None:
    """Add answers of a version; they never change, so writing them again is harmless."""
    db.executemany(
        "INSERT OR REPLACE INTO cached_predictions VALUES (?, ?, ?, ?)",
        [(feed, version, seq, label) for seq, label in predictions.items()],
    )


def forget(db: sqlite3.Connection, feed: int, keep: set[int]) -> None:
    """Drop the cached answers of all other versions."""
    db.execute(
        "DELETE FROM cached_predictions WHERE feed = ? AND version NOT IN (SELECT value FROM json_each(?))",
        (feed, json.dumps(sorted(keep))),
    )
