"""The command line without servers: verbs, exit codes, messages, files, and that nothing heavy is imported."""

import gzip
import io
import json
import logging
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import structlog

from driftline.assembly.logs import configure_logging
from driftline.assembly.reachable import out_of_reach
from driftline.assembly.supervisor import only_supervisor
from driftline.assembly.wiring import open_buffer
from driftline.buffer import Buffer, FeedCounts
from driftline.cli import app as cli
from driftline.cli.history import withdrawn
from driftline.cli.options import choose_actor, choose_feed
from driftline.cli.output import say_error, this_command, to_type
from driftline.cli.ports import require_ports
from driftline.cli.problems import stopped_feed
from driftline.cli.processes import with_serve_options
from driftline.cli.produce import batches, record_key
from driftline.cli.status import awaited, dead_letters_in_words, prequential_accuracy
from driftline.cli.up import Answering, commands
from driftline.config import Config, FeedConfig, FeedServeConfig, ScheduleConfig, load_config, parse_config
from driftline.errors import ConfigError, DriftlineError, UsageError
from driftline.names import StateFiles
from driftline.reasons import decision_in_words
from driftline.records import AuditEntry, DeadLetter, Event, GateDecision, GateReason, LiveRecord, RawRecord, iso
from driftline.topics import Outgoing
from driftline.topics.codec import Codec
from replay.laboratory import write_outputs
from replay.source import read_lines
from tests.fixtures import buffers
from tests.fixtures.cli import Driftline

VERBS = (
    *("demo", "init", "check", "up", "ingest", "learn", "serve", "score", "stop", "produce", "replay"),
    *("status", "history", "examples", "dead-letters"),
    *("promote", "rollback", "pause", "resume", "update-now", "export", "import"),
)
TWO_FEEDS = '[feed.a]\nlabels = ["x", "y"]\n[feed.b]\nlabels = ["x", "y"]\n'
ONE_FEED = '[feed.reviews]\nlabels = ["x", "y"]\n[feed.reviews.fields]\nid = "meta.key"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "driftline.toml"
    path.write_text(ONE_FEED)
    return path


def test_help_shows_every_verb(driftline: Driftline) -> None:
    shown = driftline("--help")
    assert shown.code == 0
    assert all(f" {verb} " in shown.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(driftline: Driftline, verb: str) -> None:
    assert driftline(verb, "--help").code == 0


def test_version(driftline: Driftline) -> None:
    assert driftline("--version").out.startswith("driftline ")


@pytest.mark.parametrize(
    "arguments", [["nosuch"], ["status", "--nosuch"], ["promote"], ["promote", "x"], ["promote", "0"]]
)
def test_wrong_usage_is_2(driftline: Driftline, arguments: list[str]) -> None:
    assert driftline(*arguments).code == 2


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["promote", "abc"], "'abc' is no version: write its number"),
        (["rollback", "--", "-1"], "'-1' is no version: write its number"),
        (["promote", "0", "-c", "./a/driftline.toml"], "`driftline rollback 0 -c a/driftline.toml`"),
        (["produce", "events.jsonl", "--topic", "foo"], "none of the feed's topics to write on: events, labels"),
        (["status", "-c", "a"], "a is a folder: name the config file in it, such as a/driftline.toml"),
    ],
)
def test_what_is_mistyped_is_told_in_plain_words(
    driftline: Driftline, tmp_path: Path, arguments: list[str], remedy: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "driftline.toml").write_text(ONE_FEED)
    result = driftline(*arguments)
    told = " ".join(result.err.replace("│", " ").split())
    assert (result.code, remedy in told) == (2, True), told
    assert not any(raw in told for raw in ("Value error", "Input should", "Errno"))


def test_a_missing_config_is_2_and_names_the_remedy(driftline: Driftline) -> None:
    result = driftline("status")
    assert result.code == 2
    assert "driftline init" in result.err
    assert "Traceback" not in result.err


def test_a_wrong_key_is_2_and_is_named(driftline: Driftline, config: Path) -> None:
    config.write_text(ONE_FEED + "[serve]\nprot = 1\n")
    result = driftline("ingest")
    assert result.code == 2
    assert "serve.prot: unknown key; did you mean 'port'?" in result.err


