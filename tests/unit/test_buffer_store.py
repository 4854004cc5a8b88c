"""The file itself: several processes and threads, a full disk, another key, a damaged file."""

import fcntl
import multiprocessing
import resource
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from driftline.buffer import Buffer
from driftline.buffer.sqlite import migration
from driftline.errors import BufferBusy, BufferFull, BufferStoreError
from driftline.records import Plan
from tests.fixtures.buffers import EVENTS, FEED, KEY, PREDICTIONS, at, cycle, event, place, prediction, rules, up_to

WITHIN_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "buffer.sqlite3"


def in_another_process(target: Callable[..., None], *arguments: object) -> int:
    """Runs `target` in a fresh process; its exit code."""
    process = multiprocessing.get_context("forkserver").Process(target=target, args=arguments)
    process.start()
    process.join(WITHIN_S)
    assert process.exitcode is not None
    return process.exitcode


def test_what_is_stored_is_durable_and_private(path: Path) -> None:
    buffer = Buffer.open(path, rules(), KEY)
    connection = buffer._store._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    buffer.intake.append([event("a", 0)], up_to(EVENTS, 1), at(0))
    assert {file.stat().st_mode & 0o077 for file in path.parent.glob("buffer.sqlite3*")} == {0}
    buffer.close()
    buffer.close()


def test_a_buffer_keeps_its_identity_and_no_other_one_has_it(path: Path) -> None:
    opened = [Buffer.open(path, rules(), KEY), Buffer.open(path, rules(), KEY, identity="too late")]
    opened.append(Buffer.open(path, rules(), KEY, read_only=True))
    other = Buffer.open(path.with_name("other.sqlite3"), rules(), KEY)
    named = Buffer.open(path.with_name("named.sqlite3"), rules(), KEY, identity="replay-0")
    assert len({buffer.identity() for buffer in opened}) == 1
    assert other.identity() != opened[0].identity()
    assert named.identity() == "replay-0"
    for buffer in (*opened, other, named):
        buffer.close()


def test_another_holdout_key_is_refused(path: Path) -> None:
    Buffer.open(path, rules(), KEY).close()
    with pytest.raises(BufferStoreError, match="hold-out key"):
        Buffer.open(path, rules(), b"another key")
    Buffer.open(path, rules(), KEY).close()


def test_another_holdout_share_is_refused_also_for_a_feed_that_was_away(path: Path) -> None:
    Buffer.open(path, rules(holdout_share=0.1), KEY).close()
    with pytest.raises(BufferStoreError) as refused:
        Buffer.open(path, rules(holdout_share=0.2) | rules(feed="new"), KEY)
    for part in (f"feed.{FEED}.evaluation.holdout_share is 0.2", "made with 0.1", "put 0.1 back", "state.path"):
        assert part in str(refused.value)
    Buffer.open(path, rules(feed="other", holdout_share=0.3), KEY).close()
    with pytest.raises(BufferStoreError, match=f"feed.{FEED}.evaluation"):
        Buffer.open(path, rules(holdout_share=0.2), KEY)
    Buffer.open(path, rules(holdout_share=0.1) | rules(feed="new", holdout_share=0.5), KEY).close()


@pytest.mark.parametrize("found", [1, 99])
def test_an_older_or_newer_format_is_refused(path: Path, found: int) -> None:
    Buffer.open(path, rules(), KEY).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE positions")
        db.execute(f"PRAGMA user_version = {found}")
    db.close()
    for read_only in (False, True):
        with pytest.raises(BufferStoreError, match=f"format {found}, .* start over with another state.path"):
            Buffer.open(path, rules(), KEY, read_only=read_only)


OLD_RULES = rules(holdout_share=0.25, await_predictions=False)
BOTH_RULES = OLD_RULES | rules(feed="other", await_predictions=False)


def made_by_an_earlier_commit(path: Path, found: int = 4) -> None:
    """The file of an older format whose dump is among the fixtures."""
    path.parent.mkdir(parents=True)
    script = Path(__file__).parents[1] / "fixtures" / f"buffer-format-{found}.sql"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script.read_text(encoding="utf-8"))


