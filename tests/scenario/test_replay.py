"""`driftline replay` through the whole pipeline: the same report twice, every dirty line accounted for, and an oracle
that knows nothing but the files on the topics."""

import copy
import json
import os
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.markup import escape

from driftline.assembly import wiring
from driftline.buffer import FeedCounts
from driftline.clock import SimulatedClock
from driftline.config import Config, LabelsConfig, parse_config
from driftline.errors import UsageError
from driftline.records import iso, utc
from driftline.topics import Outgoing
from replay import ticks as ticks_module
from replay.chart import accuracy_chart
from replay.comparison import verdict, verdict_from_first_version
from replay.laboratory import run_replay
from replay.mixtures import mixtures_in_words
from replay.page import render_page
from replay.simulate import Simulation, simulate
from replay.summary import summarise
from replay.words import nothing_learned
from tests.fixtures.cli import Driftline

FEED = "reviews"
LABELS = ["negative", "neutral", "positive"]
START = datetime(2026, 3, 1, tzinfo=UTC)
Json = dict[str, Any]
Replay = Callable[..., Json]


@pytest.fixture
def replay(tiny_base_dir: Path, tmp_path: Path) -> Replay:
    """Replay events (objects or raw lines) under a config for tests; keywords change parts of the feed's section."""

    def run(events: Iterable[Json | bytes], *, eval_file: Path | None = None, **changes: Any) -> Json:
        state = changes.pop("state", None)
        path = write(tmp_path / "events.jsonl", events)
        return run_replay(config(tiny_base_dir, **changes), FEED, [path], evaluation=eval_file, state=state)

    return run


def config(base: Path, **changes: Any) -> Config:
    feed: Json = {
        "labels": LABELS,
        "schedule": {"every_s": 60, "min_examples": 50},
        "learner": {"threads": 1, "learning_rate": 0.01},
        "evaluation": {"segment_examples": 100, "holdout_share": 0.2},
    }
    for name, part in changes.items():
        feed[name] = {**feed[name], **part} if isinstance(feed.get(name), dict) else part
    return parse_config(
        {
            "base": {"model": str(base), "max_tokens": 32, "device": "cpu"},
            "serve": {"threads": 1},
            "feed": {FEED: feed},
        },
        root=base,
    )


def write(path: Path, events: Iterable[Json | bytes]) -> Path:
    lines = (line if isinstance(line, bytes) else json.dumps(line).encode() for line in events)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def simulated(count: int, **settings: Any) -> list[Json]:
    return list(simulate(Simulation(events=count, **settings)))


def plain(count: int, *, every_s: float = 10.0, start: datetime = START, **more: Any) -> list[Json]:
    """Events with a label each, known at once."""
    words = {"negative": "bad", "neutral": "red", "positive": "good"}
    return [
        {
            "id": f"p-{i}",
            "text": f"{words[LABELS[i % 3]]} {words[LABELS[i % 3]]} thing {i}",
            "label": LABELS[i % 3],
            "timestamp": iso(start + timedelta(seconds=i * every_s)),
            **more,
        }
        for i in range(count)
    ]


def without_times(report: Json) -> Json:
    kept = copy.deepcopy(report)
    for name in ("seconds", "examples_per_s"):
        del kept[name]
    for name in ("pause_ms_p50", "pause_ms_max"):
        del kept["swaps"][name]
    return kept


def on_topic(state: Path, topic: str) -> list[Json]:
    return [json.loads(line) for line in (state / "topics" / topic / "0.jsonl").read_bytes().splitlines()]


def buffer_identity(state: Path) -> str:
    with closing(sqlite3.connect(state / "buffer.sqlite3")) as db:
        [(identity,)] = db.execute("SELECT value FROM settings WHERE name = 'identity'").fetchall()
    return str(identity)


def place(letter: Json) -> str:
    """The topic a dead letter stood on."""
    return str(letter["position"]).rsplit("-", 2)[0]


def balanced(report: Json) -> bool:
    parts = ("examples", "unlabelled", "pending", "dead_letters", "duplicates")
    return report["events"] == sum(report[part] for part in parts)


