"""The pure parts of a replay: events files, ticks in stream time, labels on their way, figures of the report."""

import gzip
import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from driftline.buffer import Scored
from driftline.cli.demo import Narrator
from driftline.cli.replay import Progress
from driftline.config import FeedConfig, FieldsConfig, ScheduleConfig
from driftline.errors import UsageError
from learner.schedule import next_tick
from replay.labels import LabelQueue, TakenTexts
from replay.report import prequential, quantile
from replay.source import LATEST, UNDATED_START, StreamItem, check_events, stream_items
from replay.ticks import Ticks
from tests.fixtures.cli import Driftline

START = datetime(2026, 3, 1, 12, 0, 7, tzinfo=UTC)
FEED = FeedConfig(labels=("good", "bad"), label_map={"1": "good"})


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def items(folder: Path, *lines: Any, fields: FieldsConfig | None = None) -> list[StreamItem]:
    path = folder / "events.jsonl"
    raw = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(raw))
    return list(stream_items([path], FEED.model_copy(update={"fields": fields or FieldsConfig()})))


def sent(item: StreamItem) -> Any:
    return json.loads(item.outgoing.value)


# --- events files


def test_the_label_is_taken_out_and_comes_when_it_says(tmp_path: Path) -> None:
    line = {"id": "a", "text": "x", "label": "good", "timestamp": "2026-01-01T00:00:00Z", "source": "shop", "more": 1}
    (one,) = items(tmp_path, {**line, "label_at": "2026-01-02T00:00:00Z"})
    assert (one.event_id, one.label) == ("a", "good")
    assert one.at == datetime(2026, 1, 1, tzinfo=UTC)
    assert one.due_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert "label" not in sent(one)
    assert sent(one)["more"] == 1


def test_a_label_never_comes_before_its_event(tmp_path: Path) -> None:
    (one,) = items(tmp_path, {"text": "x", "timestamp": "2026-01-02T00:00:00Z", "label_at": "2026-01-01T00:00:00Z"})
    assert one.due_at == one.at


def test_the_time_never_goes_backwards_and_a_null_is_a_second_later(tmp_path: Path) -> None:
    times = ["2026-01-01T00:00:00Z", None, "2025-01-01T00:00:00Z", "no time", "2026-01-01T00:01:00+00:00"]
    found = items(tmp_path, *({"text": "x", "timestamp": time} for time in times), b"no json")
    first = datetime(2026, 1, 1, tzinfo=UTC)
    assert [(item.at - first).total_seconds() for item in found] == [0, 1, 1, 2, 60, 61]
    assert sent(found[3])["timestamp"] == "no time", "ingest falls back, and counts it"


def test_an_undated_stream_starts_somewhere_and_a_mistyped_year_is_cut(tmp_path: Path) -> None:
    found = items(tmp_path, {"text": "x"}, {"text": "y", "timestamp": "9999-12-31T00:00:00Z"}, {"text": "z"})
    assert [item.at for item in found] == [UNDATED_START, LATEST, LATEST]


def test_mapped_fields_may_be_nested(tmp_path: Path) -> None:
    fields = FieldsConfig(id="meta.id", label="truth.label", timestamp="meta.when", text="body.text")
    line = {"meta": {"id": 7, "when": 1_700_000_000}, "truth": {"label": "good"}, "body": {"text": "x"}}
    (one, two, three) = items(tmp_path, line, {"meta": None, "truth": None}, {"meta": "no object"}, fields=fields)
    assert (one.event_id, one.label, one.at.year) == ("7", "good", 2023)
    assert sent(one)["truth"] == {}
    assert (two.event_id, sent(two)["meta"]) == ("line-2", {"id": "line-2"})
    assert three.event_id is None


@pytest.mark.parametrize("wrong", [["a"], True, {"b": 1}, "i" * 513])
def test_an_id_that_cannot_be_one_stays_for_ingest_to_refuse(tmp_path: Path, wrong: Any) -> None:
    (one,) = items(tmp_path, {"id": wrong, "text": "x", "label": "good"})
    assert one.event_id is None
    assert sent(one)["id"] == wrong


