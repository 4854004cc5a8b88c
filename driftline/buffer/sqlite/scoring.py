"""Every example with the answer it is scored by, and the cache of versions' answers on hold-outs.

Keeps invariant 4 (a prediction is scored as served): the first prediction in topic order counts, whatever its delay,
but only if neither its version, nor an ancestor of it, had learned the example, fresh or replayed, nor its pulse.
"""

from collections.abc import Collection, Mapping

from driftline.buffer.exams import Scored
from driftline.buffer.lineage import down
from driftline.buffer.sqlite import plans
from driftline.buffer.sqlite.examples import CHOSEN, numbers
from driftline.buffer.sqlite.standing import Parents
from driftline.buffer.sqlite.unit import Unit
from driftline.buffer.states import WITHDRAWN, from_micros


def scored(unit: Unit, last: int | None) -> list[Scored]:
    """The feed's last examples (None: all) in the order their events arrived, without withdrawn ones. For reports."""
    rows = unit.db.execute(
        "SELECT seq, event_id, source, label, answer_label, answer_version, holdout, occurred_at, knew "
        "FROM events JOIN examples USING (feed, seq) "
        "LEFT JOIN learned_unanswered USING (feed, seq) "
        f"WHERE events.feed = ? AND events.seq IS NOT NULL AND +state <> {WITHDRAWN} "
        "ORDER BY events.arrival DESC LIMIT ?",
        (unit.feed, -1 if last is None else last),
    ).fetchall()
    knowledge = Knowledge(unit, {row[0]: row[5] for row in rows if row[5]})
    return [_scored(row, knowledge) for row in rows][::-1]


def _scored(row: tuple, knowledge: "Knowledge") -> Scored:
    seq, event_id, source, label, predicted, version, holdout, occurred_at, pulse_knew = row
    counts = version is not None and not pulse_knew and not knowledge.knew(version, seq)
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
    have smaller numbers, so only plans of versions up to that one are read: in the common case, where it was answered
    before anything learned it, none.
    """

    def __init__(self, unit: Unit, wanted: Mapping[int, int]) -> None:
        self._parent = Parents(unit)
        self._learners: dict[int, list[int]] = {}
        by_version: dict[int, list[int]] = {}
        for seq, version in wanted.items():
            by_version.setdefault(version, []).append(seq)
        for version, seqs in by_version.items():
            self._learners |= plans.learners(unit, seqs, up_to=version)

    def knew(self, version: int, seq: int) -> bool:
        """Whether the version or an ancestor learned the example, fresh or replayed."""
        learners = self._learners.get(seq)
        return learners is not None and not set(down(version, self._parent, learners[0])).isdisjoint(learners)


def cached(unit: Unit, version: int) -> dict[int, str | None]:
    """The version's cached answers by example number."""
    query = "SELECT seq, label FROM cached_predictions WHERE feed = ? AND version = ?"
    return dict(unit.db.execute(query, (unit.feed, version)).fetchall())


def cache(unit: Unit, version: int, predictions: Mapping[int, str | None]) -> None:
    """Add answers of a version; they never change, so writing them again is harmless."""
    unit.db.executemany(
        "INSERT OR REPLACE INTO cached_predictions VALUES (?, ?, ?, ?)",
        [(unit.feed, version, seq, label) for seq, label in predictions.items()],
    )


def forget(unit: Unit, versions: Collection[int], seqs: Collection[int]) -> None:
    """Drop the cached answers of all other versions, and on all other examples."""
    unit.db.execute(
        f"DELETE FROM cached_predictions WHERE feed = ? AND (version NOT IN {CHOSEN} OR seq NOT IN {CHOSEN})",
        (unit.feed, numbers(versions), numbers(seqs)),
    )
