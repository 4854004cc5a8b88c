"""What waited too long, and what waits in too great numbers.

Keeps the other half of invariant 3: a label whose event did not come becomes a dead letter with its original bytes, an
event without label is counted `unlabelled`, a prediction without event is counted `predictions_expired`; and of
invariant 4: an example whose prediction did not come in time is offered to the learner without it.

Each method handles at most `LIMIT` rows, oldest first, inside the caller's transaction, and returns how many it did, so
that no transaction is long. Each row is decided by its own stamp, which is never rewritten: where the clock was set
back, what is stamped in the future waits until that time and holds up nothing that is due. An event that was let go is
forgotten with its id: the same record, should it ever come again, is a new event.
"""

from collections.abc import Sequence

from driftline.buffer.sqlite.counters import read_counter
from driftline.buffer.sqlite.examples import move
from driftline.buffer.sqlite.fast import drop_features, drop_overflow
from driftline.buffer.sqlite.letters import let_go, put
from driftline.buffer.sqlite.unit import Unit
from driftline.buffer.states import AWAITING, FRESH
from driftline.records import DeadLetter, Position

LIMIT = 5_000
_MICROS = 1_000_000


class Expiry:
    """One feed's waits and bounds at `now` (microseconds).

    `current` False: the feed's topics are not read up to date, so nothing is given up for waiting too long; the bounds
    hold, and examples are offered, all the same.
    """

    def __init__(self, unit: Unit, now: int, current: bool) -> None:
        self._unit = unit
        self._db = unit.db
        self._feed = unit.feed
        self._rules = unit.rules
        self._tally = unit.tally
        self._now = now
        self._current = current

    def offer(self) -> int:
        """Examples whose prediction wait is over become fresh."""
        wait_s = self._rules.prediction_wait_s if self._rules.await_predictions else 0.0
        rows = self._db.execute(
            f"SELECT seq FROM examples WHERE feed = ? AND state = {AWAITING} AND joined_at <= ? "
            "ORDER BY joined_at LIMIT ?",
            (self._feed, self._until(wait_s), LIMIT),
        ).fetchall()
        return move(self._unit, [seq for (seq,) in rows], AWAITING, FRESH)

    def let_go(self) -> int:
        """Events whose label wait is over, or beyond `max_waiting_events`, are counted unlabelled and forgotten."""
        rows = self._db.execute(
            "SELECT arrival, received_at FROM events WHERE feed = ? AND seq IS NULL "
            "ORDER BY received_at, arrival LIMIT ?",
            (self._feed, LIMIT),
        ).fetchall()
        late = self._late(rows, self._rules.label_wait_s)
        over = min(read_counter(self._unit, "pending") - self._rules.max_waiting_events, len(rows))
        gone = [arrival for arrival, _ in rows[: max(late, over)]]
        self._db.executemany("DELETE FROM events WHERE arrival = ?", [(arrival,) for arrival in gone])
        drop_features(self._unit, gone)
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
        late = self._late(rows, self._rules.event_wait_s)
        over = min(read_counter(self._unit, "labels_waiting") - self._rules.max_waiting_labels, len(rows))
        gone = rows[: max(late, over)]
        letters = [("label", self._no_event(row, index < late)) for index, row in enumerate(gone)]
        put(self._unit, letters, self._now)
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
        late = self._late(rows, self._rules.event_wait_s)
        over = min(read_counter(self._unit, "predictions_waiting") - self._rules.max_waiting_events, len(rows))
        gone = rows[: max(late, over)]
        self._db.executemany("DELETE FROM predictions WHERE id = ?", [(row[0],) for row in gone])
        self._tally.add(self._feed, "predictions_waiting", -len(gone))
        self._tally.add(self._feed, "predictions_expired", len(gone))
        return len(gone)

    def let_letters_go(self) -> int:
        """Letters that were sent, or resolved, `keep_letters_s` ago, or that are too much, are only counted."""
        return let_go(self._unit, self._until(self._rules.keep_letters_s), LIMIT)

    def drop_features(self) -> int:
        """Features beyond a bound (`fast.MOST_FEATURES`): their examples teach only what needs none."""
        return drop_overflow(self._unit, LIMIT)

    def _late(self, rows: Sequence[tuple], wait_s: float) -> int:
        """How many of the rows (number, since when, …), oldest first, have waited too long."""
        until = self._until(wait_s)
        return sum(row[1] <= until for row in rows) if self._current else 0

    def _until(self, wait_s: float) -> int:
        """What came then, or before, has waited for so long."""
        return self._now - round(wait_s * _MICROS)