@pytest.mark.parametrize("wrong", [["a"], True, {"b": 1}, 1.5, "none of them", ""])
def test_a_label_that_cannot_be_one_stays_for_ingest_to_refuse(tmp_path: Path, wrong: Any) -> None:
    (one,) = items(tmp_path, {"id": "a", "text": "x", "label": wrong})
    assert (one.label, sent(one)["label"]) == (None, wrong)


def test_a_label_is_taken_by_any_of_its_names(tmp_path: Path) -> None:
    (one,) = items(tmp_path, {"text": "x", "label": 1})
    assert (one.label, "label" in sent(one)) == ("good", False)


@pytest.mark.parametrize("line", [b"no json", b"[1]", b'"text"', b"\xff\xfe{}", b"[" * 50_000, b"{" + b'"a":' * 3])
def test_what_is_no_object_goes_on_as_it_is(tmp_path: Path, line: bytes) -> None:
    (one,) = items(tmp_path, line)
    assert (one.outgoing.value, one.event_id, one.label) == (line, None, None)


def test_a_byte_order_mark_and_the_mark_of_collected_events_are_taken_off(tmp_path: Path) -> None:
    (one,) = items(tmp_path, b'\xef\xbb\xbf{"id": "a", "text": "x", "driftline_collected": true}')
    assert sent(one) == {"id": "a", "text": "x"}


def test_gzip_limit_and_several_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b'{"text": "x"}\r\n\r\n' * 3, mtime=0))
    found = list(stream_items([tmp_path / "a.gz", tmp_path / "b.gz"], FEED, limit=5))
    assert [item.event_id for item in found] == [f"line-{n}" for n in range(1, 6)]
    with pytest.raises(UsageError, match="cannot be read"):
        list(stream_items([tmp_path / "none"], FEED))


# --- ticks


