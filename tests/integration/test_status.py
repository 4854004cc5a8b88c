"""`driftline status` on real processes that are killed: exit code 1 and the reason, for people and for scripts."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from driftline.assembly.wiring import build_registry, open_buffer
from driftline.cli.status import collect
from driftline.clock import Deadline
from driftline.config import load_config
from driftline.records import ADAPT_ROLE, ReplicaStatus
from tests.fixtures.cli import Driftline
from tests.fixtures.installation import Installation, run_verb, start_up, start_verb, write_config
from tests.fixtures.kafka import BrokerProcess
from tests.fixtures.processes import is_alive
from tests.fixtures.redis import RedisProcess

WITHIN_S = 300.0


def problems(config: Path) -> list[str]:
    """What `status --json` tells; its exit code must say the same."""
    result = run_verb(config, "status", "--json")
    found: list[str] = json.loads(result.stdout)["problems"]
    assert result.returncode == (1 if found else 0), result
    return found


def wait_for(condition: Callable[[], object]) -> None:
    deadline, tick = Deadline(WITHIN_S), threading.Event()
    while not condition():
        assert not deadline.expired(), "waited too long"
        tick.wait(0.1)


def is_told(config: Path, words: str) -> bool:
    return any(words in problem for problem in problems(config))


def seen(config: Path) -> list[str]:
    """What it tells, without a process for each look: that would take the machine from what is awaited."""
    found: list[str] = collect(load_config(config), ["reviews"])["problems"]
    return found


def is_seen(config: Path, words: str) -> bool:
    return any(words in problem for problem in seen(config))


@pytest.mark.timeout(600)
def test_what_up_runs_is_told_when_it_is_killed_and_when_it_is_stopped(installation: Installation) -> None:
    at = installation
    at.wait_for(at.ready)
    at.wait_for(lambda: seen(at.config) == [])
    assert problems(at.config) == []

    before = at.config.read_text()
    at.config.write_text(before.replace("every_s = 1\n", "every_s = 2\n"))
    assert is_told(
        at.config, "was changed, and adapt, ingest, learn, score, serve, up still run with what it said before"
    )
    at.config.write_text(before)

    os.kill(at.status()["processes"]["score"]["pid"], signal.SIGKILL)
    at.wait_for(lambda: is_seen(at.config, "score ended"))
    assert is_told(at.config, "exit code -9")

    pids = [process["pid"] for process in at.status()["processes"].values()]
    at.process.kill()
    at.process.wait()
    assert "`up` ended without being stopped at " in problems(at.config)[0]
    shown = run_verb(at.config, "status")
    assert (shown.returncode, "problem: `up` ended without being stopped" in shown.stdout) == (1, True)

    wait_for(lambda: not any(is_alive(pid) for pid in pids if pid))  # they die with it, after their drain
    process, log = start_up(at.config)
    again = Installation(at.config, at.port, process, log)
    try:
        again.wait_for(again.ready)
        again.wait_for(lambda: seen(at.config) == [])
        assert problems(at.config) == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0, log.read_text()[-3000:]
        (told,) = problems(at.config)
        assert told.startswith("nothing runs on ")
        assert "up" in told
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def serving(tmp_path: Path, tiny_base_dir: Path, kafka_broker: BrokerProcess, unique: str) -> Iterator[Path]:
    """A config on a Kafka broker and a Redis that a test may kill; a prefix and topics of its own."""
    more = f'events_topic = "{unique}"\n'
    servers = f'[topics]\nkind = "kafka"\nbootstrap_servers = "{kafka_broker.bootstrap}"\n'
    redis = RedisProcess(tmp_path / "own")
    config = write_config(tmp_path, tiny_base_dir, servers + f'[redis]\nurl = "{redis.start()}"\nprefix = "{unique}"\n')
    config.write_text(config.read_text().replace("[feed.reviews]\n", f"[feed.reviews]\n{more}"))
    yield config
    redis.stop()


@pytest.mark.timeout(600)
def test_verbs_and_servers_that_are_gone_are_told(serving: Path, kafka_broker: BrokerProcess) -> None:
    config = serving
    assert problems(config) == [], "nothing was ever started"
    verbs = {verb: start_verb(config, verb) for verb in ("ingest", "learn", "adapt", "serve", "score")}
    try:
        wait_for((config.parent / "state" / "buffer.sqlite3").exists)
        wait_for(lambda: seen(config) == [])
        assert problems(config) == []
        for verb, words in {
            "serve": "no replica answers reviews",
            "score": "no scorer answers the events of reviews",
            "learn": "no learner runs for reviews",
            "adapt": "no fast clock runs for reviews",
            "ingest": "no ingest runs on ",
        }.items():
            verbs[verb].kill()
            verbs[verb].wait()
            wait_for(lambda words=words: is_seen(config, words))
            assert is_told(config, words)
        kafka_broker.kill()
        assert is_told(config, f"topics: no Kafka broker answers at {kafka_broker.bootstrap}")
        RedisProcess(config.parent / "own").kill()
        wait_for(lambda: is_seen(config, "registry: Redis does not answer"))
        assert is_told(config, "registry: Redis does not answer")
    finally:
        end(verbs.values())
        kafka_broker.kill()
        kafka_broker.start()


def end(processes: "Iterator[subprocess.Popen[str]]") -> None:
    for process in processes:
        process.kill()
        process.wait()


def test_replicas_that_refuse_or_stay_behind_are_told(driftline: Driftline, tmp_path: Path, redis_url: str) -> None:
    prefix = tmp_path.name
    (tmp_path / "driftline.toml").write_text(
        f'[redis]\nurl = "{redis_url}"\nprefix = "{prefix}"\n[feed.reviews]\nlabels = ["x", "y"]\n'
    )
    config = load_config(tmp_path / "driftline.toml")
    registry = build_registry(config)
    open_buffer(config).close()
    at = datetime.now(UTC) - timedelta(seconds=30)
    registry.rollback("reviews", 0, expected_revision=0, actor="a", reason="r", at=at)
    refusal = {"reviews": "probe_failed: the probe's logits differ"}
    shared = {"url": None, "serving": {"reviews": 0}, "seen_at": at, "pid": 1}
    rows = (("a", "serve", 1, {}), ("b", "serve", 0, {}), ("c", "score", 0, refusal))
    for replica, role, revision, refused in rows:
        heartbeat = ReplicaStatus(
            replica=replica, role=role, revisions={"reviews": revision}, refused=refused, **shared
        )
        registry.heartbeat(heartbeat)
    unwell = {"pulses": {"reviews": 7}, "fell_back": ("reviews",), "refused": {"reviews": "BufferFull: no room"}}
    registry.heartbeat(
        ReplicaStatus(replica="d", role=ADAPT_ROLE, url=None, serving={}, revisions={}, seen_at=at, pid=1, **unwell)
    )
    result = driftline("status", "--json")
    registry.close()
    told = json.loads(result.out)["problems"]
    assert result.code == 1
    assert "scorer c does not serve what is live of reviews: probe_failed: the probe's logits differ" in told
    (behind,) = [problem for problem in told if "is behind" in problem]
    (fast,) = [problem for problem in told if "the fast clock stands still" in problem]
    assert fast.endswith("BufferFull: no room")
    assert any("the version's head answers alone" in problem for problem in told)
    assert json.loads(result.out)["feeds"]["reviews"]["fast"] == {"pulse": 7, "fell_back": True}
    assert behind.startswith("replica b is behind: it serves revision 0 of reviews, 1 is live since ")