def test_a_bug_keeps_its_traceback(driftline: Driftline, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(ZeroDivisionError):
        driftline("status")


def test_init_writes_once(driftline: Driftline, tmp_path: Path) -> None:
    assert driftline("init", "new/place").code == 0
    path = tmp_path / "new" / "place" / "driftline.toml"
    assert list(load_config(path).feed) == ["reviews"]
    path.write_text("mine")
    again = driftline("init", "new/place")
    assert again.code == 2
    assert path.read_text() == "mine"


def test_several_feeds_must_be_told_apart(driftline: Driftline, config: Path) -> None:
    config.write_text(TWO_FEEDS)
    result = driftline("history")
    assert result.code == 2
    assert "--feed (a, b)" in result.err
    assert driftline("history", "--feed", "b").code == 0
    assert "the config has: a, b" in driftline("history", "--feed", "c").err


@pytest.mark.usefixtures("config")
def test_reading_verbs_make_nothing(driftline: Driftline, tmp_path: Path) -> None:
    for verb in (["status"], ["history"], ["examples"], ["dead-letters", "list"]):
        assert driftline(*verb).code == 0
        json.loads(driftline(*verb, "--json").out)
    assert driftline("dead-letters", "retry").code == 0
    assert not (tmp_path / "state").exists()


@pytest.mark.usefixtures("config")
def test_status_says_what_is_awaited(driftline: Driftline) -> None:
    shown = driftline("status").out
    assert ("driftline up" in shown, "accuracy" in shown) == (True, False), "there is no answer yet"
    document = json.loads(driftline("status", "--json").out)
    assert document["processes"] == {}
    assert document["feeds"]["reviews"]["version"] == 0
    assert document["feeds"]["reviews"]["prequential"] == {
        "accuracy": None,
        "macro_f1": None,
        "recall": {},
        "n": 0,
        "answered_share": None,
        "untrained": 0,
        "null_answers": 0,
    }


def test_stop_without_redis(driftline: Driftline, config: Path) -> None:
    assert "no embedded Redis was running" in driftline("stop").out
    config.write_text(ONE_FEED + '[redis]\nurl = "redis://localhost"\n')
    assert "nothing to stop" in driftline("stop").out


@pytest.mark.usefixtures("config")
def test_stop_is_refused_while_up_would_start_it_again(driftline: Driftline, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    file = StateFiles(tmp_path / "state").supervisor
    with only_supervisor(file):
        file.write_text(json.dumps({"processes": {"learn": {}}}))
        result = driftline("stop")
    assert (result.code, "`driftline up` runs here" in result.err) == (1, True)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.usefixtures("config")
def test_produce_keeps_every_byte(driftline: Driftline, tmp_path: Path, packed: bool) -> None:
    lines = b'{"text": "caf\xc3\xa9"}\n{ "odd" :1}\r\nnot json\n\xff\xfe\n\n   \nlast'
    path = tmp_path / "events.jsonl"
    path.write_bytes(gzip.compress(lines) if packed else lines)
    result = driftline("produce", str(path), "--json")
    document = json.loads(result.out)
    assert (document["topic"], document["records"]) == ("reviews", 5)
    topic = tmp_path / "state" / "topics" / "reviews" / "0.jsonl"
    assert topic.read_bytes() == b'{"text": "caf\xc3\xa9"}\n{ "odd" :1}\r\nnot json\n\xff\xfe\nlast\n'


@pytest.mark.usefixtures("config")
def test_produce_labels_and_standard_input(
    driftline: Driftline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"id": "1", "label": "x"}\n')))
    assert driftline("produce", "-", "--topic", "labels", "--rate", "1000").code == 0
    assert (tmp_path / "state" / "topics" / "reviews.labels" / "0.jsonl").read_text() == '{"id": "1", "label": "x"}\n'


@pytest.mark.usefixtures("config")
def test_produce_refuses_what_it_cannot_read(driftline: Driftline, tmp_path: Path) -> None:
    assert driftline("produce", "nosuch.jsonl").code == 2
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(b'{"text": "x"}\n' * 5000)[:-20])
    result = driftline("produce", str(torn))
    assert result.code == 2
    assert "cannot be read to its end" in result.err
    torn.write_bytes(gzip.compress(b'{"text": "x"}\n')[:-9])
    assert "nothing of it went out" in driftline("produce", str(torn)).err
    (tmp_path / "empty.jsonl").write_text("\n")
    empty = driftline("produce", "empty.jsonl")
    assert (empty.code, "empty.jsonl holds no record" in empty.err) == (0, True)


@pytest.mark.usefixtures("config")
def test_produce_says_what_went_out_before_the_damage(driftline: Driftline, tmp_path: Path) -> None:
    whole = gzip.compress(b'{"text": "x"}\n' * 1200)
    (tmp_path / "bad.gz").write_bytes(whole + whole[:10] + b"\xff" * 64)  # a block of no known type: zlib.error
    result = driftline("produce", "bad.gz")
    sent = (tmp_path / "state" / "topics" / "reviews" / "0.jsonl").read_bytes().count(b"\n")
    assert (result.code, sent) == (2, 1000)
    assert "first 1,000 records went out onto reviews" in result.err


def test_a_damaged_events_file_is_told_by_replay(tmp_path: Path) -> None:
    path = tmp_path / "bad.gz"
    whole = gzip.compress(b'{"text": "x"}\n')
    path.write_bytes(whole + whole[:10] + b"\xff" * 64)
    with pytest.raises(UsageError, match="cannot be read"):
        list(read_lines(path))


def test_tracebacks_in_the_log_hold_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(process="test")
    token = "-".join(["very", "secret"])
    try:
        raise ValueError(len(token))
    except ValueError:
        structlog.get_logger().exception("broken")
    written = capsys.readouterr().err
    assert ("ValueError" in written, "very-secret" in written) == (True, False)


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_state_path_that_is_no_folder_is_told_with_key_and_remedy(
    driftline: Driftline, config: Path, path: str
) -> None:
    (config.parent / "file").write_text("mine")
    (config.parent / "events.jsonl").write_text('{"text": "x"}\n')
    config.write_text(f'{ONE_FEED}[state]\npath = "{path}"\n[base]\nmodel = "no-such-model"\n')
    for verb in (["up"], ["produce", "events.jsonl"]):
        result = driftline(*verb)
        assert (result.code, "state.path = " in result.err, "Traceback" in result.err) == (2, True, False), verb
    for verb in (["status"], ["history"], ["examples"]):
        assert driftline(*verb).code == 0, verb
    checked = driftline("check")
    assert (checked.code, "set state.path elsewhere" in checked.out) == (1, True)


@pytest.mark.usefixtures("config")
def test_what_cannot_be_written_is_told_before_the_work(driftline: Driftline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "events.jsonl").write_text('{"text": "x"}\n')
    for arguments in (
        ["init", "file"],
        ["init", "file/below"],
        ["export", "1", "file"],
        ["replay", "events.jsonl", "--report", "folder"],
        ["replay", "events.jsonl", "--plot", "file/plot.html"],
    ):
        result = driftline(*arguments)
        assert (result.code, "Traceback" in result.err) == (2, False), (arguments, result.err)
    assert not (tmp_path / "state").exists()


def test_record_keys_are_the_ids_that_ingest_reads() -> None:
    assert record_key(b'{"id": "r-1"}', "id") == b"r-1"
    assert record_key(b'{"id": 17}', "id") == b"17"
    assert record_key(b'{"meta": {"key": "k"}}', "meta.key") == b"k"
    for nothing in (b"{}", b"[1]", b"not json", b'{"id": null}', b'{"id": {"a": 1}}', b"\xff", b"[" * 100_000):
        assert record_key(nothing, "id") is None


def test_batches_are_bounded_by_records_and_bytes() -> None:
    records = [Outgoing(value=b"x" * size) for size in (1, 1, 1, 90, 1, 200, 1)]
    sizes = [[len(record.value) for record in batch] for batch in batches(iter(records), 3, 100)]
    assert sizes == [[1, 1, 1], [90, 1, 200], [1]]
    assert [len(batch) for batch in batches(iter(records), 1, 100)] == [1] * 7


COUNTS = FeedCounts(event_records=500, examples=200, holdouts=20, pending=300, fresh=112)


@pytest.mark.parametrize(
    ("counts", "live", "words"),
    [
        (None, LiveRecord(feed="f"), ["ingest has not run yet"]),
        (FeedCounts(), LiveRecord(feed="f"), ["no event has come yet"]),
        (FeedCounts(labels_waiting=2), None, ["no event has come yet; 2 labels wait for their event"]),
        (
            FeedCounts(event_records=9, pending=9),
            None,
            ["0 of 250 examples", "nothing labelled yet", "9 events without"],
        ),
        (COUNTS, LiveRecord(feed="f"), ["112 of 250 examples", "300 events without label"]),
        (
            replace(COUNTS, pending=0, awaiting_prediction=1),
            None,
            ["112 of 250 examples; 1 example without the answer"],
        ),
        (replace(COUNTS, fresh=260), None, ["260 examples wait, 250 are enough: the next tick"]),
        (replace(COUNTS, fresh=260, returned=150), None, ["110 of 250 examples", "150 examples of a rejected update"]),
        (replace(COUNTS, fresh=0, taken=250), None, ["an update with 250 examples is under way"]),
        (replace(COUNTS, set_aside=3), None, ["3 examples set aside", "--relearn"]),
        (COUNTS, LiveRecord(feed="f", paused=True, pause_reason="bad"), ["paused (bad)", "driftline resume"]),
    ],
)
def test_what_is_awaited_in_words(counts: FeedCounts | None, live: LiveRecord | None, words: list[str]) -> None:
    section = FeedConfig(labels=("x", "y"), schedule=ScheduleConfig(min_examples=250))
    sentence = awaited(counts, live, section)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("reason", "learner", "words"),
    [
        (None, {}, None),
        (None, {"learn": {"state": "running", "exit_code": 1, "restarts": 1}}, None),
        (None, {"learn": {"state": "waiting", "exit_code": None, "restarts": 0}}, None),
        (None, {"learn": {"state": "waiting", "exit_code": 1, "restarts": 3}}, "exit code 1, restart 3 follows"),
        (None, {"learn": {"state": "refused", "exit_code": 2, "restarts": 0}}, "then start `up` again"),
        (None, {"learn": {"state": "refused", "exit_code": 2, "restarts": 4}}, "after 4 restarts (exit code 2)"),
        ("bad blob", {"learn": {"state": "running", "exit_code": None, "restarts": 0}}, "by itself: bad blob"),
    ],
)
def test_status_tells_why_nothing_is_learned(
    reason: str | None, learner: dict[str, dict[str, object]], words: str | None
) -> None:
    told = stopped_feed(reason, learner)
    assert told is None if words is None else told is not None and words in told


