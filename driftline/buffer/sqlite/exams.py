"""The exams' face on SQLite; `segments`, `scoring` and `labelling` beside it have the statements."""

from collections.abc import Collection, Mapping
from datetime import datetime

from driftline.buffer.exams import Cell, Exams, Labelling, Scored, Segment
from driftline.buffer.sqlite import examples, labelling, scoring, segments
from driftline.buffer.sqlite.labels import check_adopted
from driftline.buffer.sqlite.unit import Work
from driftline.buffer.states import to_micros


class SqliteExams(Exams):
    """See `Exams`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def scored(self, feed: str, *, last: int | None = None) -> list[Scored]:
        with self._work.reading(feed) as unit:
            return scoring.scored(unit, last)

    def labelling(self, feed: str, *, last: int, now: datetime) -> Labelling:
        with self._work.reading(feed) as unit:
            return labelling.read(unit, last, to_micros(now))

    def segments(self, feed: str) -> list[Segment]:
        with self._work.reading(feed) as unit:
            return segments.read(unit)

    def recent_holdouts(self, feed: str, n: int) -> list[int]:
        with self._work.reading(feed) as unit:
            return examples.recent_holdouts(unit, n)

    def close_segment(
        self, feed: str, index: int, row: Mapping[int, tuple[int, int]], version: int, at: datetime
    ) -> None:
        measured = segments.Measured(index=index, row=row, version=version, at=at)
        with self._work.writing(feed) as unit:
            check_adopted(unit)
            segments.close(unit, measured)

    def matrix(self, feed: str) -> list[list[Cell]]:
        with self._work.reading(feed) as unit:
            return segments.matrix(unit)

    def cached_predictions(self, feed: str, version: int) -> dict[int, str | None]:
        with self._work.reading(feed) as unit:
            return scoring.cached(unit, version)

    def cache_predictions(self, feed: str, version: int, predictions: Mapping[int, str | None]) -> None:
        with self._work.writing(feed) as unit:
            check_adopted(unit)
            scoring.cache(unit, version, predictions)

    def forget_predictions(self, feed: str, *, versions: Collection[int], seqs: Collection[int]) -> None:
        with self._work.writing(feed) as unit:
            scoring.forget(unit, versions, seqs)