def by_hand(state: Path, truth: dict[str, str]) -> tuple[float, int, dict[str, int]]:
    """Accuracy, n and the version behind each answer: the first prediction of each id counts."""
    first: dict[str, Json] = {}
    for prediction in on_topic(state, f"{FEED}.predictions"):
        first.setdefault(prediction["id"], prediction)
    right = sum(first[event_id]["label"] == label for event_id, label in truth.items() if event_id in first)
    return right / len(truth), len(truth), {name: one["adapter_version"] for name, one in first.items()}


def test_the_same_stream_twice_gives_the_same_report_and_the_oracle_agrees(replay: Replay, tmp_path: Path) -> None:
    events = simulated(600)
    evaluation = write(tmp_path / "eval.jsonl", events[:90])
    first = replay(events, eval_file=evaluation, state=tmp_path / "state")
    again = replay(events, eval_file=evaluation, state=tmp_path / "again")
    assert without_times(first) == without_times(again)
    assert buffer_identity(tmp_path / "state") == buffer_identity(tmp_path / "again"), "it is part of what is hashed"
    truth = {event["id"]: event["label"] for event in events if event["label"] is not None}
    accuracy, n, versions = by_hand(tmp_path / "state", truth)
    assert first["prequential"]["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert first["prequential"]["n"] == n == first["examples"]
    assert (first["events"], first["pending"]) == (600, 600 - n)
    assert balanced(first)
    swaps = {swap["version"]: swap["event"] for swap in first["swaps"]["at_event"]}
    for index, event in enumerate(events):
        live = max((version for version, at in swaps.items() if at <= index), default=0)
        assert versions[event["id"]] == live, "every event is answered by the version that is live at its time"


def test_swaps_are_marked_where_the_curve_has_them_though_half_the_events_have_no_label(replay: Replay) -> None:
    events = simulated(500, unlabelled=0.5)
    events[40:40] = [events[3], b"{not json"]
    report = replay(events)
    labelled = [isinstance(event, dict) and event["label"] is not None for event in events]
    labelled[40] = False  # a duplicate
    assert 200 < sum(labelled) == report["prequential"]["n"] < 300
    swaps = report["swaps"]["at_event"]
    assert len(swaps) >= 2
    assert [swap["scored"] for swap in swaps] == [sum(labelled[: swap["event"]]) for swap in swaps]
    drawn = accuracy_chart(report)
    assert drawn is not None
    assert drawn["swaps"] == [swap["scored"] for swap in swaps]


def test_the_report_has_the_fields_of_the_design(replay: Replay, tmp_path: Path) -> None:
    events = simulated(300)
    report = replay(events, eval_file=write(tmp_path / "eval.jsonl", events[:60]))
    assert set(report) >= {
        *("format", "feed", "device", "dtype", "config_sha256", "events", "examples", "holdout_examples"),
        *("unlabelled", "pending"),
        *(
            "dead_letters",
            "label_dead_letters",
            "dead_letters_by_reason",
            "label_dead_letters_by_reason",
            "labels",
            "schedule",
            "duplicates",
            "prequential",
            "baselines",
            "after_cold_start",
            "retention",
            "evaluation",
        ),
        *("versions", "swaps", "freshness_s", "seconds", "examples_per_s"),
    }
    assert (report["format"], report["dtype"] in ("float32", "bfloat16")) == (5, True)
    assert set(report["prequential"]) == {"accuracy", "macro_f1", "n", "windows", "by_class", "confusion", "by_source"}
    assert all(set(row) >= {"accuracy", "macro_f1", "n", "ahead"} for row in report["baselines"].values())
    assert all(set(row["ahead"]) == {"gap", "low", "high"} for row in report["baselines"].values())
    assert set(report["baselines"]["online_head"]) >= {"ridge", "forgetting"}
    assert all(set(row["exam"]) == {"accuracy", "macro_f1", "n"} for row in report["versions"])
    assert sum(n for row in report["prequential"]["confusion"].values() for n in row.values()) == report["examples"]
    assert sum(row["n"] for row in report["prequential"]["by_source"].values()) == report["examples"]
    windows = report["prequential"]["windows"]
    assert next((w["start"], w["end"], w["n"]) for w in windows) == (0, 250, 250)
    assert sum(w["n"] for w in windows) == report["prequential"]["n"]
    assert set(report["baselines"]) == {"majority", "last_label", "online_head", "frozen_mixture", "first_version"}
    assert {row["n"] for name, row in report["baselines"].items() if name != "first_version"} == {report["examples"]}
    assert set(report["retention"]) == {"segments", "matrix", "average_accuracy", "backward_transfer", "forgetting"}
    assert all(
        set(row) >= {"version", "parent", "examples", "fresh", "decision", "reasons", "holdouts"}
        for row in report["versions"]
    )
    assert set(report["swaps"]) >= {"count", "pause_ms_p50", "pause_ms_max", "requests_failed"}
    assert report["swaps"]["count"] == sum(row["decision"] == "promoted" for row in report["versions"]) > 0
    assert set(report["freshness_s"]) == {"p50", "p95"}
    assert set(report["seconds"]) >= {"total", "ingest", "predict", "train", "evaluate"}
    assert (
        sum(report["evaluation"][s]["n"] for s in report["evaluation"] if s != "all")
        == report["evaluation"]["all"]["n"]
    )
    for row in report["evaluation"].values():
        assert set(row["baselines"]) == set(report["baselines"])
        assert {one["n"] for one in row["baselines"].values()} == {row["n"]}
    json.dumps(report, allow_nan=False)


def test_each_promotion_tells_the_mixture_beside_the_head_on_the_hold_outs_of_its_gate(
    replay: Replay, tmp_path: Path
) -> None:
    """The last update comes after the last label: so its mixture answers the same hold-outs once more at the end."""
    stamps = [iso(START + timedelta(seconds=10 * place)) for place in range(301)]
    told = zip(simulated(300, unlabelled=0.0), stamps, strict=False)
    events = [{**event, "timestamp": at, "label_at": None} for event, at in told]
    events.append({"id": "late", "text": "a good phone", "label": None, "timestamp": stamps[-1]})
    often = {"every_s": 1000}
    first = replay(events, state=tmp_path / "state", schedule=often)
    with closing(sqlite3.connect(tmp_path / "state" / "buffer.sqlite3")) as db:
        held_out = {event_id for (event_id,) in db.execute("SELECT event_id FROM events WHERE holdout IS NOT NULL")}
    asked = write(tmp_path / "held_out.jsonl", [event for event in events if event["id"] in held_out])
    report = replay(events, eval_file=asked, schedule=often)
    promoted = [row for row in report["versions"] if row["decision"] == "promoted"]
    assert len(promoted) >= 2
    assert [row["holdouts"] for row in report["versions"]] == [row["holdouts"] for row in first["versions"]]
    for row in promoted:
        assert (row["holdouts"]["head"], row["holdouts"]["n"]) == (row["exam"]["accuracy"], row["exam"]["n"])
        gap = row["holdouts"]["mixture"] - row["holdouts"]["head"]
        assert row["holdouts"]["ahead"]["gap"] == pytest.approx(gap, abs=1e-12)
    final = report["evaluation"]["all"]
    assert promoted[-1] is report["versions"][-1]
    assert (promoted[-1]["holdouts"]["mixture"], promoted[-1]["holdouts"]["n"]) == (final["accuracy"], final["n"])
    assert final["accuracy"] != promoted[-1]["holdouts"]["head"], "else this shows nothing: take another stream"
    assert mixtures_in_words(report) in summarise(report)
    slow = replay(simulated(150), fast={"enabled": False})
    assert [row["holdouts"] for row in slow["versions"]] == [None] * len(slow["versions"])


def test_the_frozen_first_version_is_measured_from_its_promotion_on(replay: Replay, tmp_path: Path) -> None:
    events = simulated(300)
    events += events[:5]  # answered before the promotion already: no part of the range
    report = replay(events, state=tmp_path / "state", fast={"enabled": False})
    since = report["swaps"]["at_event"][0]["event"]
    truth = {e["id"]: e["label"] for e in events[since:300] if e["label"] is not None}
    accuracy, n, _ = by_hand(tmp_path / "state", truth)
    row = report["baselines"]["first_version"]
    assert (row["n"], row["version"]) == (n, 1)
    assert row["ours"] == pytest.approx(accuracy, abs=1e-12)
    warm = report["after_cold_start"]
    ours, first = warm["prequential"], warm["baselines"]["first_version"]
    assert (ours["accuracy"], ours["n"]) == (row["ours"], n)
    assert first == {name: row[name] for name in ("accuracy", "macro_f1", "n", "ahead")}
    assert first["ahead"]["gap"] == pytest.approx(row["ours"] - row["accuracy"], abs=1e-12)
    assert {name: one["n"] for name, one in warm["baselines"].items()} == dict.fromkeys(report["baselines"], n)
    assert report["prequential"]["n"] - n == sum(e["label"] is not None for e in events[:since])
    cold = accuracy * n / report["prequential"]["n"]
    assert report["prequential"]["accuracy"] == pytest.approx(cold, abs=1e-12), "before, all counted as wrong"


def test_the_summary_and_the_page_say_where_we_stand_and_what_the_cold_start_was(replay: Replay) -> None:
    report = replay(simulated(300))
    told, page = summarise(report), render_page(report)
    assert report["after_cold_start"]["prequential"]["n"]
    for sentence in (verdict(report), verdict_from_first_version(report)):
        assert sentence in told
        assert sentence in page
    assert f"Configuration: sha256 {report['config_sha256'][:12]}…" in page
    assert "by the wall clock" in page


def test_the_blind_baselines_equal_a_plain_loop(replay: Replay) -> None:
    events = plain(64, every_s=1.0)
    report = replay(events, evaluation={"holdout_share": 0.001}, schedule={"min_examples": 500, "max_examples": 500})
    seen: Counter[str] = Counter()
    right = 0
    for start in range(0, 64, 32):
        best = max(LABELS, key=lambda label: seen[label]) if seen else None
        right += sum(event["label"] == best for event in events[start : start + 32])
        seen.update(event["label"] for event in events[start : start + 32])
    assert report["holdout_examples"] == 0
    assert report["baselines"]["majority"]["accuracy"] == right / 64
    assert report["after_cold_start"]["prequential"] == {"accuracy": None, "macro_f1": None, "n": 0}
    assert verdict(report) in summarise(report)


def test_on_the_evaluation_file_each_baseline_answers_as_it_is_at_the_end(replay: Replay, tmp_path: Path) -> None:
    """The last label, and the one that was seen most often, by hand; the first version as it answered the stream."""
    later = iso(START + timedelta(hours=1))
    last = [{**plain(1)[0], "id": label, "label": label, "timestamp": later} for label in ("negative", "positive")]
    events, evaluation = [*plain(130), *last], plain(9)
    report = replay(events, eval_file=write(tmp_path / "eval.jsonl", evaluation), evaluation={"holdout_share": 0.001})
    assert report["holdout_examples"] == 0
    beside = report["evaluation"]["all"]["baselines"]
    assert Counter(event["label"] for event in events).most_common(1)[0][0] == "negative"
    for name, label in (("last_label", "positive"), ("majority", "negative")):
        assert beside[name]["accuracy"] == sum(event["label"] == label for event in evaluation) / 9
    assert report["swaps"]["count"] == 2
    assert beside["first_version"]["accuracy"] is not None


# --- dirty streams


def dirty_lines() -> dict[str, list[Json | bytes]]:
    """What is wrong with them, or how they are counted → lines."""
    at = iso(START)
    good = {"text": "a good phone", "timestamp": at, "label": "positive"}
    return {
        "undecodable": [b"{not json", b'\xff\xfe{"id": "x"}', b"[" * 100_000],
        "wrong_type": [
            b"[1, 2]",
            {**good, "id": ["a"]},
            {**good, "id": "num", "text": 5},
        ],
        "missing_field": [{"id": "no-text", "label": "positive"}, {"id": "null-text", "text": None}],
        "empty_text": [{**good, "id": "empty", "text": " \u200b\n"}],
        "text_too_long": [{**good, "id": "long", "text": "long " * 20_000}],
        "id_too_long": [{**good, "id": "i" * 600}],
        "conflicting_duplicate": [{**good, "id": "twice", "text": "another text"}],
        "duplicates": [{**good, "id": "twice"}, {**good, "id": "twice", "label": "negative"}, {**good, "id": "twice"}],
        "pending": [
            {**good, "id": "meh", "label": "meh"},
            {**good, "id": "bool-label", "label": True},
            {**good, "id": "null", "label": None},
            {"text": "no label"},
        ],
        "examples": [
            {**good, "text": "no id"},
            {**good, "id": 7},
            {**good, "id": "bom", "driftline_collected": True},
            {**good, "id": "when", "timestamp": "yesterday"},
        ],
    }


def test_every_dirty_line_is_accounted_for(replay: Replay, tmp_path: Path) -> None:
    dirty = dirty_lines()
    clean = simulated(120, unlabelled=0.0)
    first: Json = {"id": "twice", "text": "a good phone", "timestamp": None, "label": "positive"}
    odd = [line for lines in dirty.values() for line in lines]
    report = replay([*clean[:60], first, *odd, *clean[60:]], state=tmp_path / "state")
    letters = on_topic(tmp_path / "state", f"{FEED}.dead-letters")
    of_labels = {"unknown_label": 1, "wrong_type": 1}
    reasons = Counter(letter["reason"] for letter in letters)
    reasons.subtract(of_labels)
    expected = {reason: len(lines) for reason, lines in dirty.items() if reason not in report}
    assert +reasons == expected
    assert {place(letter) for letter in letters} == {FEED}
    assert report["dead_letters"] == sum(expected.values())
    assert report["dead_letters_by_reason"] == expected
    assert report["duplicates"] == len(dirty["duplicates"])
    assert report["pending"] == len(dirty["pending"])
    assert report["examples"] == 120 + 1 + len(dirty["examples"])
    assert report["events"] == 121 + len(odd)
    assert balanced(report)
    assert report["label_dead_letters_by_reason"] == of_labels
    assert report["label_dead_letters"] == 2
    assert report["swaps"]["requests_failed"] == 0
    answered = {prediction["id"] for prediction in on_topic(tmp_path / "state", f"{FEED}.predictions")}
    assert {"bom", "7", "meh", "bool-label", "null", "twice", "when"} <= answered


def live(made: Config, lines: list[bytes]) -> tuple[FeedCounts, dict[str, dict[str, int]]]:
    """What ingest counts of the lines as `produce` puts them on the topic, and the reasons of its dead letters."""
    with closing(wiring.build_topics(made)) as topics, closing(wiring.open_buffer(made)) as buffer:
        topics.append(FEED, [Outgoing(value=line) for line in lines])
        with closing(wiring.build_ingest(made, topics, buffer, SimulatedClock(START + timedelta(hours=1)))) as ingest:
            while ingest.step(0.0):
                pass
        return buffer.counts(FEED), buffer.letters.reasons(FEED)


@pytest.mark.parametrize("on_conflict", ["last", "first", "dead_letter"])
def test_a_dirty_file_counts_in_a_replay_as_it_does_live(tiny_base_dir: Path, tmp_path: Path, on_conflict: str) -> None:
    at = iso(START)
    good = {"text": "a good phone", "timestamp": at, "label": "positive"}
    odd = [line for lines in dirty_lines().values() for line in lines]
    odd += [{**good, "id": "twice", "label": label} for label in ("neutral", "positive", "1", "ANGRY")]
    odd += [{**good, "id": f"map-{label}", "label": label} for label in ("1", 1, " Positive", "angry")]
    odd += [
        {**good, "id": f"t-{n}", "timestamp": t} for n, t in enumerate(["01/02/2026", {}, 1e30, "Sun, 01 Mar 2026"])
    ]
    first: Json = {"id": "twice", "text": "a good phone", "timestamp": at, "label": "positive"}
    path = write(tmp_path / "dirty.jsonl", [*plain(60), first, *odd, *plain(60)])
    changes: Json = {"label_map": {"1": "negative"}, "fold_labels": True}
    made = config(tiny_base_dir, **changes)
    made = made.model_copy(update={"labels": LabelsConfig(on_conflict=on_conflict)})
    report = run_replay(made, FEED, [path], state=tmp_path / "replay", evaluation=path)
    replayed = made.model_copy(update={"state": made.state.model_copy(update={"path": tmp_path / "replay"})})
    with closing(wiring.open_buffer(replayed, read_only=True)) as buffer:
        found, reasons = buffer.counts(FEED), buffer.letters.reasons(FEED)
    streamed = made.model_copy(update={"state": made.state.model_copy(update={"path": tmp_path / "live"})})
    expected, expected_reasons = live(streamed, [line for line in path.read_bytes().splitlines() if line.strip()])
    assert reasons == expected_reasons
    for name in (
        "event_records",
        "examples",
        "unlabelled",
        "pending",
        "dead_letters",
        "label_dead_letters",
        "duplicates",
        "label_duplicates",
        "corrected",
        "times_fell_back",
        "labels_waiting",
        "by_reason",
    ):
        assert getattr(found, name) == getattr(expected, name), name
    assert report["dead_letters_by_reason"] == expected_reasons["event"]
    assert report["label_dead_letters_by_reason"] == expected_reasons["label"]
    assert expected.times_fell_back == 5
    assert expected.corrected == 0, "an event that comes again corrects nothing"
    assert expected.label_duplicates > 0
    assert ("conflicting_label" in expected.by_reason) == (on_conflict == "dead_letter")
    assert report["evaluation"]["all"]["n"] > 120


def nothing_to_see(text: str) -> bool:
    """Only control characters and spaces; those of Latin-1 are Windows' punctuation read wrongly, and repaired."""
    return all(unicodedata.category(c)[0] in "CZ" and not "\x80" <= c <= "\x9f" for c in text)


def test_a_hostile_stream_is_survived(replay: Replay) -> None:
    data = Path(os.environ.get("DRIFTLINE_DATA") or Path(__file__).parents[3] / "shared" / "data")
    path = data / "dirty_blns.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path}: set DRIFTLINE_DATA to the folder that has it")
    import gzip

    lines = gzip.decompress(path.read_bytes()).splitlines()
    report = replay([*lines, *plain(40)])
    empty = sum(nothing_to_see(json.loads(line)["text"]) for line in lines)
    assert report["events"] == len(lines) + 40
    assert (report["examples"], report["dead_letters"], report["duplicates"]) == (40, empty, 0)
    assert balanced(report)


