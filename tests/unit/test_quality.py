"""What /metrics tells of the served answers and their labels, after real records in a real buffer."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from driftline import metrics
from driftline.buffer import Buffer
from driftline.config import FeedConfig
from stream.quality import Quality
from tests.fixtures import buffers


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    with closing(Buffer.open(tmp_path / "buffer.sqlite3", buffers.rules(), buffers.KEY)) as opened:
        yield opened


def value(name: str, **labels: str) -> float | None:
    return metrics.INGEST.get_sample_value(f"driftline_{name}", {"feed": buffers.FEED, **labels})


def quality_of(buffer: Buffer) -> Quality:
    return Quality(buffer, {buffers.FEED: FeedConfig(labels=("neg", "pos"))})


def test_accuracy_macro_f1_coverage_and_delay_by_hand(buffer: Buffer) -> None:
    events = [buffers.event(f"e{i}", i) for i in range(6)]
    answers = [buffers.prediction(f"e{i}", "pos", i) for i in range(6)]
    # labelled 10, 12, 14 and 16 s after the event
    labels = [buffers.label(f"e{i}", "neg" if i == 0 else "pos", 10 + 3 * i) for i in range(4)]
    buffer.intake.append([*events, *answers, *labels], {}, buffers.at(20))
    quality_of(buffer).measure(buffers.at(20))
    assert value("served_examples") == 4
    assert value("served_accuracy_ratio") == 0.75
    assert value("served_macro_f1_ratio") == pytest.approx((6 / 7 + 0) / 2)
    assert value("label_delay_seconds", quantile="0.5") == 14.0
    assert value("label_delay_seconds", quantile="0.95") == 16.0
    quality_of(buffer).measure(buffers.at(120))
    assert value("label_coverage_ratio") == pytest.approx(4 / 6)
    assert b"driftline_served_macro_f1_ratio" in generate_latest(metrics.INGEST)


def test_an_event_of_the_last_minute_is_not_called_unlabelled(buffer: Buffer) -> None:
    old = [buffers.event("old", 0), buffers.label("old", "pos", 1)]
    buffer.intake.append(old, {}, buffers.at(2))
    buffer.intake.append([buffers.event("new", 1)], {}, buffers.at(100))
    found = buffer.exams.labelling(buffers.FEED, last=1000, now=buffers.at(110))
    assert (found.labelled, found.pending, found.coverage) == (1, 0, 1.0)
    found = buffer.exams.labelling(buffers.FEED, last=1000, now=buffers.at(170))
    assert (found.labelled, found.pending, found.coverage) == (1, 1, 0.5)


def test_nothing_is_told_of_an_empty_feed(buffer: Buffer) -> None:
    found = buffer.exams.labelling(buffers.FEED, last=1000, now=buffers.at(9))
    assert (found.delays_s, found.coverage) == ((), None)


def test_it_is_measured_seldom_and_only_what_changed(buffer: Buffer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = buffer.exams.scored
    monkeypatch.setattr(buffer.exams, "scored", lambda feed, *, last: asked.append(last) or read(feed, last=last))
    quality = quality_of(buffer)
    for seconds in (0, 1, 6, 12):
        quality.measure(buffers.at(seconds))
    assert asked == [1000]
    buffer.intake.append([buffers.event("a", 0, label="pos")], {}, buffers.at(13))
    for seconds in (13, 18, 5):  # the last: a clock set back
        quality.measure(buffers.at(seconds))
    assert asked == [1000, 1000]


def test_labelling_reads_through_indices(buffer: Buffer) -> None:
    connection, statements = buffer._store._connection, []
    connection.set_trace_callback(statements.append)
    buffer.exams.labelling(buffers.FEED, last=1000, now=buffers.at(9))
    connection.set_trace_callback(None)
    looks = [one for one in statements if "FROM events" in one]
    plans = [row[3] for one in looks for row in connection.execute(f"EXPLAIN QUERY PLAN {one}")]
    assert looks
    assert not [step for step in plans if "events" in step and "INDEX events_" not in step]
