"""What waited too long, and what waits in too great numbers.

Keeps the other half of invariant 3: a label whose event did not come becomes a dead letter with its original bytes, an
event without label is counted `unlabelled`, a prediction without event is counted `predictions_expired`; and of
invariant 4: an example whose prediction did not come in time is offered to the learner without it.

Each method handles at most `LIMIT` rows, oldest first, inside the caller's transaction, and returns how many it did, so
that no transaction is long. The clock may have been set back: what came before a row that is due is due as well,
whatever its stamp says, and where the oldest row is stamped in the future, all such rows have come now. An event that
was let go is forgotten with its id: the same record, should it ever come again, is a new event.
"""

import sqlite3

from driftline.buffer import outbox
from driftline.buffer.counters import Tally, read_counter
from driftline.buffer.rules import FeedRules
from driftline.buffer.states import AWAITING, FRESH, PENDING
from driftline.records import DeadLetter, Position

LIMIT = 5_000
_MICROS = 1_000_000


class Expiry:
    """One feed's waits and bounds at `now` (microseconds).

    `current` False: the feed's topics are not read up to date, so nothing is given up for waiting too long; the bounds
    hold, and examples are offered, all the same.
    """

    def __init__(self, db: sqlite3.Connection, feed: int, rules: FeedRules, now: int, current: bool) -> None:
        self._db = db
        self._feed = feed
        self._rules = rules
        self._now = now
        self._current = current
        self._tally = Tally()

    def write_counts(self) -> None:
        """Write what was counted; the last thing in the transaction."""
        self._tally.write(self._db)

    def offer(self) -> int:
        """Examples whose prediction wait is over become fresh."""
        wait_s = self._rules.prediction_wait_s if self._rules.await_predictions else 0.0
        rows = self._db.execute(
            "SELECT seq, joined_at FROM events WHERE feed = ? AND state = ? AND seq IS NOT NULL ORDER BY seq LIMIT ?",
            (self._feed, AWAITING, LIMIT),
        ).fetchall()
        rows = self._none_from_the_future(rows, "joined_at", AWAITING)
        due = self._due(rows, wait_s)
        if due:
            self._db.execute(
                "UPDATE events SET state = ? WHERE feed = ? AND state = ? AND seq <= ?",
                (FRESH, self._feed, AWAITING, due[-1]),
            )
        self._tally.move(self._feed, AWAITING, FRESH, len(due))
        return len(due)

    def let_go(self) -> int:
        """Events whose label wait is over, or beyond `max_waiting_events`, are counted unlabelled and forgotten."""
        rows = self._db.execute(
            "SELECT arrival, received_at FROM events WHERE feed = ? AND state = ? AND seq IS NULL "
            "ORDER BY arrival LIMIT ?",
            (self._feed, PENDING, LIMIT),
        ).fetchall()
        rows = self._none_from_the_future(rows, "received_at", PENDING)
        late = len(self._due(rows, self._rules.label_wait_s)) if self._current else 0
        over = min(read_counter(self._db, self._feed, "pending") - self._rules.max_waiting_events, len(rows))
        gone = [arrival for arrival, _ in rows[: max(late, over)]]
        self._db.executemany("DELETE FROM events WHERE arrival = ?", [(arrival,) for arrival in gone])
        self._tally.add(self._feed, "pending", -len(gone))
        self._tally.add(self._feed, "unlabelled", len(gone))
        self._tally.add(self._feed, "overflowed", max(0, over - late))
        return len(gone)

    def refuse_labels(self) -> int:
        """Labels whose event did not come, and those beyond `max_waiting_labels`, become dead letters."""
        rows = self._db.execute(
            'SELECT id, received_at, topic, "partition", "offset", value FROM labels WHERE feed = ? '
            "ORDER BY received_at, id LIMIT ?",
            (self._feed, LIMIT),
        ).fetchall()
        late = len(self._due([row[:2] for row in rows], self._rules.event_wait_s)) if self._current else 0
        over = min(read_counter(self._db, self._feed, "labels_waiting") - self._rules.max_waiting_labels, len(rows))
        gone = rows[: max(late, over)]
        letters = [("label", self._no_event(row, index < late)) for index, row in enumerate(gone)]
        outbox.put(self._db, self._feed, letters, self._now, self._tally)
        self._db.executemany("DELETE FROM labels WHERE id = ?", [(row[0],) for row in gone])
        self._tally.add(self._feed, "labels_waiting", -len(gone))
        return len(gone)

    def _no_event(self, row: tuple, late: bool) -> DeadLetter:
        _, _, topic, partition, offset, value = row
        detail = (
            f"no event of this id came within {self._rules.event_wait_s:g} s (event_wait_s)"
            if late
            else f"more than {self._rules.max_waiting_labels} labels waited for their event (max_waiting_labels)"
        )
        position = Position(topic=topic, partition=partition, offset=offset)
        return DeadLetter(feed=self._rules.feed, reason="no_event", detail=detail, position=position, value=value)

    def drop_predictions(self) -> int:
        """Predictions whose event did not come, and those beyond `max_waiting_events`, are counted and dropped."""
        rows = self._db.execute(
            "SELECT id, received_at FROM predictions WHERE feed = ? ORDER BY received_at, id LIMIT ?",
            (self._feed, LIMIT),
        ).fetchall()
        late = len(self._due(rows, self._rules.event_wait_s)) if self._current else 0
        over = min(
            read_counter(self._db, self._feed, "predictions_waiting") - self._rules.max_waiting_events, len(rows)
        )
        gone = rows[: max(late, over)]
        self._db.executemany("DELETE FROM predictions WHERE id = ?", [(row[0],) for row in gone])
        self._tally.add(self._feed, "predictions_waiting", -len(gone))
        self._tally.add(self._feed, "predictions_expired", len(gone))
        return len(gone)

    def _due(self, rows: list[tuple[int, int]], wait_s: float) -> list[int]:
        """The numbers of the rows (number, since when) up to the last one that has waited for `wait_s`."""
        until = self._now - round(wait_s * _MICROS)
        count = max((place for place, (_, since) in enumerate(rows, start=1) if since <= until), default=0)
        return [number for number, _ in rows[:count]]

    def _none_from_the_future(self, rows: list[tuple[int, int]], column: str, state: int) -> list[tuple[int, int]]:
        """The rows; where the first has a stamp that the clock has yet to reach, all such stamps become `now`."""
        if not rows or rows[0][1] <= self._now:
            return rows
        query = f"UPDATE events SET {column} = ?1 WHERE feed = ?2 AND state = ?3 AND {column} > ?1"
        self._db.execute(query, (self._now, self._feed, state))
        return [(number, min(since, self._now)) for number, since in rows]