# --- time


def test_labels_that_come_after_the_stream_are_waited_for(replay: Replay) -> None:
    later = iso(START + timedelta(days=2, seconds=30))
    report = replay(plain(80, label_at=later), prediction_wait_s=60.0, fast={"enabled": False})
    assert (report["examples"], report["pending"]) == (80, 0)
    assert report["prequential"]["accuracy"] == 0.0, "all were answered before any label came"
    assert report["versions"] == [], "the stream is over before the tick after the last label"


def test_labels_that_come_between_two_events_start_cycles_in_the_gap(replay: Replay) -> None:
    first = [{**event, "label_at": iso(START + timedelta(hours=1, seconds=i))} for i, event in enumerate(plain(80))]
    last = [{**event, "id": f"late-{i}"} for i, event in enumerate(plain(20, start=START + timedelta(days=1)))]
    report = replay([*first, *last])
    assert report["versions"][0]["created_at"] == "2026-03-01T01:01:00Z"
    windows = report["prequential"]["windows"]
    assert windows[-1]["version"] == 1
    assert report["freshness_s"]["p95"] <= 120


def test_a_label_inside_a_batch_can_make_a_tick_inside_the_batch_due(replay: Replay) -> None:
    """Events every 5 s, labels 1 s later: batches would span 160 s, but ticks come every 60 s."""
    events = plain(200, every_s=5.0)
    events = [{**e, "label_at": iso(utc(e["timestamp"]) + timedelta(seconds=1))} for e in events]
    report = replay(events, schedule={"every_s": 60, "min_examples": 10})
    made = [utc(row["created_at"]) - START for row in report["versions"]]
    assert made[0] == timedelta(seconds=60), "12 labels, of which 10 may be learned from"
    assert all(delta % timedelta(seconds=60) == timedelta(0) for delta in made)
    assert len(made) >= 11


