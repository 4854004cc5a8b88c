"""Classes added, renamed, given up and brought back: what the buffer makes of its examples, counted throughout."""

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from driftline.buffer import Adopted, Buffer, FeedCounts, FeedRules
from driftline.buffer.states import FRESH, HOLDOUT, WITHDRAWN
from driftline.errors import BufferStoreError, ConfigError
from driftline.label_change import LabelChange
from tests.fixtures.buffers import EVENTS, FEED, KEY, at, cycle, event, label, prediction, rules, up_to

OLD = ("neg", "neu", "pos")
ROOT = Path(__file__).parents[2]


def under(*labels: str, retired: tuple[str, ...] = (), **renames: str) -> dict[str, FeedRules]:
    changes = {"labels": labels, "retired_labels": retired, "label_map": renames}
    return rules(holdout_share=0.3, await_predictions=False, segment_examples=10, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buffer.sqlite3"


def fill(path: Path, config: dict[str, FeedRules] | None = None, first: int = 0) -> None:
    """Thirty examples, ten of each class, a third of them held out; labels and events that wait."""
    config = config or under(*OLD)
    with closing(Buffer.open(path, config, KEY)) as buffer:
        buffer.labels.adopt(FEED, at(0))
        records = [event(f"e{i}", i, label=OLD[i % 3]) for i in range(first, first + 30)]
        records += [label(f"early-{name}", name, i) for i, name in enumerate(OLD)]
        records += [prediction("e1", "neu", 1, 0), prediction("later", "neu", 1, 1)]
        buffer.intake.append(records, {}, at(1))


def adopt(path: Path, config: dict[str, FeedRules]) -> Adopted:
    with closing(Buffer.open(path, config, KEY)) as buffer:
        return buffer.labels.adopt(FEED, at(100))


def rows(path: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def counts(path: Path, config: dict[str, FeedRules]) -> FeedCounts:
    with closing(Buffer.open(path, config, KEY, read_only=True)) as buffer:
        found = buffer.counts(FEED)
    states = dict(rows(path, "SELECT state, COUNT(*) FROM examples GROUP BY state"))
    assert found.withdrawn == states.get(WITHDRAWN, 0)
    assert (found.fresh, found.holdouts) == (states.get(FRESH, 0), states.get(HOLDOUT, 0))
    assert found.examples == sum(states.values())
    return found


def test_a_new_feed_records_its_labels_and_the_same_again_changes_nothing(path: Path) -> None:
    config = under(*OLD)
    assert adopt(path, config) == Adopted()
    with closing(Buffer.open(path, config, KEY)) as buffer:
        assert buffer.labels.known(FEED) == OLD
        assert not buffer.labels.adopt(FEED, at(1))


def test_a_class_left_out_without_a_word_is_refused_and_changes_nothing(path: Path) -> None:
    fill(path)
    before = rows(path, "SELECT * FROM events") + rows(path, "SELECT * FROM feeds")
    with pytest.raises(ConfigError, match=r"leaves out 'neu'.*put it back"):
        adopt(path, under("neg", "pos"))
    assert rows(path, "SELECT * FROM events") + rows(path, "SELECT * FROM feeds") == before


def test_the_live_version_is_asked_as_well(path: Path) -> None:
    config = under("neg", "pos")
    with (
        closing(Buffer.open(path, config, KEY)) as buffer,
        pytest.raises(ConfigError, match=r"leaves out 'neu'"),
    ):
        buffer.labels.adopt(FEED, at(0), live=OLD)


def test_a_buffer_that_never_recorded_labels_takes_those_of_its_examples(path: Path) -> None:
    config = under("neg", "neu", "pos", "unused")
    fill(path, config)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE feeds SET labels = '[]'")  # as an upgraded format 4 is
        db.commit()
    with pytest.raises(ConfigError, match=r"leaves out 'neu'"):
        adopt(path, under("neg", "pos"))
    assert adopt(path, under("pos", "neu", "neg")).change == LabelChange()
    assert rows(path, "SELECT labels FROM feeds") == [('["pos", "neu", "neg"]',)]


def test_a_retired_class_is_withdrawn_held_out_ones_too_and_counted(path: Path) -> None:
    fill(path)
    joined = "examples JOIN events USING (arrival)"
    held_out = rows(path, f"SELECT event_id FROM {joined} WHERE state = {HOLDOUT} AND label = 'neu'")
    assert held_out, "the fixture must hold some out"
    config = under("neg", "pos", retired=("neu",))
    done = adopt(path, config)
    assert (done.change.retired, done.withdrawn) == (("neu",), 10)
    found = counts(path, config)
    assert (found.withdrawn, found.examples, found.labels_waiting) == (10, 30, 2)
    assert found.by_reason == {"unknown_label": 1}, "the label that waited for its event"
    with closing(Buffer.open(path, config, KEY)) as buffer:
        [row] = buffer.letters.newest(FEED, 10)
    assert row.letter.detail.startswith("field 'label' is of 'neu', a class that was given up (retired_labels): ")
    with closing(Buffer.open(path, config, KEY)) as buffer:
        gone = {seq for (seq,) in rows(path, "SELECT seq FROM events WHERE label = 'neu'")}
        assert buffer.labels.withdrawn(FEED, range(100)) == gone
        assert gone.isdisjoint(one.seq for one in buffer.ledger.fresh(FEED, 100))
        assert gone.isdisjoint(seq for segment in buffer.exams.segments(FEED) for seq in segment.holdouts)
        assert gone.isdisjoint(buffer.exams.recent_holdouts(FEED, 100))
        assert gone.isdisjoint(one.seq for one in buffer.exams.scored(FEED))
        assert (buffer.labels.examples(FEED), buffer.labels.set_aside(FEED)) == ({"neg": 10, "pos": 10}, {"neu": 10})
        with pytest.raises(BufferStoreError, match="withdrawn"):
            buffer.ledger.take(cycle(1, [], replayed=(min(gone),)))


def test_a_class_that_comes_back_is_fresh_or_held_out_and_learned_again(path: Path) -> None:
    fill(path)
    config = under(*OLD)
    with closing(Buffer.open(path, config, KEY)) as buffer:
        before = buffer.counts(FEED)
        plan = [one.seq for one in buffer.ledger.fresh(FEED, 100)]
        buffer.ledger.take(cycle(1, plan))
        buffer.ledger.ack("cycle-1", "promoted")
        buffer.ledger.reconcile(FEED, 1, 0)
    adopt(path, under("neg", "pos", retired=("neu",)))
    done = adopt(path, config)
    assert (done.change.added, done.restored) == (("neu",), 10)
    found = counts(path, config)
    assert (found.withdrawn, found.holdouts) == (0, before.holdouts)
    fresh = rows(path, f"SELECT label, attempts FROM examples JOIN events USING (arrival) WHERE state = {FRESH}")
    assert set(fresh) == {("neu", 0)}
    with closing(Buffer.open(path, config, KEY)) as buffer:
        again = [one.seq for one in buffer.ledger.fresh(FEED, 100)]
        buffer.ledger.take(cycle(2, again, parent=1))
        buffer.ledger.ack("cycle-2", "rejected")
        assert [one.seq for one in buffer.ledger.fresh(FEED, 100)] == again, "version 1 learned them before they went"


def test_a_withdrawn_example_never_comes_back_to_learned(path: Path) -> None:
    fill(path)
    config = under(*OLD)
    with closing(Buffer.open(path, config, KEY)) as buffer:
        fresh = [one.seq for one in buffer.ledger.fresh(FEED, 100)]
        buffer.ledger.take(cycle(1, fresh))
    config = under("neg", "pos", retired=("neu",))
    with closing(Buffer.open(path, config, KEY)) as buffer:
        buffer.labels.adopt(FEED, at(5))
        gone = buffer.labels.withdrawn(FEED, range(100))
        assert gone & set(fresh)
        buffer.ledger.ack("cycle-1", "promoted")
        for live in (1, 0, 1):
            buffer.ledger.reconcile(FEED, live, 0)
            buffer.ledger.relearn(FEED)
            assert buffer.labels.withdrawn(FEED, range(100)) == gone
    counts(path, config)


def test_a_renamed_class_has_its_new_name_everywhere(path: Path) -> None:
    fill(path)
    config = under("neg", "neutral", "pos", neu="neutral")
    done = adopt(path, config)
    assert (done.change.renamed, done.renamed) == ({"neu": "neutral"}, 10)
    for table, column in (
        ("events", "label"),
        ("events", "answer_label"),
        ("labels", "label"),
        ("predictions", "label"),
    ):
        assert rows(path, f"SELECT COUNT(*) FROM {table} WHERE {column} = 'neu'") == [(0,)]
        assert rows(path, f"SELECT COUNT(*) FROM {table} WHERE {column} = 'neutral'")[0][0] > 0
    assert counts(path, config).withdrawn == 0


def test_a_correction_speaks_of_classes_by_their_new_names(path: Path) -> None:
    fill(path)
    with closing(Buffer.open(path, under(*OLD), KEY)) as buffer:
        buffer.intake.append([label("e1", "pos", 100), label("e2", "neu", 101), label("e0", "neu", 102)], {}, at(2))
    config = under("neutral", "pos", neu="neutral", neg="neutral")
    adopt(path, config)
    with closing(Buffer.open(path, config, KEY)) as buffer:
        named = [(one.correction.was, one.correction.becomes) for one in buffer.corrections.newest(FEED)]
    assert named == [("pos", "neutral"), ("neutral", "pos")], "and none of two classes that are one now"


def test_withdrawn_examples_can_still_be_renamed(path: Path) -> None:
    fill(path)
    adopt(path, under("neg", "pos", retired=("neu",)))
    done = adopt(path, under("neg", "pos", neu="neg"))
    assert (done.renamed, done.restored) == (10, 10)
    assert rows(path, "SELECT label, COUNT(*) FROM events WHERE seq IS NOT NULL GROUP BY label") == [
        ("neg", 20),
        ("pos", 10),
    ]


def test_added_removed_renamed_and_put_back_one_after_the_other(path: Path) -> None:
    fill(path)
    steps = [
        (under(*OLD, "mixed"), 0),
        (under("neg", "pos", "mixed", retired=("neu",)), 10),
        (under("bad", "pos", "mixed", retired=("neu",), neg="bad"), 10),
        (under("mixed", "pos", "neu", "bad", neg="bad"), 0),
        (under("mixed", "pos", "neu", "bad"), 0),
    ]
    for config, withdrawn in steps:
        adopt(path, config)
        assert counts(path, config).withdrawn == withdrawn
        assert adopt(path, config) == Adopted()
    labels = rows(path, "SELECT label, COUNT(*) FROM events WHERE seq IS NOT NULL GROUP BY label")
    assert labels == [("bad", 10), ("neu", 10), ("pos", 10)]


def test_a_process_with_the_labels_of_before_takes_nothing_in_any_more(path: Path) -> None:
    fill(path)
    with closing(Buffer.open(path, under(*OLD), KEY)) as old:
        adopt(path, under(*OLD, "mixed"))
        with pytest.raises(BufferStoreError, match=r"another one has made them .*mixed.*start this one again"):
            old.intake.append([event("new", 90, label="neg")], up_to(EVENTS, 91), at(2))
        with pytest.raises(BufferStoreError, match="start this one again"):
            old.ledger.take(cycle(1, [one.seq for one in old.ledger.fresh(FEED, 5)]))
        assert old.intake.positions() == {}


def test_a_learner_with_the_labels_of_before_writes_no_old_names_any_more(path: Path) -> None:
    fill(path)
    with closing(Buffer.open(path, under(*OLD), KEY)) as old:
        adopt(path, under("neg", "neutral", "pos", neu="neutral"))
        with pytest.raises(BufferStoreError, match="start this one again"):
            old.exams.cache_predictions(FEED, 1, {1: "neu"})
        with pytest.raises(BufferStoreError, match="start this one again"):
            old.exams.close_segment(FEED, 0, {0: (1, 1)}, 1, at(2))
        assert old.exams.cached_predictions(FEED, 1) == {}
        assert not old.exams.segments(FEED)[0].closed


def test_long_lists_of_labels_are_cut_short(path: Path) -> None:
    many = tuple(f"class {i}" for i in range(150))
    adopt(path, under(*many))
    with (
        closing(Buffer.open(path, under(*many[:-1]), KEY)) as old,
        pytest.raises(BufferStoreError, match=r"class 9, … \(149 in all\).* class 9, … \(150 in all\)") as caught,
    ):
        old.intake.append([event("new", 90, label="class 1")], {}, at(2))
    assert "class 10" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OLD, under("neg", "pos", retired=("neu",))),
        ((*OLD, "unused"), under(*OLD, retired=("unused",))),
        ((*OLD, "unused"), under(*OLD, "renamed", unused="renamed")),
    ],
    ids=["given up", "given up without examples", "renamed without examples"],
)
def test_cached_answers_are_dropped_when_a_class_is_gone(
    path: Path, before: tuple[str, ...], after: dict[str, FeedRules]
) -> None:
    fill(path, under(*before))
    with closing(Buffer.open(path, under(*before), KEY)) as buffer:
        buffer.exams.cache_predictions(FEED, 1, {1: before[-1], 2: "neu", 3: "neg"})
    adopt(path, after)
    assert rows(path, "SELECT * FROM cached_predictions") == []


