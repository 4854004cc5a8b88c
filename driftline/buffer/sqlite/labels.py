"""The labels' face on SQLite (see `driftline.buffer.labels`)."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from driftline.buffer.labels import Adopted, Labels
from driftline.buffer.rules import FeedRules
from driftline.buffer.sqlite import outbox
from driftline.buffer.sqlite.corrections import newest_version
from driftline.buffer.sqlite.unit import Unit, Work
from driftline.buffer.states import FRESH, HOLDOUT, PENDING, STATE_COUNTERS, WITHDRAWN, to_micros
from driftline.errors import BufferStoreError
from driftline.label_change import change_of, current_name, require_consent
from driftline.records import DeadLetter, Position
from driftline.topics.labels import in_words

_CHOSEN = "(SELECT value FROM json_each(?))"
_ALSO_LABELLED = (
    ("events", "answer_label"),
    ("labels", "label"),
    ("predictions", "label"),
    ("corrections", "was"),
    ("corrections", "becomes"),
)


class SqliteLabels(Labels):
    """See `Labels`. `adopt` costs two look-ups by index where nothing changed."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def known(self, feed: str) -> tuple[str, ...]:
        with self._work.reading(feed) as unit:
            return _known(unit.db, unit.feed, unit.rules)

    def examples(self, feed: str) -> dict[str, int]:
        return self._count(feed, f"state NOT IN ({PENDING}, {WITHDRAWN})")

    def set_aside(self, feed: str) -> dict[str, int]:
        return self._count(feed, f"state = {WITHDRAWN}")

    def _count(self, feed: str, condition: str) -> dict[str, int]:
        with self._work.reading(feed) as unit:
            query = f"SELECT label, COUNT(*) FROM events WHERE feed = ? AND {condition} GROUP BY label"
            return dict(unit.db.execute(query, (unit.feed,)).fetchall())

    def withdrawn(self, feed: str, seqs: Iterable[int]) -> set[int]:
        with self._work.reading(feed) as unit:
            query = f"SELECT seq FROM events WHERE seq IN {_CHOSEN} AND state = {WITHDRAWN}"
            return {seq for (seq,) in unit.db.execute(query, (json.dumps(list(seqs)),))}

    def adopt(self, feed: str, now: datetime, live: Sequence[str] = ()) -> Adopted:
        with self._work.writing(feed) as unit:
            require_consent(feed, [*_known(unit.db, unit.feed, unit.rules), *live], unit.rules)
            return _Adoption(unit, to_micros(now)).make()


