"""`driftline up` as a user runs it: real processes, file topics, an embedded Redis; it learns, survives and drains."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from driftline.cli.status import collect
from driftline.clock import Deadline
from driftline.config import load_config
from driftline.names import StateFiles
from driftline.registry.embedded_home import Home
from stream.simulate import Simulation, simulate
from tests.fixtures.ports import free_ports
from tests.fixtures.processes import is_alive

EVENTS = 400
START_S = 120.0


@dataclass(frozen=True)
class Installation:
    """A config in a folder, and the `up` that runs on it."""

    config: Path
    port: int
    process: "subprocess.Popen[str]"
    log: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_verb(self.config, *arguments)

    def status(self) -> dict[str, Any]:
        """What `driftline status` shows, without a process for each look."""
        return collect(load_config(self.config), ["reviews"])

    def feed(self) -> dict[str, Any]:
        return dict(self.status()["feeds"]["reviews"])

    def ready(self) -> bool:
        """Whether the serving process answers; it may come up after the learner."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=30) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def predict(self, text: str) -> dict[str, Any]:
        body = json.dumps({"inputs": [{"id": "q", "text": text}]}).encode()
        url = f"http://127.0.0.1:{self.port}/v1/feeds/reviews/predict"
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as response:
            return dict(json.load(response)["predictions"][0])

    def wait_for(self, condition: Callable[[], object], seconds: float = START_S) -> None:
        deadline, tick = Deadline(seconds), threading.Event()
        while not condition():
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert not deadline.expired(), self.log.read_text()[-3000:]
            tick.wait(0.1)


def run_verb(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "driftline.cli", *arguments, "-c", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def installation(tmp_path: Path, tiny_base_dir: Path) -> Iterator[Installation]:
    """`up` on a fresh folder; ended at the end if the test has not."""
    port, admin_port = free_ports(2)
    config = tmp_path / "driftline.toml"
    config.write_text(
        f'[base]\nmodel = "{tiny_base_dir}"\nmax_tokens = 48\ndevice = "cpu"\n'
        f"[serve]\nport = {port}\nadmin_port = {admin_port}\nthreads = 1\n"
        '[feed.reviews]\nlabels = ["negative", "neutral", "positive"]\n'
        "[feed.reviews.schedule]\nevery_s = 1\nmin_examples = 60\nmax_examples = 150\n"
        "[feed.reviews.learner]\nthreads = 1\n"
    )
    log = tmp_path / "up.log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "driftline.cli", "up", "-c", str(config)]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True)
    yield Installation(config, port, process, log)
    if process.poll() is None:
        process.terminate()
        process.wait(90)
    run_verb(config, "stop")


def produce(at: Installation, first: int, last: int) -> None:
    events = list(simulate(Simulation(events=EVENTS)))[first:last]
    path = at.config.parent / f"events-{first}.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    result = at.run("produce", str(path), "--json")
    assert json.loads(result.stdout)["records"] == last - first, result.stderr


@pytest.mark.timeout(600)
def test_up_learns_answers_survives_and_drains(installation: Installation) -> None:
    at = installation
    at.wait_for(lambda: len([p for p in at.status()["processes"].values() if p["pid"]]) == 4)
    produce(at, 0, 200)

    at.wait_for(lambda: at.feed()["version"])
    at.wait_for(at.ready)
    at.wait_for(lambda: at.predict("The battery lasts a whole week.")["adapter_version"] >= 1)
    assert at.predict("The battery lasts a whole week.")["label"] in ("negative", "neutral", "positive")

    second = run_verb(at.config, "up")
    assert second.returncode == 2
    assert "runs already" in second.stderr

    pid = at.status()["processes"]["ingest"]["pid"]
    os.kill(pid, signal.SIGKILL)
    produce(at, 200, EVENTS)
    labelled = sum(event["label"] is not None for event in simulate(Simulation(events=EVENTS)))
    at.wait_for(lambda: at.feed()["counts"].examples == labelled)
    processes = at.status()["processes"]
    assert processes["ingest"]["restarts"] == 1
    assert processes["ingest"]["pid"] != pid

    found = json.loads(at.run("examples", "--json").stdout)["examples"]
    expected = {event["id"] for event in simulate(Simulation(events=EVENTS)) if event["label"] is not None}
    assert sorted(row["id"] for row in found) == sorted(expected)

    redis = Home(StateFiles(at.config.parent / "state").redis)
    pid = redis.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    at.wait_for(lambda: "redis_restarted" in at.log.read_text())
    assert redis.pid() not in (None, pid)

    back = at.run("rollback", "0", "--reason", "test", "--json")
    assert json.loads(back.stdout)["version"] == 0, back.stderr
    at.wait_for(lambda: at.predict("The battery lasts a whole week.")["adapter_version"] == 0)
    assert at.feed()["paused"]

    pids = [process["pid"] for process in at.status()["processes"].values()]
    at.process.send_signal(signal.SIGTERM)
    assert at.process.wait(90) == 0, at.log.read_text()[-3000:]
    assert all(not is_alive(pid) for pid in pids)
    assert "no embedded Redis was running" in at.run("stop").stdout