def test_null_timestamps_are_a_second_apart(replay: Replay) -> None:
    events = [{**event, "timestamp": None} for event in plain(130)]
    report = replay(events)
    assert report["examples"] == 130
    assert report["versions"][0]["created_at"] == "2000-01-01T00:01:00Z"


def test_times_before_2000_and_backwards_and_far_beyond_are_survived(replay: Replay) -> None:
    old = plain(100, start=datetime(1987, 2, 26, tzinfo=UTC), label_at="1987-02-26T00:10:00Z")
    odd = [{**plain(1)[0], "id": "odd-1", "timestamp": "1901-01-01T00:00:00Z"}]
    odd += [{**plain(1)[0], "id": "odd-2", "timestamp": "9999-12-31T23:59:59Z"}, {**plain(1)[0], "id": "odd-3"}]
    report = replay([*old, *odd])
    assert report["examples"] == 103
    assert report["versions"][0]["created_at"].startswith("1987-02-26T00:1")
    assert report["freshness_s"]["p95"] < 3600


@pytest.mark.parametrize("schedule", [{"every_s": 1}, {"every_s": None, "cron": "* * * * *"}])
def test_years_without_events_cost_nothing(
    replay: Replay, monkeypatch: pytest.MonkeyPatch, schedule: dict[str, Any]
) -> None:
    calls = 0
    real = ticks_module.next_tick

    def counted(*arguments: Any) -> datetime:
        nonlocal calls
        calls += 1
        return real(*arguments)

    monkeypatch.setattr(ticks_module, "next_tick", counted)
    report = replay(plain(20, every_s=365 * 86400.0), schedule={"min_examples": 500, "max_examples": 500, **schedule})
    assert report["examples"] == 20
    assert calls < 200