def test_cached_answers_of_a_class_without_examples_are_dropped_where_nothing_was_recorded(path: Path) -> None:
    fill(path, under(*OLD, "unused"))
    with closing(Buffer.open(path, under(*OLD, "unused"), KEY)) as buffer:
        buffer.exams.cache_predictions(FEED, 1, {1: "unused"})
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE feeds SET labels = '[]'")  # as an upgraded format 4 is
        db.commit()
    adopt(path, under(*OLD, retired=("unused",)))
    assert rows(path, "SELECT * FROM cached_predictions") == []


def test_cached_answers_are_kept_when_no_class_is_gone(path: Path) -> None:
    fill(path)
    with closing(Buffer.open(path, under(*OLD), KEY)) as buffer:
        buffer.exams.cache_predictions(FEED, 1, {1: "neu"})
    adopt(path, under("pos", "mixed", "neu", "neg"))
    assert rows(path, "SELECT seq, label FROM cached_predictions") == [(1, "neu")]


def test_the_newest_version_is_read_once_through_an_index(path: Path) -> None:
    fill(path)
    adopt(path, under("neg", "pos", retired=("neu",)))
    said: list[str] = []
    with closing(Buffer.open(path, under(*OLD), KEY)) as buffer:
        buffer._store._connection.set_trace_callback(said.append)
        buffer.labels.adopt(FEED, at(100))  # ten come back
        buffer.intake.append([label("e0", "pos", 100)], {}, at(101))  # a correction
        buffer.ledger.last_version(FEED)
        buffer.ledger.has_version(FEED, 1)
        buffer._store._connection.set_trace_callback(None)
        asked = [one for one in said if "FROM cycles" in one]
        assert len(asked) == 4
        assert [one for one in asked if not one.startswith("SELECT")] == [], "nothing asks for it row by row"
        for query in asked:
            (plan,) = buffer._store._connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            assert "cycles_by_version" in plan[3], query


