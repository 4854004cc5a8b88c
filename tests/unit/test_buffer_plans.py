"""No statement of the buffer reads a table from end to end: each is held to an index, while every face is used.

What SQLite says of a statement's plan does not depend on how much is in the file, as nobody runs ANALYZE.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from driftline.buffer import Buffer, Corrections, Exams, FastClockBooks, Intake, Labels, Ledger, Letters
from tests.fixtures.buffers import (
    EVENTS,
    FEED,
    KEY,
    LABELS,
    PREDICTIONS,
    at,
    cycle,
    event,
    kept,
    label,
    letter,
    prediction,
    pulse,
    rules,
    up_to,
)

RULES = rules(holdout_share=0.3, segment_examples=4, segment_holdouts=2, max_segments=2, event_wait_s=50.0, fast=True)
GROWING = {"events", "examples", "letters", "cycles", "cycle_examples", "corrections", "labels", "predictions"}
GROWING |= {"due", "features", "learned_unanswered"}
"""Tables with a row for each event, cycle or letter; others are bounded by feeds, partitions, classes or segments."""
FACES = {
    "intake": Intake,
    "ledger": Ledger,
    "exams": Exams,
    "letters": Letters,
    "labels": Labels,
    "corrections": Corrections,
    "fast": FastClockBooks,
}
NARROW = ("examples_returned", "cycles_open")
"""Partial indices that hold only what waits: they may be read whole."""
IN_ORDER = (
    "events_joined",
    "events_pending",
    "labels_by_age",
    "predictions_by_age",
    "letters_by_feed",
    "corrections_by_feed",
    "cycles_by_version",
)
"""Indices whose first rows are the ones that a statement with a LIMIT asks for."""
WHOLE_FEED = (
    r"UPDATE (events|labels|predictions|corrections) SET (label|answer_label|was|becomes) = ",  # a class is renamed
    r"FROM events JOIN examples .* AND label = ",  # given up, or comes back
    r"DELETE FROM labels WHERE feed = .* AND label IN ",
    r"SELECT id FROM letters WHERE feed = .* ORDER BY id$",  # a person names letters to retry
    r"FROM letters WHERE feed = .* AND state IN \('to_send', 'sent'\)",
    r"SELECT .* FROM cycles WHERE feed = \d+ ORDER BY id$",  # all cycles were asked for
)
"""What a person asked for, of a whole feed or of a whole class: it may cost as much as it changes or tells."""


@contextmanager
def traced(buffer: Buffer) -> Iterator[set[str]]:
    """The statements, as they ran, with their values."""
    said: set[str] = set()
    buffer._store._connection.set_trace_callback(said.add)
    yield said
    buffer._store._connection.set_trace_callback(None)


class Watched:
    """A face that notes which of its calls were made."""

    def __init__(self, inner: object) -> None:
        self._inner = inner
        self.used: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.used.add(name)
        return getattr(self._inner, name)


def use_intake(buffer: Buffer) -> None:
    records = [event(f"e{i}", i, label="pos") for i in range(30)] + [event("p0", 40), event("p1", 41)]
    buffer.intake.bind_topic(EVENTS, "one")
    buffer.intake.append(records, up_to(EVENTS, 50), at(0))
    early = [label("early", "pos", 0), label("e1", "neg", 1), label("p0", "neg", 2)]
    buffer.intake.append([*early, letter(LABELS, 3), letter(LABELS, 4)], up_to(LABELS, 5), at(1))
    buffer.intake.append([prediction(f"e{i}", "neg", 1, i) for i in range(31)], up_to(PREDICTIONS, 31), at(2))
    buffer.letters.mark_sent(FEED, buffer.letters.to_send(FEED, 10), at(2))
    buffer.letters.mark_for_retry(FEED, [row.id for row in buffer.letters.newest(FEED, 1)])
    retried = buffer.letters.to_retry(FEED, 10)
    buffer.intake.append([letter(LABELS, 4)], {}, at(3), retried=[number for number, _ in retried])
    buffer.intake.expire(at(3))
    buffer.intake.positions()
    buffer.intake.waiting_examples()
    buffer.letters.reasons(FEED)
    buffer.letters.numbers(FEED)
    buffer.counts(FEED)
    buffer.others()


def use_ledger(buffer: Buffer) -> None:
    ledger = buffer.ledger
    for version, outcome in enumerate(("promoted", "rejected", "unjudged", "promoted"), start=1):
        fresh = [one.seq for one in ledger.fresh(FEED, 4)]
        ledger.take(cycle(version, fresh, parent=min(1, version - 1), replayed=tuple(fresh[:0])))
        ledger.open_cycle(FEED)
        ledger.ack(f"cycle-{version}", outcome)
    for live in (4, 1, 2, 0):
        ledger.reconcile(FEED, live, live)
    ledger.relearn(FEED)
    ledger.remember_revision(FEED, 9)
    ledger.seen_revision(FEED)
    ledger.new_count(FEED)
    ledger.unanswered(FEED)
    ledger.retire_overflow(FEED, keep=3)
    ledger.retired(FEED, 5)
    ledger.last_taken_at(FEED)
    ledger.last_version(FEED)
    ledger.has_version(FEED, 2)
    ledger.lineage(FEED, 4)
    ledger.cycles(FEED)
    ledger.examples_after(FEED, 3)
    ledger.examples(FEED, [1, 2])
    ledger.fresh_count(FEED)
    ledger.example_count(FEED)


def use_exams(buffer: Buffer) -> None:
    exams = buffer.exams
    assert exams.scored(FEED, last=5)
    exams.labelling(FEED, last=5, now=at(100))
    for index in range(3):
        exams.close_segment(FEED, index, dict.fromkeys(range(index + 1), (1, 2)), 1, at(0))
    exams.segments(FEED)
    exams.matrix(FEED)
    exams.recent_holdouts(FEED, 3)
    exams.cache_predictions(FEED, 1, {1: "pos"})
    exams.cached_predictions(FEED, 1)
    exams.forget_predictions(FEED, versions={1}, seqs={1})


def use_fast(buffer: Buffer) -> None:
    fast = buffer.fast
    fast.keep(FEED, kept(1))
    fast.record(FEED, pulse(2), b"sealed", fast.due(FEED, 4))
    assert fast.since_kept(FEED)
    fast.due_count(FEED)
    fast.last_number(FEED)
    fast.last_pulse(FEED)
    fast.kept(FEED)
    fast.keep(FEED, kept(2))


def use_labels(buffer: Buffer) -> None:
    buffer.corrections.labels(FEED, [1, 2])
    assert buffer.corrections.newest(FEED, 3)
    buffer.labels.known(FEED)
    buffer.labels.examples(FEED)
    buffer.labels.set_aside(FEED)
    buffer.labels.withdrawn(FEED, [1])
    buffer.labels.adopt(FEED, at(9))


def change_labels(path: Path) -> set[str]:
    """The statements of a rename, of giving a class up, and of its coming back."""
    said: set[str] = set()
    renamed = {"labels": ("bad", "pos"), "label_map": {"neg": "bad"}}
    given_up = {"labels": ("pos",), "retired_labels": ("bad",)}
    for changes in (renamed, given_up, {"labels": ("bad", "pos")}):
        config = rules(holdout_share=0.3, **changes)
        buffer = Buffer.open(path, config, KEY)
        with traced(buffer) as found:
            buffer.labels.adopt(FEED, at(9))
        said |= found
        buffer.close()
    return said


def plan_of(db: sqlite3.Connection, statement: str) -> list[str]:
    return [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]


STEP = re.compile(r"(SCAN|SEARCH) (\w+)(?: USING (?:COVERING )?(?:INDEX \w+|(?:INTEGER )?PRIMARY KEY) \((.*)\))?")


def reads_all(step: str, statement: str) -> str | None:
    """The growing table, if any, that this step of a plan reads more of than was asked for."""
    found = STEP.match(step)
    if found is None or found[2] not in GROWING:
        return None
    if re.match(r"SELECT (COALESCE\()?MAX\(", statement) or any(name in step for name in NARROW):  # MAX: one step
        return None
    if "LIMIT" in statement and any(f"INDEX {name} (" in step for name in IN_ORDER):
        return None
    return found[2] if found[1] == "SCAN" or found[3] in ("feed=?", None) else None


def test_every_statement_follows_an_index(tmp_path: Path) -> None:
    buffer = Buffer.open(tmp_path / "b.sqlite3", RULES, KEY)
    watched = {name: Watched(getattr(buffer, name)) for name in FACES}
    for name, face in watched.items():
        setattr(buffer, name, face)
    with traced(buffer) as said:
        for use in (use_intake, use_fast, use_ledger, use_exams, use_labels):
            use(buffer)
    for name, face in watched.items():
        assert face.used == {call for call in vars(FACES[name]) if not call.startswith("_")}
    db = buffer._store._connection
    said |= change_labels(tmp_path / "b.sqlite3")
    looked = [one for one in said if re.match("(?i)(SELECT|UPDATE|DELETE|INSERT)", one)]
    wrong = {}
    for one in looked:
        steps = plan_of(db, one)
        bad = [step for step in steps if reads_all(step, one)] + [step for step in steps if "TEMP B-TREE" in step]
        if bad and not any(re.search(exempt, one, re.DOTALL) for exempt in WHOLE_FEED):
            wrong[one] = steps
    assert not wrong, wrong
    buffer.close()


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("SELECT id FROM cycles WHERE version = 3", "cycles"),
        ("SELECT seq FROM examples WHERE feed = 1 AND +state = 2", "examples"),
        ("SELECT seq FROM events WHERE seq > 5 AND feed = 1", "events"),
    ],
)
def test_the_test_sees_a_statement_without_an_index(tmp_path: Path, statement: str, index: str) -> None:
    buffer = Buffer.open(tmp_path / "b.sqlite3", RULES, KEY)
    steps = plan_of(buffer._store._connection, statement)
    assert [reads_all(step, statement) for step in steps if reads_all(step, statement)] == [index]
    buffer.close()