class _Adoption:
    """One feed's change of labels inside the caller's write transaction."""

    def __init__(self, unit: Unit, now: int) -> None:
        self._db = unit.db
        self._feed = unit.feed
        self._rules = unit.rules
        self._tally = unit.tally
        self._now = now

    def make(self) -> Adopted:
        known = _known(self._db, self._feed, self._rules)
        aside = _withdrawn_labels(self._db, self._feed)
        renamed = self._rename([*known, *aside])
        gone = {current_name(label, self._rules) for label in known} - {*self._rules.labels}
        adopted = Adopted(
            change=change_of(known, self._rules),
            renamed=renamed,
            withdrawn=self._withdraw(gone),
            restored=self._restore(),
        )
        self._record(adopted)
        return adopted

    def _record(self, adopted: Adopted) -> None:
        """Write the labels. Cached answers were chosen among those of before: they go unless all of these are left."""
        before = _recorded(self._db, self._feed)
        if before != list(self._rules.labels):
            document = json.dumps(self._rules.labels, ensure_ascii=False)
            self._db.execute("UPDATE feeds SET labels = ? WHERE id = ?", (document, self._feed))
        if not before or not {*before} <= {*self._rules.labels} or adopted.renamed or adopted.restored:
            self._db.execute("DELETE FROM cached_predictions WHERE feed = ?", (self._feed,))

    def _rename(self, labels: Iterable[str]) -> int:
        """Every place that a class's old name stands in; how many examples had it."""
        done = 0
        for label in dict.fromkeys(labels):
            if (name := current_name(label, self._rules)) != label:
                done += self._replace("events", "label", label, name)
                for table, column in _ALSO_LABELLED:
                    self._replace(table, column, label, name)
        return done

    def _replace(self, table: str, column: str, label: str, name: str) -> int:
        query = f"UPDATE {table} SET {column} = ? WHERE feed = ? AND {column} = ?"
        return self._db.execute(query, (name, self._feed, label)).rowcount

    def _withdraw(self, gone: Collection[str]) -> int:
        """Examples of classes given up; labels of them that wait for their event go to the dead letters."""
        if not gone:
            return 0
        self._refuse_waiting(gone)
        return sum(self._move(state, WITHDRAWN, gone) for state in STATE_COUNTERS if state not in (PENDING, WITHDRAWN))

    def _restore(self) -> int:
        """Withdrawn examples of classes that are among the labels (again), as if they had never been learned."""
        back = set(_withdrawn_labels(self._db, self._feed)) & {*self._rules.labels}
        if not back:
            return 0
        newest = newest_version(self._db, self._feed)
        return self._move(WITHDRAWN, HOLDOUT, back, "holdout IS NOT NULL") + self._move(
            WITHDRAWN, FRESH, back, "holdout IS NULL", f", attempts = 0, relearn_after = {newest}"
        )

    def _move(self, before: int, after: int, labels: Collection[str], condition: str = "1", also: str = "") -> int:
        done = self._db.execute(
            f"UPDATE events SET state = ?{also} WHERE feed = ? AND state = ? AND seq IS NOT NULL AND {condition} "
            f"AND label IN {_CHOSEN}",
            (after, self._feed, before, json.dumps(sorted(labels))),
        ).rowcount
        self._tally.move(self._feed, before, after, done)
        return done

    def _refuse_waiting(self, gone: Collection[str]) -> None:
        rows = self._db.execute(
            "DELETE FROM labels WHERE feed = ? AND label IN (SELECT value FROM json_each(?)) "
            'RETURNING label, topic, "partition", "offset", value',
            (self._feed, json.dumps(sorted(gone))),
        ).fetchall()
        letters = [("label", self._letter(*row)) for row in rows]
        outbox.put(self._db, self._feed, letters, self._now, self._tally)
        self._tally.add(self._feed, "labels_waiting", -len(rows))

    def _letter(self, label: str, topic: str, partition: int, offset: int, value: bytes) -> DeadLetter:
        return DeadLetter(
            feed=self._rules.feed,
            reason="unknown_label",
            detail=f"{label!r:.80} was given up (retired_labels) while this label waited for its event",
            position=Position(topic=topic, partition=partition, offset=offset),
            value=value,
        )


def check_adopted(db: sqlite3.Connection, feed: int, rules: FeedRules) -> None:
    """BufferStoreError if another process has adopted other classes than this one was started with."""
    recorded = _recorded(db, feed)
    if recorded and set(recorded) != set(rules.labels):
        raise BufferStoreError(
            f"feed.{rules.feed}.labels: this process was started with {in_words(rules.labels)}, and another one has "
            f"made them {in_words(recorded)} since: start this one again, with the same config"
        )


def _recorded(db: sqlite3.Connection, feed: int) -> list[str]:
    row = db.execute("SELECT labels FROM feeds WHERE id = ?", (feed,)).fetchone()
    return json.loads(row[0]) if row else []


def _known(db: sqlite3.Connection, feed: int, rules: FeedRules) -> tuple[str, ...]:
    """As recorded; else what the examples have, in the config's order, since they have none of their own."""
    if recorded := _recorded(db, feed):
        return tuple(recorded)
    rows = db.execute("SELECT DISTINCT label FROM events WHERE feed = ? AND seq IS NOT NULL ORDER BY label", (feed,))
    found = [label for (label,) in rows]
    return tuple([one for one in rules.labels if one in found] + [one for one in found if one not in rules.labels])


def _withdrawn_labels(db: sqlite3.Connection, feed: int) -> list[str]:
    rows = db.execute("SELECT DISTINCT label FROM events WHERE feed = ? AND state = ?", (feed, WITHDRAWN))
    return [label for (label,) in rows]