@pytest.mark.parametrize("on_conflict", ["first", "dead_letter", "last"])
def test_a_withdrawn_example_yields_to_any_label_that_is_the_feeds(path: Path, on_conflict: str) -> None:
    fill(path)
    config = under("neg", "pos", retired=("neu",))
    config = {FEED: replace(config[FEED], on_conflict=on_conflict)}
    adopt(path, config)
    with closing(Buffer.open(path, config, KEY)) as buffer:
        buffer.intake.append([label("e1", "pos", 100), label("e2", "neg", 101)], {}, at(101))
    relabelled = rows(path, "SELECT event_id, label FROM events WHERE event_id IN ('e1', 'e2') ORDER BY event_id")
    assert relabelled[0] == ("e1", "pos")
    assert relabelled[1] == ("e2", "neg" if on_conflict == "last" else "pos"), "between equals as ever"
    assert counts(path, config).withdrawn == 9


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from driftline.buffer import Buffer
from tests.fixtures.buffers import FEED, KEY, at
from tests.unit.test_buffer_labels import CHANGED

class Killer:
    left = int(sys.argv[2])
    def __call__(self, statement):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

buffer = Buffer.open(Path(sys.argv[1]), CHANGED, KEY)
buffer._store._connection.set_trace_callback(Killer())
buffer.labels.adopt(FEED, at(100))
"""
CHANGED = under("bad", "pos", "mixed", retired=("neu",), neg="bad")


def state(path: Path) -> list[tuple]:
    parts = ("feeds", "events", "labels", "predictions", "letters", "counters", "cached_predictions")
    return [(part, *row) for part in parts for row in rows(path, f"SELECT * FROM {part} ORDER BY 1, 2, 3")]


def test_a_kill_at_any_statement_leaves_before_or_after(path: Path, tmp_path: Path) -> None:
    fill(path)
    before = state(path)
    after: list[tuple] = []
    for statements in range(200):
        copy = tmp_path / "copy" / str(statements) / "buffer.sqlite3"
        copy.parent.mkdir(parents=True)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        run = subprocess.run([sys.executable, "-c", KILLED, str(copy), str(statements)], cwd=ROOT, check=False)
        found = state(copy)
        adopt(copy, CHANGED)
        after = after or state(copy)
        assert found in (before, after)
        assert state(copy) == after
        if run.returncode == 0:
            assert found == after
            break
        assert run.returncode == -signal.SIGKILL
    else:
        pytest.fail("the adoption never ended")
    assert statements > 10


def test_feeds_do_not_touch_each_other(path: Path) -> None:
    both = under(*OLD) | {"other": replace(under(*OLD)[FEED], feed="other", topics=rules(feed="other")["other"].topics)}
    with closing(Buffer.open(path, both, KEY)) as buffer:
        records = [event(f"e{i}", i, label=OLD[i % 3]) for i in range(6)]
        buffer.intake.append([*records, *(replace(one, feed="other") for one in records)], {}, at(0))
    changed = {**both, FEED: under("neg", "pos", retired=("neu",))[FEED]}
    with closing(Buffer.open(path, changed, KEY)) as buffer:
        assert buffer.labels.adopt(FEED, at(1)).withdrawn == 2
        assert not buffer.labels.adopt("other", at(1))
        assert buffer.counts("other").withdrawn == 0
        with closing(Buffer.open(path, both, KEY)) as old:
            old.intake.append([replace(event("e9", 9, label="neg"), feed="other")], {}, at(2))
            assert old.counts("other").examples == 7, "what changed in one feed holds up no other"
            with pytest.raises(BufferStoreError, match=f"feed.{FEED}.labels"):
                old.intake.append([event("e9", 9, label="neg")], {}, at(2))