@pytest.mark.usefixtures("config")
def test_a_process_that_keeps_ending_is_a_problem(driftline: Driftline, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    file = StateFiles(tmp_path / "state").supervisor
    ended = {"pid": None, "state": "waiting", "restarts": 3, "exit_code": 1}
    starting = {"started_at": iso(datetime.now(UTC))}
    started = {"pid": 7, "state": "running", "restarts": 1, "exit_code": -9, **starting}
    first = {"pid": 8, "state": "running", "restarts": 0, "exit_code": None, **starting}
    with only_supervisor(file):
        processes = {"ingest": ended, "learn": started, "adapt": first, "serve": first, "score": ended}
        file.write_text(json.dumps({"processes": processes}))
        result = driftline("status")
    words = "ended with exit code 1, restart 3 follows; its reason is in up's log"
    assert result.code == 1
    assert f"nothing comes in: ingest {words}" in result.out
    assert [line for line in result.out.splitlines() if "problem:" in line] == [
        f"problem: ingest {words}",
        f"problem: score {words}",
    ]


@pytest.mark.parametrize(
    ("quick_ends", "ended", "words"),
    [
        (4, 12, "learn ended 4 times in a row, last 12 s ago with exit code 1, and runs again now"),
        (1, 12, "learn ended once, last 12 s ago with exit code 1, and runs again now"),
        (4, 90, None),
    ],
)
@pytest.mark.usefixtures("config")
def test_a_process_that_keeps_ending_is_a_problem_also_while_it_runs(
    driftline: Driftline, tmp_path: Path, quick_ends: int, ended: int, words: str | None
) -> None:
    (tmp_path / "state").mkdir()
    file, now = StateFiles(tmp_path / "state").supervisor, datetime.now(UTC)
    first = {"pid": 7, "state": "running", "restarts": 0, "exit_code": None, "started_at": iso(now)}
    again = first | {"restarts": 4, "exit_code": 1, "quick_ends": quick_ends}
    again |= {"ended_at": iso(now - timedelta(seconds=ended))}
    with only_supervisor(file):
        file.write_text(
            json.dumps({"processes": {"ingest": first, "learn": again, "adapt": first, "serve": first, "score": first}})
        )
        result = driftline("status", "--json")
    told = [re.sub(r"last \d+ s", "last 12 s", problem) for problem in json.loads(result.out)["problems"]]
    assert result.code == (1 if words else 0)
    assert told == ([f"{words}; its reason is in up's log"] if words else [])


@pytest.mark.usefixtures("config")
def test_a_buffer_of_an_older_format_is_a_problem(driftline: Driftline, config: Path) -> None:
    loaded = load_config(config)
    open_buffer(loaded).close()
    with closing(sqlite3.connect(StateFiles(loaded.state.path).buffer)) as db:
        db.execute("PRAGMA user_version = 4")
    result = driftline("status", "--json")
    told = [problem for problem in json.loads(result.out)["problems"] if problem.startswith("buffer: ")]
    assert result.code == 1
    assert len(told) == 1
    assert "has format 4, which an older Driftline wrote" in told[0]


def test_quality_is_told_of_the_last_examples_and_without_scorer_which_share_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [buffers.event("a", 0, label="pos"), buffers.event("b", 1, label="pos"), buffers.event("c", 2)]
    with closing(Buffer.open(tmp_path / "buffer.sqlite3", buffers.rules(), buffers.KEY)) as buffer:
        records = [*events, buffers.prediction("a", "pos", 0)]
        buffer.intake.append(records, buffers.up_to(buffers.EVENTS, 3), buffers.at(9))
        quality = partial(prequential_accuracy, buffer, buffers.FEED)
        labels = ("neg", "pos")
        over_http = quality(FeedConfig(labels=labels, serve=FeedServeConfig(score=False)))
        assert over_http == figures(1.0, macro_f1=1.0, n=1, answered_share=0.5, untrained=1)
        assert quality(FeedConfig(labels=labels)) == figures(0.5, macro_f1=2 / 3, n=2, answered_share=0.5, untrained=1)
        monkeypatch.setattr("driftline.cli.status.LAST_EXAMPLES", 1)
        assert quality(FeedConfig(labels=labels)) == figures(0.0, macro_f1=0.0, n=1, answered_share=0.0, untrained=0)


def test_an_answer_that_named_no_label_is_counted_apart_from_one_of_version_0(tmp_path: Path) -> None:
    events = [buffers.event("a", 0, label="pos"), buffers.event("b", 1, label="pos")]
    answers = [buffers.prediction("a", None, 0), buffers.prediction("b", "pos", 0, 1)]
    with closing(Buffer.open(tmp_path / "buffer.sqlite3", buffers.rules(), buffers.KEY)) as buffer:
        buffer.intake.append([*events, *answers], buffers.up_to(buffers.EVENTS, 2), buffers.at(9))
        told = prequential_accuracy(buffer, buffers.FEED, FeedConfig(labels=("neg", "pos")))
    assert told == figures(0.5, macro_f1=2 / 3, n=2, answered_share=1.0, untrained=2, null_answers=1)


def figures(accuracy: float, *, n: int, **others: float) -> dict[str, object]:
    """Of a feed all of whose examples are `pos`."""
    told = {"accuracy": accuracy, "recall": {"pos": {"recall": accuracy, "n": n}}, "n": n, "null_answers": 0}
    return told | others


def one_feed(**feed: object) -> Config:
    return parse_config({"feed": {"reviews": {"labels": ["x", "y"], **feed}}}, root=Path("/nowhere"))


def test_up_starts_one_process_per_verb() -> None:
    assert list(commands(one_feed(), Path("c.toml"))) == ["ingest", "learn", "adapt", "serve", "score"]
    assert list(commands(one_feed(serve={"score": False}, fast={"enabled": False}), Path("c.toml"))) == [
        "ingest",
        "learn",
        "serve",
    ]
    assert commands(one_feed(), Path("c.toml"))["learn"][1:] == [
        "-m",
        "driftline.cli",
        "learn",
        "-c",
        str(Path("c.toml").absolute()),
    ]


def test_a_taken_port_is_told_before_anything_starts(driftline: Driftline, config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for section, key in (
            (f"[serve]\nport = {port}\n", "serve.port"),
            (f"[serve]\nadmin_port = {port}\n", "serve.admin_port"),
            (f"[metrics]\nlearn_port = {port}\n", "metrics.learn_port"),
        ):
            config.write_text(ONE_FEED + section)
            result = driftline("up")
            assert (result.code, f"set another {key}" in result.err) == (2, True), result.err
    assert not StateFiles(config.parent / "state").redis.exists()


def test_a_taken_port_is_told_by_the_demo(driftline: Driftline, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = driftline("demo", "--dir", str(tmp_path / "demo"), "--port", str(port))
    assert result.code == 2
    assert f"--port {port}: Address already in use: name another" in " ".join(result.err.split())


def test_a_report_that_finds_no_room_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DriftlineError, match=r"/dev/full: cannot be written .No space left on device") as caught:
        write_outputs({"events": 7}, Path("/dev/full"), None)
    assert caught.value.exit_code == 1
    assert json.loads(capsys.readouterr().out) == {"events": 7}


def test_two_keys_for_one_port_are_told() -> None:
    config = parse_config(
        {"feed": {"reviews": {"labels": ["x", "y"]}}, "serve": {"port": 8123}, "metrics": {"learn_port": 8123}},
        root=Path("/nowhere"),
    )
    with pytest.raises(ConfigError, match=r"metrics\.learn_port is the port of serve\.port"):
        require_ports(config)


def test_check_refuses_the_ports_that_up_refuses(driftline: Driftline, config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    config.write_text(f'{ONE_FEED}[serve]\nport = {port}\nadmin_port = {port}\n[base]\nmodel = "no-such-model"\n')
    checks = {finding["name"]: finding for finding in json.loads(driftline("check", "--json").out)["checks"]}
    assert (checks["serve.port"]["ok"], checks["serve.admin_port"]["ok"]) == (True, False)
    assert checks["serve.admin_port"]["detail"] in driftline("up").err


@pytest.mark.usefixtures("config")
def test_a_damaged_buffer_is_a_problem_and_not_a_first_start(driftline: Driftline, tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "state")
    files.buffer.parent.mkdir(parents=True)
    files.buffer.write_bytes(b"this is no database" * 99)
    result = driftline("status")
    assert result.code == 1
    assert "problem:" in result.out
    assert "ingest has not run yet" not in result.out
    assert json.loads(driftline("status", "--json").out)["problems"]


def test_dead_letters_are_told_by_kind() -> None:
    counts = FeedCounts(dead_letters=11, label_dead_letters=2, by_reason={"no_text": 11, "no_event": 2})
    assert dead_letters_in_words(counts) == "dead letters: 11 events, 2 labels (no_event 2, no_text 11)"


def test_hints_name_the_command_as_it_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / ".venv" / "bin" / "driftline"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    for typed, named in (
        (str(script), ".venv/bin/driftline"),
        ("driftline", "driftline"),
        ("__main__.py", "driftline"),
    ):
        monkeypatch.setattr(sys, "argv", [typed])
        assert this_command() == named
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(script.parent))
    assert this_command() == "driftline"


def test_hints_can_be_typed_where_the_shell_does_not_find_driftline(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "driftline"
    script.parent.mkdir()
    script.write_text("from driftline.cli.app import run\nrun()\n")
    config = tmp_path / "driftline.toml"
    for verb, hint in (
        (["status"], "make one with `bin/driftline init`"),
        (["init", "a b"], "then: bin/driftline check -c 'a b/driftline.toml'"),
        (["examples"], "see `bin/driftline status`"),
        (["examples", "-c", "driftline.toml"], "see `bin/driftline status`"),
        (["examples", "-c", "a b/driftline.toml"], "see `bin/driftline status -c 'a b/driftline.toml'`"),
        (["status", "-c", "no.toml"], "make one with `bin/driftline init`"),
    ):
        if verb[0] == "examples":
            config.write_text(ONE_FEED)
        command = [sys.executable, str(script), *verb]
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env={**os.environ, "PATH": os.defpath}
        )
        assert hint in run.stdout + run.stderr


def test_hints_from_below_the_command_line_name_the_config_too(
    driftline: Driftline, capsys: pytest.CaptureFixture[str]
) -> None:
    driftline("status", "-c", "my/feed.toml")
    say_error("start `driftline ingest` (or `driftline up -c x`) first, or `driftline init`")
    assert "start `driftline ingest -c my/feed.toml` (or `driftline up -c x`) first, or `driftline init`" in (
        capsys.readouterr().err
    )
    driftline("status")
    assert to_type("status") == "driftline status"


def test_others_loggers_are_quiet_in_verbs_and_heard_in_processes_only_with_errors() -> None:
    for process, kafka in ((None, logging.CRITICAL), ("ingest", logging.ERROR)):
        configure_logging(process=process)
        assert logging.getLogger("kafka.net.manager").getEffectiveLevel() == kafka
        assert logging.getLogger("huggingface_hub.utils._http").getEffectiveLevel() == kafka


def test_dead_letters_say_how_many_there_are_and_go_by_reason_and_number(driftline: Driftline, config: Path) -> None:
    letters = [buffers.letter(buffers.EVENTS, number) for number in range(24)]
    letters.append(buffers.letter(buffers.EVENTS, 24, "no_event"))
    with closing(open_buffer(load_config(config))) as buffer:
        buffer.intake.append(letters, buffers.up_to(buffers.EVENTS, 25), buffers.at(9))
    assert "20 of 25, newest first; --limit N, --reason REASON" in driftline("dead-letters", "list").out
    assert "state to_send: it waits to be put on the dead-letter topic" in driftline("dead-letters", "list").out
    few = driftline("dead-letters", "list", "--reason", "no_event")
    assert ("no_event" in few.out, "undecodable" in few.out, "newest first" in few.out) == (True, False, False)
    few_json = json.loads(driftline("dead-letters", "list", "--reason", "no_event", "--json").out)
    assert (few_json["total"], [row["reason"] for row in few_json["dead_letters"]]) == (1, ["no_event"])
    unknown = driftline("dead-letters", "list", "--reason", "nosuch")
    assert (unknown.code, "there are: undecodable" in unknown.err) == (2, True)
    assert "2 dead letters marked" in driftline("dead-letters", "retry", "1", "--id", "2").out
    again = driftline("dead-letters", "retry", "1")
    assert (again.code, again.out) == (0, "0 dead letters marked\n"), "it waits for its retry already"
    wrong = driftline("dead-letters", "retry", "9999", "3")
    assert wrong.code == 2
    assert "no dead letter 9999; none was marked: `driftline dead-letters list` shows their numbers" in wrong.err
    rest = driftline("dead-letters", "retry").out
    assert "23 dead letters marked; ingest tries them again, by the config that it was started with" in rest
    assert "`driftline dead-letters list` shows what is left" in rest


@pytest.mark.parametrize(("unknown", "known", "told"), [(20, 0, True), (20, 2, True), (20, 3, False), (9, 0, False)])
def test_status_tells_that_nearly_no_label_is_one_of_the_feeds(
    driftline: Driftline, config: Path, unknown: int, known: int, told: bool
) -> None:
    events = [buffers.event(f"e{number}", number, label="x") for number in range(known)]
    refused = [buffers.letter(buffers.LABELS, number, "unknown_label") for number in range(unknown)]
    letters = [replace(letter, kind="label") for letter in refused]
    with closing(open_buffer(load_config(config))) as buffer:
        buffer.intake.append([*events, *letters], {}, buffers.at(9))
    result = driftline("status", "--json")
    found = [one for one in json.loads(result.out)["problems"] if "none of the feed's labels" in one]
    assert [one.partition(":")[0] for one in found] == (
        [f"{unknown} of {unknown + known} labels of reviews are none of the feed's labels"] if told else []
    )
    assert not told or result.code == 1


@pytest.mark.usefixtures("config")
def test_no_dead_letter_has_a_number_where_nothing_was_read(driftline: Driftline) -> None:
    assert driftline("dead-letters", "retry", "7").code == 2


def test_an_imported_version_was_not_rejected() -> None:
    decision = GateDecision(promote=False, reasons=(GateReason(code="imported", holds=False),))
    assert decision_in_words(decision) == "imported, not judged by the gate"


def entry(action: str, before: int, after: int) -> AuditEntry:
    fields = {"entry_id": "1-0", "feed": "f", "revision": 1, "actor": "a", "reason": "r", "at": datetime.now(UTC)}
    return AuditEntry(action=action, version=after, from_version=before, **fields)  # type: ignore[arg-type]


def test_what_a_rollback_took_back_is_withdrawn_until_it_is_promoted_again() -> None:
    audit = [entry("promoted", 0, 1), entry("promoted", 1, 2), entry("promoted", 2, 4), entry("rolled_back", 4, 1)]
    assert withdrawn(audit) == {2, 4}
    assert withdrawn([*audit, entry("promoted", 1, 4)]) == {2}
    assert withdrawn([*audit, entry("rolled_back", 1, 0)]) == {1, 2, 4}
    assert withdrawn([entry("promoted", 0, 2), entry("rolled_back", 2, 1), entry("resumed", 1, 1)]) == {2}


def servers_that_are_away() -> Config:
    """Port 1 of this machine, where nobody listens."""
    document = {
        "topics": {"kind": "kafka", "bootstrap_servers": "127.0.0.1:1, [::1]:1"},
        "redis": {"url": "redis://:secret@127.0.0.1:1/0"},
        "feed": {"reviews": {"labels": ["x", "y"]}},
    }
    return parse_config(document, root=Path("/nowhere"))


def test_servers_that_take_connections_are_not_away() -> None:
    assert out_of_reach(one_feed()) == [], "files, and a Redis of its own"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        document = {
            "topics": {"kind": "kafka", "bootstrap_servers": f"127.0.0.1:1,127.0.0.1:{port}"},
            "redis": {"url": f"redis://127.0.0.1:{port}"},
            "feed": {"reviews": {"labels": ["x", "y"]}},
        }
        assert out_of_reach(parse_config(document, root=Path("/nowhere"))) == []


class _Ready(BaseHTTPRequestHandler):
    """/readyz as serve answers it: 503 once, then 200."""

    codes: ClassVar[list[int]] = [503, 200]

    def do_GET(self) -> None:
        self.send_response(self.codes.pop(0))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_up_says_when_it_answers(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    with ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        away = partial(out_of_reach, servers_that_are_away())
        answering = Answering("127.0.0.1", server.server_port, away, lambda: now[0])
        for now[0] in (115.0, 141.0, 190.0):
            answering.look()
        server.shutdown()
        thread.join()
    waiting, answers = capsys.readouterr().out.splitlines()
    assert "waiting for serve" in waiting
    assert f"answering on http://127.0.0.1:{server.server_port} after 41 s" in answers
    for said in (waiting, answers):
        assert said.endswith(
            "no connection to Kafka at 127.0.0.1:1, [::1]:1 and Redis at 127.0.0.1:1: what needs it waits, and goes on "
            "by itself"
        )


def test_options_override_the_serve_section() -> None:
    config = with_serve_options(one_feed(), port=0, admin_port=None, replica="b")
    assert (config.serve.port, config.serve.admin_port, config.serve.replica) == (0, 8081, "b")
    with pytest.raises(ConfigError, match=r"serve.replica = 'b/c': use letters, digits"):
        with_serve_options(one_feed(), replica="b/c")


def test_the_only_feed_needs_no_name() -> None:
    assert choose_feed(one_feed(), None) == "reviews"
    with pytest.raises(UsageError, match="no such feed"):
        choose_feed(one_feed(), "other")


def test_the_actor_is_the_user_unless_named() -> None:
    assert choose_actor("ana") == "ana"
    assert choose_actor(None)


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["produce", "events.jsonl"], ["history"]])
def test_light_verbs_import_nothing_heavy(config: Path, arguments: list[str]) -> None:
    (config.parent / "events.jsonl").write_text('{"text": "x"}\n')
    code = (
        f"import sys\nsys.argv = ['driftline', *{arguments!r}]\nfrom driftline.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('loaded:', *{name.split('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=config.parent)
    loaded = set(run.stdout.rpartition("loaded:")[2].split())
    assert loaded & {"torch", "transformers", "peft", "kafka", "fastapi"} == set()


HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\r\nproblem: none\u202egnp.exe\u2066\u2028\x08\x7fz"


def test_what_came_over_topics_steers_no_terminal(driftline: Driftline, config: Path) -> None:
    """Ids, sources, texts, labels, and the values that dead letters show."""
    feed = load_config(config).feed["reviews"]
    values = [{"id": HOSTILE, "text": 5}, {"id": "1", "text": "x", "label": {HOSTILE: HOSTILE}}]
    letters = []
    for number, value in enumerate(values, start=1):
        raw = RawRecord(
            position=buffers.place(buffers.EVENTS, number), next_offset=number + 1, value=json.dumps(value).encode()
        )
        decoded = Codec("reviews", feed).event(raw)
        letter = decoded.refused_label if isinstance(decoded, Event) else decoded
        assert isinstance(letter, DeadLetter)
        letters.append(letter)
    strange = replace(letters[0], position=buffers.place(buffers.EVENTS, 3), detail=HOSTILE)
    shown = replace(buffers.event(HOSTILE, 0, text=HOSTILE, label=feed.labels[0]), source=HOSTILE)
    with closing(open_buffer(load_config(config))) as buffer:
        records = [shown, buffers.prediction(HOSTILE, feed.labels[0], 0), *letters, strange]
        buffer.intake.append(records, buffers.up_to(buffers.EVENTS, 4), buffers.at(9))
    for arguments in (["dead-letters", "list"], ["examples"], ["status"]):
        for more in ([], ["--json"]):
            result = driftline(*arguments, *more)
            written = result.out + result.err
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", written), arguments
            assert not re.search("^problem: none", written, re.M), arguments
    assert "text: 5" in driftline("dead-letters", "list").out
    found = json.loads(driftline("dead-letters", "list", "--json").out)["dead_letters"]
    shown_by_id = {row["id"]: (row["field"], row["value"]) for row in found}
    assert shown_by_id[1] == ("text", "5")
    assert shown_by_id[2][0] == "label"
    assert shown_by_id[2][1].startswith('{"a\\u001b[31mred')
    assert json.loads(driftline("examples", "--json").out)["examples"][0]["id"] == HOSTILE
