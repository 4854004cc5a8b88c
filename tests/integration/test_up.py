"""`driftline up` as a user runs it: real processes, file topics, an embedded Redis; it learns, survives and drains."""

import json
import os
import signal

import pytest

from driftline.names import StateFiles
from driftline.registry.embedded_home import Home
from replay.simulate import Simulation, simulate
from tests.fixtures.installation import EVENTS, Installation, produce, run_verb
from tests.fixtures.processes import is_alive


@pytest.mark.timeout(600)
def test_up_learns_answers_survives_and_drains(installation: Installation) -> None:
    at = installation
    at.wait_for(lambda: len([p for p in at.status()["processes"].values() if p["pid"]]) == 5)
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