def tables(path: Path) -> dict[str, list[tuple]]:
    """Every table's columns (name, type, not null, default, key) and every index, as the file has them."""
    with closing(sqlite3.connect(path)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")]
        found = {name: db.execute(f"SELECT * FROM pragma_table_xinfo('{name}')").fetchall() for name in names}
    return {name: columns for name, columns in found.items() if not name.startswith("sqlite_")}


def tables_of_a_new_file(path: Path) -> dict[str, list[tuple]]:
    fresh = path.with_name("fresh.sqlite3")
    Buffer.open(fresh, OLD_RULES, KEY).close()
    return tables(fresh)


def test_a_buffer_of_format_4_is_upgraded_in_place_after_a_copy_and_goes_on(path: Path) -> None:
    made_by_an_earlier_commit(path)
    with pytest.raises(BufferStoreError, match=r"format 4, .* upgrades the file"):
        Buffer.open(path, OLD_RULES, KEY, read_only=True)
    buffer = Buffer.open(path, OLD_RULES, KEY)
    counts = buffer.counts(FEED)
    assert (counts.event_records, counts.examples, counts.learned, counts.pending) == (30, 24, 8, 6)
    assert (counts.labels_waiting, counts.label_dead_letters, buffer.ledger.seen_revision(FEED)) == (1, 1, 1)
    assert buffer.identity() == "format-4"
    buffer.intake.append([event("e99", 30)], up_to(EVENTS, 31), at(60))
    assert buffer.counts(FEED).examples == 25, "the label that waited has met its event"
    buffer.close()
    assert tables(path) == tables_of_a_new_file(path)
    copy = path.with_name("buffer.sqlite3.format-4")
    assert copy.stat().st_mode & 0o077 == 0
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (4,)
        assert db.execute("SELECT COUNT(*) FROM events").fetchone() == (30,)


def asked(path: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def test_a_buffer_of_format_5_keeps_what_it_knows(path: Path) -> None:
    made_by_an_earlier_commit(path, 5)
    state = "SELECT feed, seq, state, attempts, relearn_after, joined_at FROM"
    text = "SELECT arrival, event_id, seq, text, label, source, holdout, answer_version, answer_label FROM events"
    before = asked(path, f"{state} events WHERE seq IS NOT NULL ORDER BY feed, seq"), asked(path, text)
    buffer = Buffer.open(path, BOTH_RULES, KEY)
    assert (asked(path, f"{state} examples"), asked(path, text)) == before
    rows = buffer.ledger.cycles(FEED)
    assert [(row.cycle.version, row.cycle.parent, row.outcome) for row in rows] == [
        (1, 0, "promoted"),
        (2, 1, "rejected"),
        (3, 1, "promoted"),
        (4, 3, "promoted"),
        (5, 3, None),
    ]
    assert rows[3].cycle.plan == Plan(fresh=(10, 11, 12), replayed=(1, 2, 3, 4))
    assert buffer.ledger.open_cycle(FEED) == cycle(5, [1, 14, 15], parent=3, replayed=(6,))
    counts = buffer.counts(FEED)
    assert (counts.fresh, counts.taken, counts.learned, counts.set_aside, counts.holdouts) == (5, 3, 7, 3, 7)
    assert (counts.by_reason, buffer.letters.reasons(FEED)) == ({"undecodable": 2}, {"label": {"undecodable": 2}})
    assert counts.letter_bytes == sum(len(row.letter.value) for row in buffer.letters.newest(FEED, 9))
    assert buffer.labels.examples(FEED) == {"neg": 12, "pos": 13}
    assert [one.learned_by for one in buffer.corrections.newest(FEED)] == [(1, 2, 4)]
    assert [segment.holdouts for segment in buffer.exams.segments(FEED)] == [(5,), (13, 16), (18, 19), ()]
    buffer.close()
    assert tables(path) == tables_of_a_new_file(path)


def test_a_buffer_of_format_5_goes_on_each_feed_above_its_own_greatest_number(path: Path) -> None:
    made_by_an_earlier_commit(path, 5)
    buffer = Buffer.open(path, BOTH_RULES, KEY)
    buffer.ledger.ack("cycle-5", "promoted")
    buffer.ledger.reconcile(FEED, 5, 5)
    assert (buffer.counts(FEED).learned, buffer.counts(FEED).set_aside) == (10, 3)
    buffer.ledger.reconcile(FEED, 4, 6)
    assert (buffer.counts(FEED).learned, buffer.counts(FEED).set_aside) == (10, 2), "1 is wrong in 4's plan"
    buffer.intake.append([event("new", 50, label="pos")], up_to(EVENTS, 51), at(60))
    other = replace(event("new", 50, label="pos"), feed="other", position=place("other", 50))
    buffer.intake.append([other], {}, at(60))
    assert [one.seq for one in buffer.ledger.examples_after(FEED, 30)] == [31, 32]
    assert [one.seq for one in buffer.ledger.examples_after("other", 29)] == [30, 31]
    assert [one.event_id for one in buffer.ledger.examples("other", [31])] == ["new"]
    buffer.ledger.take(cycle(6, [one.seq for one in buffer.ledger.fresh(FEED, 9)], parent=4))
    buffer.close()


def test_a_buffer_of_format_6_goes_on_and_its_fast_clock_begins_with_what_comes(path: Path) -> None:
    made_by_an_earlier_commit(path, 6)
    config = rules(holdout_share=0.25, prediction_wait_s=1000.0, fast=True)
    buffer = Buffer.open(path, config, KEY)
    counts = buffer.counts(FEED)
    assert (counts.examples, counts.awaiting_prediction, counts.learned, counts.set_aside, counts.taken) == (
        20,
        2,
        4,
        4,
        1,
    )
    assert (counts.due, buffer.fast.due(FEED, 9), buffer.fast.kept(FEED)) == (0, [], None)
    answers = [prediction(f"e{i}", "pos", 1, i + 1, feature=b"\0\1") for i in range(16, 20)]
    buffer.intake.append(answers, up_to(PREDICTIONS, 21), at(9))
    due = buffer.fast.due(FEED, 9)
    assert [one.feature for one in due] == [b"\0\1"] * 2
    buffer.ledger.ack("cycle-3", "promoted")
    buffer.close()
    assert tables(path) == tables_of_a_new_file(path)


def test_a_version_that_stands_twice_in_an_older_file_keeps_its_number_once(path: Path) -> None:
    made_by_an_earlier_commit(path, 5)
    with closing(sqlite3.connect(path)) as db:  # as from when Redis had lost its counter
        again = "SELECT ?, feed, parent, version, seed, taken_at + 9, 'rejected', 0, newest, plan FROM cycles"
        for name, version in (("again-4", 4), ("again-5", 5)):
            db.execute(f"INSERT INTO cycles {again} WHERE version = ?", (name, version))
        db.commit()
    buffer = Buffer.open(path, BOTH_RULES, KEY)
    numbers = {row.cycle.cycle_id: row.cycle.version for row in buffer.ledger.cycles(FEED)}
    assert (numbers["cycle-4"], numbers["cycle-5"]) == (4, 5), "the one that was live, and the one that is open"
    assert numbers["again-4"] < 0 > numbers["again-5"]
    assert buffer.ledger.last_version(FEED) == 5
    buffer.ledger.reconcile(FEED, 4, 5)
    assert buffer.counts(FEED).set_aside == 0
    buffer.close()


def test_every_state_that_is_upgraded_has_its_own_copy(path: Path) -> None:
    made_by_an_earlier_commit(path)
    Buffer.open(path, OLD_RULES, KEY).close()
    for name, revision in (("format-4.2", 7), ("format-4.3", 8)):
        for file in path.parent.glob(f"{path.name}*"):
            if "format-4" not in file.name:
                file.unlink()
        path.write_bytes(path.with_name("buffer.sqlite3.format-4").read_bytes())
        with closing(sqlite3.connect(path)) as db:  # the old version goes on
            db.execute("UPDATE feeds SET seen_revision = ?", (revision,))
            db.commit()
        Buffer.open(path, OLD_RULES, KEY).close()
        with closing(sqlite3.connect(path.with_name(f"buffer.sqlite3.{name}"))) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (4,)
            assert db.execute("SELECT seen_revision FROM feeds").fetchone() == (revision,)
    assert len(list(path.parent.glob("*.format-4*"))) == 3


def test_an_upgrade_that_was_killed_is_made_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_by_an_earlier_commit(path)
    run = migration._run

    def half_way(*arguments: Any) -> None:
        run(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(migration, "_run", half_way)
    with pytest.raises(KeyboardInterrupt):
        Buffer.open(path, OLD_RULES, KEY)
    monkeypatch.undo()
    buffer = Buffer.open(path, OLD_RULES, KEY)
    assert buffer.counts(FEED).examples == 24
    buffer.close()
    assert len(list(path.parent.glob("*.format-4*"))) == 1, "one state, one copy"


def test_a_file_that_is_no_buffer_is_refused(path: Path) -> None:
    Buffer.open(path, rules(), KEY).close()
    path.write_bytes(b"this is a text file, and long enough to be looked at" * 100)
    with pytest.raises(BufferStoreError, match="restore it from a backup"):
        Buffer.open(path, rules(), KEY)


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BufferStoreError, match=r"state\.path"):
        Buffer.open(tmp_path / "file" / "buffer.sqlite3", rules(), KEY)


def test_reading_only(path: Path) -> None:
    with pytest.raises(BufferStoreError, match="no buffer yet"):
        Buffer.open(path, rules(), KEY, read_only=True)
    Buffer.open(path, rules(), KEY).close()
    reader = Buffer.open(path, rules() | rules(feed="new"), KEY, read_only=True)
    assert reader.counts("new").event_records == 0, "a feed that the buffer does not hold yet"
    writer = Buffer.open(path, rules(), KEY)
    writer.intake.append([event("a", 0)], up_to(EVENTS, 1), at(0))
    assert reader.counts(FEED).event_records == 1
    with pytest.raises(BufferFull, match="readonly"):
        reader.intake.append([event("b", 1)], up_to(EVENTS, 2), at(0))
    reader.close()
    writer.close()


def test_a_reader_waits_for_who_is_making_the_file_and_knows_a_file_that_was_never_made(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".opening").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as `Buffer.open` does before it makes the file
        path.touch()
        early = pool.submit(Buffer.open, path, rules(), KEY, read_only=True)
        with pytest.raises(TimeoutError):
            early.result(timeout=0.2)
        fcntl.flock(lock, fcntl.LOCK_UN)  # killed before it made the tables
        with pytest.raises(BufferStoreError, match="there is no buffer yet"):
            early.result(timeout=30)
    Buffer.open(path, rules(), KEY).close()
    Buffer.open(path, rules(), KEY, read_only=True).close()


def test_feeds_may_be_added(path: Path) -> None:
    first = Buffer.open(path, rules(), KEY)
    first.intake.append([event("a", 0)], up_to(EVENTS, 1), at(0))
    first.close()
    second = Buffer.open(path, rules(feed="other") | rules(), KEY)
    assert (second.counts(FEED).event_records, second.counts("other").event_records) == (1, 0)
    second.close()


def test_examples_of_a_feed_that_was_removed_do_not_hold_up_the_others(path: Path) -> None:
    first = Buffer.open(path, rules(await_predictions=False), KEY)
    first.intake.append([event("a", 0, label="pos"), event("b", 1, label="neg")], up_to(EVENTS, 2), at(0))
    assert first.intake.waiting_examples() == 2
    first.close()
    without = Buffer.open(path, rules(feed="other"), KEY)
    assert without.intake.waiting_examples() == 0
    without.close()
    both = Buffer.open(path, rules(feed="other") | rules(), KEY)
    assert both.intake.waiting_examples() == 2
    both.close()


def test_threads_share_one_buffer(path: Path) -> None:
    buffer = Buffer.open(path, rules(await_predictions=False), KEY)

    def append(start: int) -> None:
        for i in range(start, start + 20):
            buffer.intake.append([event(f"e{i}", i, label="pos")], {}, at(0))
            buffer.counts(FEED)

    threads = [threading.Thread(target=append, args=(100 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert buffer.counts(FEED).examples == 80
    assert [e.seq for e in buffer.ledger.examples_after(FEED, 0)] == list(range(1, 81))
    buffer.close()


def _append_some(path: Path, start: int) -> None:
    buffer = Buffer.open(path, rules(await_predictions=False), KEY)
    for i in range(start, start + 30):
        buffer.intake.append([event(f"e{i}", i, label="pos")], {}, at(0))
    buffer.close()


def test_processes_share_one_file(path: Path) -> None:
    """All of them open it at once, also the first time."""
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=_append_some, args=(path, 100 * n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WITHIN_S)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    buffer = Buffer.open(path, rules(await_predictions=False), KEY)
    assert (buffer.counts(FEED).examples, buffer.ledger.fresh_count(FEED)) == (90, 90)
    buffer.close()


def test_a_full_database_writes_nothing_and_goes_on_afterwards(path: Path) -> None:
    buffer = Buffer.open(path, rules(), KEY)
    buffer.intake.append([event("before", 0)], up_to(EVENTS, 1), at(0))
    (pages,) = buffer._store._connection.execute("PRAGMA page_count").fetchone()
    buffer._store._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
    batch = [event(f"e{i}", i + 1, text="x" * 5000) for i in range(100)]
    before = buffer.counts(FEED)
    with pytest.raises(BufferFull, match="nothing was written"):
        buffer.intake.append(batch, up_to(EVENTS, 101), at(0))
    assert buffer.counts(FEED) == before
    assert buffer.intake.positions() == up_to(EVENTS, 1)
    buffer._store._connection.execute("PRAGMA max_page_count = 1000000")
    buffer.intake.append(batch, up_to(EVENTS, 101), at(0))
    assert buffer.counts(FEED).event_records == 101
    buffer.close()


def _fill_the_disk(path: Path) -> None:
    buffer = Buffer.open(path, rules(), KEY)
    buffer.intake.append([event("before", 0)], up_to(EVENTS, 1), at(0))
    size = path.with_name(path.name + "-wal").stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, hard))
    batch = [event(f"e{i}", i + 1, text="x" * 5000) for i in range(200)]
    for _ in range(3):
        with pytest.raises(BufferFull, match="make room"):
            buffer.intake.append(batch, up_to(EVENTS, 201), at(0))
    assert (buffer.counts(FEED).event_records, buffer.intake.positions()) == (1, up_to(EVENTS, 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    buffer.intake.append(batch, up_to(EVENTS, 201), at(0))
    assert (buffer.counts(FEED).event_records, buffer.intake.positions()) == (201, up_to(EVENTS, 201))
    buffer.close()


def test_a_file_that_may_not_grow_writes_nothing_and_goes_on_afterwards(path: Path) -> None:
    assert in_another_process(_fill_the_disk, path) == 0
    buffer = Buffer.open(path, rules(), KEY)
    assert buffer.counts(FEED).event_records == 201
    assert buffer._store._connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    buffer.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_deleted_in_use_takes_nothing_more_in(path: Path, replaced: bool) -> None:
    buffer = Buffer.open(path, rules(), KEY)
    buffer.intake.append([event("a", 0)], up_to(EVENTS, 1), at(0))
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()
    if replaced:
        Buffer.open(path, rules(), KEY).close()
    with pytest.raises(BufferStoreError, match="deleted or replaced while this process used it"):
        buffer.intake.append([event("b", 1)], up_to(EVENTS, 2), at(1))
    with pytest.raises(BufferStoreError, match="deleted or replaced"):
        buffer.counts(FEED)
    buffer.close()


def test_a_writer_that_never_ends_is_named(path: Path) -> None:
    buffer = Buffer.open(path, rules(), KEY)
    buffer._store._connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BufferBusy, match="another process") as caught:
        buffer.intake.append([event("a", 0)], up_to(EVENTS, 1), at(0))
    assert caught.value.retriable
    other.execute("ROLLBACK")
    other.close()
    buffer.intake.append([event("a", 0)], up_to(EVENTS, 1), at(0))
    buffer.close()


def test_a_reader_can_ask_whether_a_writer_would_be_refused(path: Path) -> None:
    Buffer.open(path, rules(holdout_share=0.1), KEY).close()
    before = path.read_bytes()
    for share, key, refused in ((0.1, KEY, None), (0.2, KEY, "holdout_share is 0.2"), (0.1, b"", "hold-out key")):
        reader = Buffer.open(path, rules(holdout_share=share) | rules(feed="new"), key, read_only=True)
        with closing(reader), nullcontext() if refused is None else pytest.raises(BufferStoreError, match=refused):
            reader.check_split()
    assert path.read_bytes() == before