@pytest.mark.parametrize("schedule", [{"every_s": 60}, {"every_s": 0.7}, {"cron": "*/7 3-5 * * *"}])
def test_ticks_skipped_at_once_are_those_of_the_plain_loop(schedule: dict[str, Any]) -> None:
    section = ScheduleConfig(**schedule)
    ticks = [next_tick(section, START)]
    while ticks[-1] < at(4000 if "every_s" in schedule else 200_000):
        ticks.append(next_tick(section, ticks[-1]))
    between = [tick + timedelta(microseconds=offset) for tick in ticks[:-1] for offset in (-1, 0, 1)]
    for moment in [START, *between[:: max(1, len(between) // 200)]]:
        fresh = Ticks(section, START)
        fresh.skip_to(moment)
        assert fresh.next == next(tick for tick in ticks if tick >= moment)
        fresh.skip_beyond(moment)
        assert fresh.next == next(tick for tick in ticks if tick > moment)


def test_skipping_never_goes_back() -> None:
    ticks = Ticks(ScheduleConfig(every_s=60), START)
    ticks.skip_to(at(600))
    ticks.skip_to(at(10))
    assert ticks.next == at(600)
    assert ticks.first_from(at(0)) == at(600)


# --- labels on their way


def test_labels_come_by_time_and_then_by_order() -> None:
    queue = LabelQueue()
    for name, seconds in (("c", 5), ("a", 1), ("b", 1), ("d", 9)):
        queue.push(at(seconds), name, "good")
    assert queue.next_at == at(1)
    assert [due.event_id for due in queue.pop_due(at(5))] == ["a", "b", "c"]
    assert queue.pop_due(at(5)) == []
    assert queue.next_at == at(9)


def test_the_forecast_is_the_nth_smallest_time_known() -> None:
    times = [7, 3, 9, 1, 3, 8, 2]
    for missing, known in itertools.product(range(1, 9), range(len(times) + 1)):
        queue = LabelQueue()
        for seconds in times[:known]:
            queue.push(at(seconds), "x", "good")
        forecast = queue.forecast(missing)
        for seconds in times[known:]:
            forecast.add(at(seconds))
        expected = at(sorted(times)[missing - 1]) if missing <= len(times) else None
        assert forecast.at == expected


def test_only_the_first_text_of_an_id_is_taken_again() -> None:
    taken = TakenTexts()
    asked = [("a", "good"), ("a", "bad"), ("b", "bad"), ("a", "good"), ("a", "bad")]
    assert [taken.take(*one) for one in asked] == [True, False, True, True, False]


# --- figures


def test_a_missing_answer_and_version_zero_count_as_wrong() -> None:
    rows = [("a", "a", 2), ("b", "a", 2), ("a", None, 0), ("b", None, None)]
    scored = [
        Scored(
            seq=i, event_id=str(i), source=None, label=label, predicted=predicted, version=version,
            holdout=False, occurred_at=START, answered=version is not None,
        )
        for i, (label, predicted, version) in enumerate(rows)
    ]  # fmt: skip
    found = prequential(scored, ("a", "b"))
    assert (found["accuracy"], found["n"]) == (0.25, 4)
    assert found["windows"] == [{"start": 0, "end": 4, "n": 4, "accuracy": 0.25, "version": 0}]
    assert found["macro_f1"] == pytest.approx((2 * 1 / 4 + 0) / 2)


def test_quantiles_by_hand() -> None:
    assert quantile([], 0.5) is None
    assert quantile([3.0], 0.95) == 3.0
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert quantile([float(i) for i in range(101)], 0.95) == 95.0


# --- the verb


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (None, "no such file"),
        (b"", "no events in"),
        (b"\n \r\n\t\n", "no events in"),
        (b"id,text\n1,good\n", "none of its first 2 lines is a JSON object"),
        (b"[1]", "its only line is not a JSON object"),
        (gzip.compress(b'{"text": "good"}\n' * 10_000, mtime=0)[:-20], "cannot be read"),
        (gzip.compress(b'{"text": "good"}\n', mtime=0)[:12], "cannot be read"),
    ],
)
def test_what_is_no_events_file_is_refused_before_anything_is_loaded(
    driftline: Driftline, tmp_path: Path, content: bytes | None, wrong: str
) -> None:
    (tmp_path / "driftline.toml").write_text('[feed.reviews]\nlabels = ["a", "b"]\n')
    if content is not None:
        (tmp_path / "events").write_bytes(content)
    result = driftline("replay", "events")
    assert result.code == 2
    assert wrong in result.err
    assert "events" in result.err
    assert "Loading" not in result.err


def test_a_folder_is_no_events_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        check_events([tmp_path])


def test_an_events_file_may_start_dirty_and_one_of_several_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "dirty").write_bytes(b'half a line"}\n{"text": "good"}\n')
    assert check_events([tmp_path / "empty", tmp_path / "dirty"]) == 2


def test_the_events_of_all_files_are_counted_for_the_progress_bar(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b'{"text": "good"}\n\n' * 404)
    (tmp_path / "zipped").write_bytes(gzip.compress(b'{"text": "good"}\r\n' * 7 + b'{"text": "no newline"}', mtime=0))
    assert check_events([tmp_path / "plain", tmp_path / "zipped"]) == 412


def test_the_demo_shows_life_where_nothing_happens_and_names_its_end(capfd: pytest.CaptureFixture[str]) -> None:
    clock = itertools.count(step=10.0)
    narrator = Narrator(128, lambda: float(next(clock)))
    for events in (32, 64, 96, 128):
        narrator.tell(SimpleNamespace(tally=SimpleNamespace(cycles=[], events=events)))
    assert [line.strip() for line in capfd.readouterr().out.splitlines()] == [
        "64 of 128 events answered …",
        "128 of 128 events answered …",
        "All events are answered. The last labels come, and what was kept of the past is measured …",
    ]


@pytest.mark.parametrize(("total", "expected"), [(100, [32, 64, 96]), (50_000, [1024, 2016])])
def test_without_a_terminal_a_line_now_and_then_shows_life(
    capfd: pytest.CaptureFixture[str], total: int, expected: list[int]
) -> None:
    with Progress(total) as progress:
        for events in range(32, 130 if total == 100 else 2100, 32):
            tally = SimpleNamespace(swaps=[(3, 0)], cycles=[None], events=min(events, total))
            progress.update(SimpleNamespace(tally=tally))
    lines = capfd.readouterr().err.splitlines()
    assert lines[:3] == [f"replay: {events:,} events, live version 3, 1 update" for events in expected]
