"""The supervisor on real child processes: restarts, refusals, drain, and no child that outlives it."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from driftline.assembly.supervisor import LONGEST_PAUSE_S, STEADY_S, Supervisor, only_supervisor, pause_s, supervised
from driftline.clock import Deadline
from driftline.errors import UsageError
from tests.fixtures.processes import is_alive

# A supervisor in a process of its own, as `up` is; its children are Python one-liners.
RUN = """
import sys
from pathlib import Path
from driftline.assembly.supervisor import Supervisor, only_supervisor
file = Path(sys.argv[1])
with only_supervisor(file):
    commands = {f"child{n}": [sys.executable, "-c", code] for n, code in enumerate(sys.argv[2:])}
    sys.exit(Supervisor(commands, file, drain_s=600).run())
"""
WAIT = "import signal; signal.pause()"
DRAINS = """
import pathlib, signal, sys
def stop(*_):
    pathlib.Path({path!r}).write_text("drained")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path({path!r}).write_text("ready")
signal.pause()
"""

STUBBORN = """
import pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({path!r}).touch()
while True:
    signal.pause()
"""
FAILS_THEN_REFUSES = """
import pathlib, sys
mark = pathlib.Path({path!r})
seen = mark.exists()
mark.touch()
sys.exit(2 if seen else 1)
"""

WITHIN_S = 60.0

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a supervisor over one-liners; killed at the end, which must kill its children."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*codes: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "up.log").open("w") as log:
            command = [sys.executable, "-c", RUN, str(tmp_path / "up.json"), *codes]
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], object], seconds: float = WITHIN_S) -> None:
    deadline = Deadline(seconds)
    tick = threading.Event()
    while not condition():
        assert not deadline.expired(), "waited too long"
        tick.wait(0.02)


def test_pauses_double_up_to_a_limit() -> None:
    assert [pause_s(n) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert pause_s(50) == LONGEST_PAUSE_S


def test_a_killed_child_is_started_again(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "up.json"
    start(WAIT, WAIT)
    wait_for(lambda: supervised(file).get("child1", {}).get("pid"))
    first = supervised(file)
    os.kill(first["child0"]["pid"], signal.SIGKILL)
    wait_for(lambda: (supervised(file)["child0"]["pid"] or first["child0"]["pid"]) != first["child0"]["pid"])
    again = supervised(file)
    assert again["child0"]["restarts"] == 1
    assert again["child0"]["exit_code"] == -signal.SIGKILL
    assert again["child1"] == first["child1"]


def test_a_stop_lets_the_children_finish(start: Start, tmp_path: Path) -> None:
    marks = [tmp_path / "a", tmp_path / "b"]
    process = start(*(DRAINS.format(path=str(mark)) for mark in marks))
    wait_for(lambda: all(mark.exists() and mark.read_text() == "ready" for mark in marks))
    process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN_S) == 0
    assert [mark.read_text() for mark in marks] == ["drained", "drained"]
    assert supervised(tmp_path / "up.json") == {}
    assert not (tmp_path / "up.json").exists()


def test_a_second_signal_does_not_wait_for_a_child_that_will_not_end(start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    process = start(STUBBORN.format(path=str(mark)))
    wait_for(lambda: mark.exists() and supervised(tmp_path / "up.json").get("child0", {}).get("pid"))
    pid = supervised(tmp_path / "up.json")["child0"]["pid"]
    process.send_signal(signal.SIGTERM)
    log = tmp_path / "up.log"
    wait_for(lambda: "draining (up to 600 s); Ctrl-C again ends it at once" in log.read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN_S) == 0
    assert not is_alive(pid)
    (killed,) = [line for line in log.read_text().splitlines() if "child_killed" in line]
    assert "second request" in killed


def test_a_child_that_refuses_its_config_at_the_start_stops_everything(start: Start, tmp_path: Path) -> None:
    process = start(WAIT, "raise SystemExit(2)")
    assert process.wait(WITHIN_S) == 2
    assert supervised(tmp_path / "up.json") == {}


def test_a_child_that_refuses_later_is_left_alone(start: Start, tmp_path: Path) -> None:
    file, mark = tmp_path / "up.json", tmp_path / "mark"
    start(WAIT, FAILS_THEN_REFUSES.format(path=str(mark)))
    wait_for(lambda: supervised(file).get("child1", {}).get("state") == "refused")
    assert supervised(file)["child1"]["restarts"] == 1
    assert supervised(file)["child0"]["state"] == "running"


@pytest.mark.parametrize(("lived_s", "stops_all"), [(1.0, True), (STEADY_S, False)])
def test_a_first_life_that_ends_in_a_refusal_after_hours_stops_nothing_else(
    tmp_path: Path, lived_s: float, stops_all: bool
) -> None:
    supervisor = Supervisor({"serve": ["x"], "learn": ["y"]}, tmp_path / "up.json")
    supervisor.children[1].ended(2, now=lived_s)
    assert supervisor.children[1].state == "refused"
    assert supervisor.refused_at_start() == stops_all


def test_children_die_with_a_killed_supervisor(start: Start, tmp_path: Path) -> None:
    process = start(WAIT)
    wait_for(lambda: supervised(tmp_path / "up.json").get("child0", {}).get("pid"))
    pid = supervised(tmp_path / "up.json")["child0"]["pid"]
    process.kill()
    process.wait()
    wait_for(lambda: not is_alive(pid))
    assert supervised(tmp_path / "up.json") == {}


def test_a_second_supervisor_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "up.json"
    with only_supervisor(file), pytest.raises(UsageError, match="runs already"), only_supervisor(file):
        pass
    with only_supervisor(file):
        pass


def test_a_stale_file_shows_no_processes(tmp_path: Path) -> None:
    file = tmp_path / "up.json"
    file.write_text(json.dumps({"pid": 1, "processes": {"serve": {"pid": 1}}}))
    assert supervised(file) == {}


def test_supervisor_lists_its_children_in_order(tmp_path: Path) -> None:
    supervisor = Supervisor({"ingest": ["x"], "learn": ["y"]}, tmp_path / "up.json")
    assert [child.name for child in supervisor.children] == ["ingest", "learn"]