def test_a_cron_schedule_is_kept(replay: Replay) -> None:
    report = replay(simulated(400, interval_s=20.0), schedule={"every_s": None, "cron": "*/30 * * * *"})
    made = [utc(row["created_at"]) for row in report["versions"]]
    assert len(made) >= 3
    assert all((moment.minute % 30, moment.second, moment.microsecond) == (0, 0, 0) for moment in made)


def test_what_no_label_comes_for_is_unlabelled_in_the_end(replay: Replay) -> None:
    silent = [{**event, "id": f"silent-{i}", "label": None} for i, event in enumerate(plain(10))]
    late = [{**plain(1)[0], "id": "late", "label_at": iso(START + timedelta(hours=5))}]
    rest = plain(60, start=START + timedelta(minutes=2), every_s=600.0)
    report = replay([*silent, *late, *rest], label_wait_s=3600.0, event_wait_s=1800.0)
    assert (report["unlabelled"], report["pending"], report["examples"]) == (11, 0, 60)
    assert report["label_dead_letters"] == 1
    assert balanced(report)


# --- the edges


def test_a_used_state_folder_is_refused(driftline: Driftline, tmp_path: Path) -> None:
    write(tmp_path / "events.jsonl", plain(1))
    (tmp_path / "driftline.toml").write_text('[feed.reviews]\nlabels = ["a", "b"]\n')
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("x")
    for state in ("used", "used/file"):
        result = driftline("replay", "events.jsonl", "--state", state)
        assert result.code == 2
        assert f"--state {state}" in result.err
        assert "empty folder" in result.err


