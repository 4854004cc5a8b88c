"""The corrections' face on SQLite, and what the intake writes for it (see `driftline.buffer.corrections`)."""

from collections.abc import Iterable, Sequence

from driftline.buffer.batch import Corrected
from driftline.buffer.corrections import Corrections, NamedCorrection
from driftline.buffer.sqlite import plans
from driftline.buffer.sqlite.examples import CHOSEN, numbers
from driftline.buffer.sqlite.unit import Unit, Work
from driftline.buffer.states import from_micros
from driftline.records import Correction


def write(unit: Unit, corrected: Sequence[Corrected], now: int) -> None:
    """Note them, and that only later versions learn the right labels. A fresh one has all its attempts again."""
    if not corrected:
        return
    newest = newest_version(unit)
    unit.db.executemany(
        "INSERT INTO corrections (feed, seq, was, becomes, labeller, corrected_at, after_version) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(unit.feed, one.entry.seq, one.was, one.becomes, one.labeller, now, newest) for one in corrected],
    )
    unit.db.executemany(
        "UPDATE examples SET relearn_after = ?, attempts = 0 WHERE feed = ? AND seq = ?",
        [(newest, unit.feed, one.entry.seq) for one in corrected],
    )


def newest_version(unit: Unit) -> int:
    """The greatest version number that a cycle of the feed was taken for; 0 if none. One step in an index."""
    query = "SELECT COALESCE(MAX(version), 0) FROM cycles WHERE feed = ?"
    (newest,) = unit.db.execute(query, (unit.feed,)).fetchone()
    return int(newest)


def relearn_after(unit: Unit, chosen: str) -> dict[int, int]:
    """Of those of the examples (`numbers`) that were corrected: only versions beyond this one learned the right
    label."""
    rows = unit.db.execute(
        f"SELECT seq, relearn_after FROM examples WHERE feed = ? AND seq IN {CHOSEN} AND relearn_after IS NOT NULL",
        (unit.feed, chosen),
    )
    return dict(rows.fetchall())


class SqliteCorrections(Corrections):
    """See `Corrections`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def labels(self, feed: str, seqs: Iterable[int]) -> dict[int, str]:
        query = (
            "SELECT examples.seq, label FROM examples JOIN events ON events.arrival = examples.arrival "
            f"WHERE examples.feed = ? AND examples.seq IN {CHOSEN} AND relearn_after IS NOT NULL"
        )
        with self._work.reading(feed) as unit:
            return dict(unit.db.execute(query, (unit.feed, numbers(seqs))).fetchall())

    def newest(self, feed: str, last: int | None = None) -> list[NamedCorrection]:
        with self._work.reading(feed) as unit:
            rows = unit.db.execute(_NEWEST, (unit.feed, -1 if last is None else last)).fetchall()
            newest = max((row[6] for row in rows), default=0)
            learners = plans.learners(unit, {row[0] for row in rows}, up_to=newest)
        return [_named(row, learners.get(row[0], ())) for row in rows]


_NEWEST = """
    SELECT corrections.seq, event_id, was, becomes, labeller, corrected_at, after_version, COALESCE((
        SELECT MAX(after_version) FROM corrections AS b
        WHERE b.feed = corrections.feed AND b.seq = corrections.seq AND b.id < corrections.id), 0)
    FROM corrections JOIN examples USING (feed, seq) JOIN events USING (arrival)
    WHERE corrections.feed = ? AND was <> becomes  -- equal: merged since
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
