"""A crash before every single statement of every writing call: all of it or nothing, and again gives the same.

What a SIGKILL leaves behind is what has been written to the files. So instead of thousands of processes: SQLite's trace
callback copies the database and its log before each statement that the production code runs (a tiny page cache makes
unfinished transactions spill into the log), and the log of the finished call is also cut at odd places, as a power
loss would. Every different image is opened, looked at, and the call made again. `tests/integration/test_ingest_kill.py`
kills real processes. No fault code is in the buffer.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from driftline.buffer import Buffer
from tests.fixtures.buffers import (
    EVENTS,
    FEED,
    KEY,
    LABELS,
    PREDICTIONS,
    at,
    cycle,
    event,
    label,
    letter,
    prediction,
    rules,
    up_to,
)

RULES = rules(holdout_share=0.3, segment_examples=4, segment_holdouts=1, max_segments=2, event_wait_s=50.0)
POSITIONS = up_to(EVENTS, 100) | up_to(LABELS, 100) | up_to(PREDICTIONS, 100)


def prepare(path: Path) -> None:
    buffer = Buffer.open(path, RULES, KEY)
    records = [event(f"e{i}", i, label="pos") for i in range(12)] + [event(f"p{i}", 20 + i) for i in range(3)]
    records += [prediction(f"e{i}", "neg", 0, i) for i in range(12)]
    records += [label("early", "pos", 0), prediction("early", "pos", 1, 30), letter(EVENTS, 40), letter(LABELS, 41)]
    buffer.intake.append(records, {}, at(0))
    buffer.letters.mark_for_retry(FEED, None)
    buffer.close()


def append(buffer: Buffer) -> None:
    records = [event("early", 50), event("p0", 51, text="another"), event("e1", 52), event("n1", 53, label="neg")]
    records += [label("p1", "pos", 10), label("e2", "neg", 11), label("later", "pos", 12), letter(LABELS, 13)]
    records += [prediction("p2", "pos", 1, 50), prediction("much later", "pos", 1, 51), event("n2", 54, label="pos")]
    buffer.intake.append(records, POSITIONS, at(1))


def retry(buffer: Buffer) -> None:
    letters = buffer.letters.to_retry(FEED, 10)
    if letters:
        again = [event("back", 40, label="pos"), letter(LABELS, 41, "missing_field")]
        buffer.intake.append(again, {}, at(1), retried=[number for number, _ in letters])


def take(buffer: Buffer) -> None:
    if buffer.ledger.open_cycle(FEED) is None:
        fresh = [e.seq for e in buffer.ledger.fresh(FEED, 3)]
        buffer.ledger.take(cycle(1, fresh, retired=()))


def promote(buffer: Buffer) -> None:
    if not buffer.ledger.cycles(FEED):
        take(buffer)
    buffer.ledger.ack("cycle-1", "promoted")


def reject(buffer: Buffer) -> None:
    if not buffer.ledger.cycles(FEED):
        take(buffer)
    buffer.ledger.ack("cycle-1", "rejected")


def roll_back(buffer: Buffer) -> None:
    promote(buffer)
    buffer.ledger.reconcile(FEED, 0, 0)


def close_and_merge(buffer: Buffer) -> None:
    while any(not s.closed and s.merged == 1 and s.examples == 4 for s in buffer.exams.segments(FEED)):
        index = next(s.index for s in buffer.exams.segments(FEED) if not s.closed)
        buffer.exams.close_segment(FEED, index, dict.fromkeys(range(index + 1), (1, 2)), 1, at(0))


def expire(buffer: Buffer) -> None:
    buffer.intake.expire(at(10**7))


Image = tuple[bytes, bytes]


def image_of(path: Path) -> Image:
    """The database and its log as a crash would leave them now."""
    log = path.with_name(path.name + "-wal")
    return path.read_bytes(), log.read_bytes() if log.exists() else b""


def put_image(image: Image, path: Path) -> Path:
    path.parent.mkdir()
    path.write_bytes(image[0])
    path.with_name(path.name + "-wal").write_bytes(image[1])
    return path


def crash_images(path: Path, act: Callable[[Buffer], None]) -> list[Image]:
    """The different images before each statement of `act`, and some with a torn log."""
    buffer = Buffer.open(path, RULES, KEY)
    connection = buffer._store._connection
    connection.execute("PRAGMA cache_size = 1")
    images: dict[Image, None] = {}
    statements = []

    def copy(statement: str) -> None:
        statements.append(statement)
        images[image_of(path)] = None

    connection.set_trace_callback(copy)
    act(buffer)
    connection.set_trace_callback(None)
    database, log = image_of(path)
    buffer.close()
    assert len(statements) > 4
    for cut in random.Random(0).sample(range(len(log)), 6):
        images[database, log[:cut]] = None
    return [*images, (database, log)]


def everything(path: Path) -> dict[str, list]:
    """All rows of all tables."""
    buffer = Buffer.open(path, RULES, KEY)
    connection = buffer._store._connection
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in tables}
    counts = buffer.counts(FEED)
    assert counts.event_records == (
        counts.examples + counts.unlabelled + counts.pending + counts.dead_letters + counts.duplicates
    )
    states = (counts.awaiting_prediction, counts.fresh, counts.taken, counts.learned, counts.retired)
    assert counts.examples == counts.holdouts + sum(states) + counts.remembered + counts.set_aside
    buffer.close()
    return found


@pytest.mark.parametrize("act", [append, retry, take, promote, reject, roll_back, close_and_merge, expire])
def test_a_crash_before_any_statement_and_the_call_again(act: Callable[[Buffer], None], tmp_path: Path) -> None:
    path = tmp_path / "undisturbed.sqlite3"
    prepare(path)
    before = everything(path)
    images = crash_images(path, act)
    after = everything(path)
    assert after != before
    for number, image in enumerate(images):
        crashed = put_image(image, tmp_path / str(number) / "buffer.sqlite3")
        found = everything(crashed)
        if act in (append, retry, take):  # one transaction
            assert found in (before, after)
        buffer = Buffer.open(crashed, RULES, KEY)
        act(buffer)
        buffer.close()
        assert everything(crashed) == after


def test_the_images_show_unfinished_transactions(tmp_path: Path) -> None:
    """Else the test above would look at two images only."""
    prepare(tmp_path / "b.sqlite3")
    assert len(crash_images(tmp_path / "b.sqlite3", append)) > 10