def test_a_replay_without_examples_warns_and_shows_life(
    driftline: Driftline, tmp_path: Path, tiny_base_dir: Path
) -> None:
    write(tmp_path / "events.jsonl", [{**event, "label": "meh"} for event in plain(40)])
    (tmp_path / "driftline.toml").write_text(
        f'[base]\nmodel = "{tiny_base_dir}"\nmax_tokens = 32\ndevice = "cpu"\n'
        '[serve]\nthreads = 1\n[feed.reviews]\nlabels = ["bad", "good"]\n'
    )
    result = driftline("replay", "events.jsonl", "--limit", "40")
    assert result.code == 0
    assert "replay: 40 events, no version yet, 0 updates" in result.err
    assert "Loading the base model" in result.err
    assert "no example in 40 events" in result.out
    assert "set `labels` of [feed.reviews]" in result.out
    assert "the feed's labels are bad, good" in result.out


def test_a_replay_without_a_usable_event_says_why_and_fails(
    driftline: Driftline, tmp_path: Path, tiny_base_dir: Path
) -> None:
    write(tmp_path / "events.jsonl", [{"body": "good"}] * 3 + [{"text": 7}] * 2)
    (tmp_path / "driftline.toml").write_text(
        f'[base]\nmodel = "{tiny_base_dir}"\nmax_tokens = 32\ndevice = "cpu"\n'
        '[serve]\nthreads = 1\n[feed.reviews]\nlabels = ["bad", "good"]\n'
    )
    result = driftline("replay", "events.jsonl", "--report", "report.json")
    assert result.code == 1
    assert "no example in 5 events" in result.out
    assert "not one could be used (missing_field 3, wrong_type 2): name the file's fields in" in result.out
    assert json.loads((tmp_path / "report.json").read_text())["dead_letters"] == 5


