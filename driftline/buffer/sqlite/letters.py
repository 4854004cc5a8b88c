"""The letters' face on SQLite; `outbox` beside it has the statements."""

from collections.abc import Sequence

from driftline.buffer.letters import LetterRow, Letters
from driftline.buffer.sqlite import outbox
from driftline.buffer.sqlite.unit import Work
from driftline.records import DeadLetter


class SqliteLetters(Letters):
    """See `Letters`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def to_send(self, limit: int) -> list[tuple[int, DeadLetter]]:
        with self._work.store.reading() as db:
            return outbox.waiting(db, outbox.TO_SEND, [*self._work.numbers().values()], limit)

    def mark_sent(self, letters: Sequence[tuple[int, DeadLetter]]) -> None:
        with self._work.store.writing() as db:
            outbox.mark_sent(db, [(number, letter.reason) for number, letter in letters])

    def to_retry(self, limit: int) -> list[tuple[int, DeadLetter]]:
        with self._work.store.reading() as db:
            return outbox.waiting(db, outbox.RETRY, [*self._work.numbers().values()], limit)

    def mark_for_retry(self, feed: str | None, ids: Sequence[int] | None) -> int:
        with self._work.store.writing() as db:
            return outbox.mark_for_retry(db, None if feed is None else self._work.number(feed), ids)

    def newest(self, feed: str, limit: int, reason: str | None = None) -> list[LetterRow]:
        with self._work.reading(feed) as unit:
            return outbox.listed(unit.db, unit.feed, limit, reason)

    def numbers(self, feed: str) -> list[int]:
        with self._work.reading(feed) as unit:
            return outbox.numbers(unit.db, unit.feed)

    def reasons(self, feed: str) -> dict[str, dict[str, int]]:
        with self._work.reading(feed) as unit:
            return outbox.reasons(unit.db, unit.feed)
