"""What every process does on its own machine: metrics on a port, names of its own on a shared cluster, patience."""

import math
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog

from driftline import metrics
from driftline.assembly import run, wiring
from driftline.assembly.logs import configure_logging
from driftline.clock import SystemClock
from driftline.config import parse_config
from driftline.errors import ConfigError, TopicUnavailable
from driftline.topics import Partition
from driftline.topics.codec import encode_event

FEED = {"reviews": {"labels": ["bad", "good"]}}


def test_metrics_are_shown_on_their_port_and_a_taken_one_is_named() -> None:
    with metrics.exposed(metrics.LEARNER, "127.0.0.1", 0, "metrics.learn_port") as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            shown = answer.read()
        assert b"driftline_cycles_total" in shown
        assert b"driftline_ingest" not in shown, "another process's"
        with (
            pytest.raises(ConfigError, match=rf"metrics\.score_port = {port}"),
            metrics.exposed(metrics.SERVING, "127.0.0.1", port, "metrics.score_port"),
        ):
            pass
    with metrics.exposed(metrics.SERVING, "127.0.0.1", port, "metrics.score_port") as again:
        assert again == port, "it is free again"
    with metrics.exposed(metrics.INGEST, "not an address", None, "metrics.ingest_port") as unasked:
        assert unasked is None


def test_the_prefix_stands_in_the_name_of_ingests_group(tmp_path: Path) -> None:
    config = parse_config({"redis": {"prefix": "north"}, "feed": FEED}, root=tmp_path)
    with closing(wiring.open_buffer(config)) as buffer, closing(wiring.build_topics(config)) as topics:
        topics.append("reviews", [encode_event("a", "good phone")])
        with closing(wiring.build_ingest(config, topics, buffer, SystemClock())) as ingest:
            assert ingest.step(5.0) == 1
        events = Partition(topic="reviews", partition=0)
        assert topics.committed("north-ingest-reviews", [events])
        assert not topics.committed("driftline-ingest-reviews", [events])


def test_a_prefix_that_fits_no_group_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prefix.*letters, digits"):
        parse_config({"redis": {"prefix": "north/east"}, "feed": FEED}, root=tmp_path)


def test_a_learner_refuses_to_learn_one_rank_of_several(tmp_path: Path) -> None:
    config = parse_config({"ingest": {"rank": 1, "of_ranks": 2}, "feed": FEED}, root=tmp_path)
    with pytest.raises(ConfigError, match=r"ingest\.of_ranks = 2: .* never be learned: set ingest\.of_ranks to 1"):
        wiring.build_learner_service(config)


def test_paused_feeds_leave_room_for_what_a_rejected_update_of_another_gives_back(tmp_path: Path) -> None:
    """At the least limit that the config allows, with one big feed beside two small ones."""
    needs = {"big": (1000, 8000), "small": (10, 90), "tiny": (1, 1)}
    feeds = {
        name: {**FEED["reviews"], "schedule": {"min_examples": least, "max_examples": largest}}
        for name, (least, largest) in needs.items()
    }
    limit = math.ceil(sum(map(sum, needs.values())) / 0.9)
    config = parse_config({"ingest": {"max_waiting_examples": limit}, "feed": feeds}, root=tmp_path)
    keep = {name: wiring.keep_waiting(config, name) for name in needs}
    assert all(least <= keep[name] for name, (least, _) in needs.items() if name != "tiny")
    for active, (least, largest) in needs.items():
        paused = sum(kept for name, kept in keep.items() if name != active)
        assert largest + least + paused < config.ingest.resume_below_examples, active


def test_what_needs_the_topics_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "TOPICS_AGAIN_S", 0.001)
    stop, tries = threading.Event(), iter([False, False, True])

    def build() -> str:
        if not next(tries):
            raise TopicUnavailable("no broker answers")
        return "built"

    assert run.patiently(build, stop) == "built"


def test_what_is_told_to_stop_waits_no_longer() -> None:
    stop = threading.Event()

    def build() -> str:
        stop.set()
        raise TopicUnavailable("no broker answers")

    assert run.patiently(build, stop) is None
    assert run.patiently(build, stop) is None


@pytest.fixture
def own_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("readable", [False, True])
def test_tracebacks_in_the_log_show_no_local_variables(
    readable: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: readable)
    configure_logging(process="serve")
    text = "what a user " + "wrote"
    try:
        raise RuntimeError(f"a bug with {len(text)}")
    except RuntimeError as error:
        structlog.get_logger().error("request_broke", exc_info=error)
    logged = capsys.readouterr().err
    assert "a bug with 17" in logged
    assert "what a user wrote" not in logged
