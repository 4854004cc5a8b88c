"""The labels' face on SQLite (see `driftline.buffer.labels`)."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from driftline.buffer.counts import LABEL, WITHDRAWN_LABEL
from driftline.buffer.labels import Adopted, Labels
from driftline.buffer.sqlite.corrections import newest_version
from driftline.buffer.sqlite.counters import read_counter, read_named
from driftline.buffer.sqlite.examples import CHOSEN, move, numbers
from driftline.buffer.sqlite.letters import put
from driftline.buffer.sqlite.unit import Unit, Work
from driftline.buffer.states import FRESH, HOLDOUT, WITHDRAWN, to_micros
from driftline.errors import BufferStoreError
from driftline.label_change import change_of, current_name, require_consent
from driftline.records import DeadLetter, Position
from driftline.topics.labels import given_up, in_words

_LABELLED = (
    ("events", "label"),
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
            return _known(unit)

    def examples(self, feed: str) -> dict[str, int]:
        with self._work.reading(feed) as unit:
            return read_named(unit, LABEL)

    def set_aside(self, feed: str) -> dict[str, int]:
        with self._work.reading(feed) as unit:
            return read_named(unit, WITHDRAWN_LABEL)

    def withdrawn(self, feed: str, seqs: Iterable[int]) -> set[int]:
        query = f"SELECT seq FROM examples WHERE feed = ? AND seq IN {CHOSEN} AND +state = {WITHDRAWN}"
        with self._work.reading(feed) as unit:
            return {seq for (seq,) in unit.db.execute(query, (unit.feed, numbers(seqs)))}

    def adopt(self, feed: str, now: datetime, live: Sequence[str] = ()) -> Adopted:
        with self._work.writing(feed) as unit:
            require_consent(feed, [*_known(unit), *live], unit.rules)
            return _Adoption(unit, to_micros(now)).make()


class _Adoption:
    """One feed's change of labels inside the caller's write transaction. What changes with it is read class by class:
    its cost grows with the feed, so nothing is read where nothing changes."""

    def __init__(self, unit: Unit, now: int) -> None:
        self._unit = unit
        self._rules = unit.rules
        self._now = now

    def make(self) -> Adopted:
        known, aside = _known(self._unit), read_named(self._unit, WITHDRAWN_LABEL)
        renamed = sum(self._rename(label) for label in dict.fromkeys([*known, *aside]))
        gone = {current_name(label, self._rules) for label in known} - {*self._rules.labels}
        adopted = Adopted(
            change=change_of(known, self._rules),
            renamed=renamed,
            withdrawn=self._withdraw(gone) if gone else 0,
            restored=self._restore({current_name(label, self._rules) for label in aside} & {*self._rules.labels}),
        )
        self._record(adopted)
        return adopted

    def _record(self, adopted: Adopted) -> None:
        """Write the labels. Cached answers were chosen among those of before: they go unless all of these are left."""
        before = _recorded(self._unit)
        if before != list(self._rules.labels):
            document = json.dumps(self._rules.labels, ensure_ascii=False)
            self._unit.db.execute("UPDATE feeds SET labels = ? WHERE id = ?", (document, self._unit.feed))
        if not before or not {*before} <= {*self._rules.labels} or adopted.renamed or adopted.restored:
            self._unit.db.execute("DELETE FROM cached_predictions WHERE feed = ?", (self._unit.feed,))

    def _rename(self, label: str) -> int:
        """Every place that a class's old name stands in; how many examples had it."""
        name = current_name(label, self._rules)
        if name == label:
            return 0
        for table, column in _LABELLED:
            query = f"UPDATE {table} SET {column} = ? WHERE feed = ? AND {column} = ?"
            self._unit.db.execute(query, (name, self._unit.feed, label))
        done = 0
        for prefix in (LABEL, WITHDRAWN_LABEL):
            count = read_counter(self._unit, prefix + label)
            self._unit.tally.add(self._unit.feed, prefix + label, -count)
            self._unit.tally.add(self._unit.feed, prefix + name, count)
            done += count
        return done

    def _withdraw(self, gone: Collection[str]) -> int:
        """Examples of classes given up; labels of them that wait for their event go to the dead letters."""
        self._refuse_waiting(gone)
        moved = 0
        for label in gone:
            by_state: defaultdict[int, list[int]] = defaultdict(list)
            for seq, state, _ in self._examples(label):
                by_state[state].append(seq)
            by_state.pop(WITHDRAWN, None)
            done = sum(move(self._unit, seqs, state, WITHDRAWN) for state, seqs in by_state.items())
            self._recount(label, LABEL, WITHDRAWN_LABEL, done)
            moved += done
        return moved

    def _restore(self, back: Collection[str]) -> int:
        """Withdrawn examples of classes that are among the labels (again), as if they had never been learned."""
        moved = 0
        for label in back:
            rows = [(seq, holdout) for seq, state, holdout in self._examples(label) if state == WITHDRAWN]
            fresh = [seq for seq, holdout in rows if holdout is None]
            done = move(self._unit, [seq for seq, holdout in rows if holdout is not None], WITHDRAWN, HOLDOUT)
            done += move(self._unit, fresh, WITHDRAWN, FRESH)
            self._unit.db.execute(
                f"UPDATE examples SET attempts = 0, relearn_after = ? WHERE feed = ? AND seq IN {CHOSEN}",
                (newest_version(self._unit), self._unit.feed, numbers(fresh)),
            )
            self._recount(label, WITHDRAWN_LABEL, LABEL, done)
            moved += done
        return moved

    def _examples(self, label: str) -> list[tuple[int, int, int | None]]:
        """(number, state, hold-out hash) of a class's examples."""
        return self._unit.db.execute(
            "SELECT examples.seq, state, holdout FROM events JOIN examples ON examples.feed = events.feed "
            "AND examples.seq = events.seq WHERE events.feed = ? AND events.seq IS NOT NULL AND label = ?",
            (self._unit.feed, label),
        ).fetchall()

    def _recount(self, label: str, before: str, after: str, n: int) -> None:
        self._unit.tally.add(self._unit.feed, before + label, -n)
        self._unit.tally.add(self._unit.feed, after + label, n)

    def _refuse_waiting(self, gone: Collection[str]) -> None:
        rows = self._unit.db.execute(
            f"DELETE FROM labels WHERE feed = ? AND label IN {CHOSEN} "
            'RETURNING label, topic, "partition", "offset", value',
            (self._unit.feed, json.dumps(sorted(gone))),
        ).fetchall()
        put(self._unit, [("label", self._letter(*row)) for row in rows], self._now)
        self._unit.tally.add(self._unit.feed, "labels_waiting", -len(rows))

    def _letter(self, label: str, topic: str, partition: int, offset: int, value: bytes) -> DeadLetter:
        return DeadLetter(
            feed=self._rules.feed,
            reason="unknown_label",
            detail=f"field 'label' {given_up(label)}",
            position=Position(topic=topic, partition=partition, offset=offset),
            value=value,
        )


def check_adopted(unit: Unit) -> None:
    """BufferStoreError if another process has adopted other classes than this one was started with."""
    recorded, labels = _recorded(unit), unit.rules.labels
    if recorded and set(recorded) != set(labels):
        raise BufferStoreError(
            f"feed.{unit.rules.feed}.labels: this process was started with {in_words(labels)}, and another one has "
            f"made them {in_words(recorded)} since: start this one again, with the same config"
        )


def _recorded(unit: Unit) -> list[str]:
    row = unit.db.execute("SELECT labels FROM feeds WHERE id = ?", (unit.feed,)).fetchone()
    return json.loads(row[0]) if row else []


def _known(unit: Unit) -> tuple[str, ...]:
    """As recorded; else what the examples have, in the config's order, since they have none of their own."""
    if recorded := _recorded(unit):
        return tuple(recorded)
    found, labels = sorted(read_named(unit, LABEL)), unit.rules.labels
    return tuple([one for one in labels if one in found] + [one for one in found if one not in labels])