def test_a_gzip_that_is_cut_short_is_named(tiny_base_dir: Path, tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "good"}\n' * 10_000)[:-20])
    with pytest.raises(UsageError, match=r"cut\.jsonl\.gz: cannot be read"):
        run_replay(config(tiny_base_dir), FEED, [path], limit=100_000)


def test_a_replay_without_updates_says_why_in_words_and_on_the_page(replay: Replay) -> None:
    report = replay(plain(40, every_s=0.5))
    assert (report["versions"], report["schedule"]["min_examples"]) == ([], 50)
    told = nothing_learned(report)
    assert f"there were {report['examples'] - report['holdout_examples']} examples to train on" in told
    assert escape(told) in summarise(report)
    assert told[1:].partition(":")[0] in render_page(report)


def test_labels_of_another_config_are_told_on_the_page(replay: Replay) -> None:
    report = replay([{**event, "label": "meh"} for event in plain(40)])
    assert (report["examples"], report["prequential"]["accuracy"], report["versions"]) == (0, None, [])
    assert report["label_dead_letters_by_reason"] == {"unknown_label": 40}
    lost = "40 labels could not be used: unknown_label; the feed's labels are negative, neutral, positive"
    assert lost in summarise(report)
    page = render_page(report)
    assert lost.replace("'", "&#39;") in page
    assert "nothing to compare" in page
    assert nothing_learned(report).endswith("set `labels` of [feed.reviews] to those of the file")


def test_the_label_of_a_refused_event_is_lost_with_it(replay: Replay) -> None:
    first = {**plain(1)[0], "id": "twice", "label": None}
    second = {**first, "text": "another text", "label": "positive"}
    report = replay([first, second, *plain(40, start=START + timedelta(minutes=1))])
    assert (report["examples"], report["pending"], report["dead_letters"]) == (40, 1, 1)
    assert report["label_dead_letters_by_reason"] == {}


def test_the_page_escapes_what_users_named(replay: Replay, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    labels = ["<img src=x onerror=alert(2)>", "neutral", "positive"]
    events = [{**e, "label": labels[i % 3], "source": hostile} for i, e in enumerate(plain(130))]
    evaluation = write(tmp_path / "eval.jsonl", events[:30])
    report = replay(events, eval_file=evaluation, labels=labels)
    assert report["evaluation"][hostile]["n"] == 30
    page = render_page(report)
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(2)&gt;" in page
    assert hostile not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
