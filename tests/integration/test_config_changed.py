"""A config that is changed while processes run: they go on with the old one, and `status` and `retry` say so."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.assembly.running import running
from driftline.config import load_config
from driftline.names import StateFiles
from tests.fixtures.cli import Driftline
from tests.fixtures.installation import start_verb
from tests.integration.test_status import wait_for

FEED = '[feed.reviews]\nlabels = ["bad", "good"]\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "driftline.toml"
    path.write_text(FEED)
    return path


@pytest.fixture
def ingest(config: Path) -> Iterator["subprocess.Popen[str]"]:
    """A real ingest on it."""
    process = start_verb(config, "ingest")
    wait_for(lambda: StateFiles(load_config(config).state.path).buffer.exists())
    yield process
    process.kill()
    process.wait()


def changed(driftline: Driftline) -> list[str]:
    result = driftline("status", "--json")
    found = [problem for problem in json.loads(result.out)["problems"] if "was changed" in problem]
    assert result.code == 1 or not found
    return found


def test_status_and_retry_say_that_a_process_has_the_config_of_before(
    driftline: Driftline, config: Path, ingest: "subprocess.Popen[str]"
) -> None:
    assert changed(driftline) == []
    config.write_text(f"# a comment changes nothing\n{FEED}")
    assert changed(driftline) == []
    config.write_text(FEED + '[feed.reviews.label_map]\n"1" = "good"\n')
    assert changed(driftline) == [
        f"{config} was changed, and ingest still runs with what it said before: start it again"
    ]
    (config.parent / "events.jsonl").write_text("not json\n")
    assert driftline("produce", "events.jsonl").code == 0
    wait_for(lambda: "undecodable" in driftline("dead-letters", "list").out)
    retried = driftline("dead-letters", "retry").out
    assert f"that it was started with ({config} was changed): start it again, then retry once more" in retried

    ingest.send_signal(signal.SIGTERM)
    assert ingest.wait(60) == 0
    again = start_verb(config, "ingest")
    try:
        wait_for(lambda: [one.pid for one in running(StateFiles(config.parent / "state"))] == [again.pid])
        assert changed(driftline) == []
    finally:
        again.kill()
        again.wait()
    assert running(StateFiles(config.parent / "state")) == [], "killed, it is not taken for one that runs"


@pytest.mark.usefixtures("ingest")
def test_a_config_that_cannot_be_used_any_more_is_told(driftline: Driftline, config: Path) -> None:
    other = config.with_name("other.toml")
    other.write_text(FEED)
    config.write_text(f"{FEED}labells = 1\n")
    own = driftline("status")
    assert (own.code, "labells" in own.err) == (2, True), "status cannot read it either, and says the mistake"
    problems = json.loads(driftline("status", "-c", str(other), "--json").out)["problems"]
    (told,) = [problem for problem in problems if "cannot be used any more" in problem]
    assert "labells" in told
    assert told.endswith("ingest still runs with what it said before: start it again")


def test_a_record_that_was_left_behind_is_removed(config: Path) -> None:
    files = StateFiles(load_config(config).state.path)
    files.running.mkdir(parents=True)
    left_behind = files.running / f"learn-{os.getpid()}.json"
    left_behind.write_text("{}")
    assert running(files) == []
    process = start_verb(config, "ingest")
    wait_for(lambda: running(files))
    assert not left_behind.exists()
    process.kill()
    process.wait()
