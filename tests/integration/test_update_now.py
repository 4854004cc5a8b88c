"""`update-now` right after `produce`, on real processes: the version has learned all that was on its way."""

import json
from pathlib import Path

import pytest

from replay.simulate import Simulation, simulate
from tests.fixtures.installation import Installation, start_up, write_config
from tests.fixtures.redis import RedisProcess

EVENTS = 60


def learn_what_was_just_produced(at: Installation) -> None:
    """60 labelled events, and at once the wish for an update; every schedule of the config is an hour away."""
    at.wait_for(at.ready)
    at.wait_for((at.config.parent / "state" / "buffer.sqlite3").exists)
    nothing = at.run("update-now")
    assert nothing.returncode == 1
    assert "none is on its way" in nothing.stderr
    labelled = (event for event in simulate(Simulation(events=300)) if event["label"] is not None)
    events = [next(labelled) for _ in range(EVENTS)]
    path = at.config.parent / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert at.run("produce", str(path)).returncode == 0
    asked = json.loads(at.run("update-now", "--json").stdout)
    assert asked["requested"]
    at.wait_for(lambda: at.feed()["counts"].examples == EVENTS)
    at.wait_for(lambda: (counts := at.feed()["counts"]).learned + counts.returned)
    counts = at.feed()["counts"]
    assert counts.awaiting_prediction == 0
    (version,) = json.loads(at.run("history", "--json").stdout)["versions"]
    at.wait_for(lambda: at.feed()["counts"].taken == 0)
    counts = at.feed()["counts"]
    assert counts.learned + counts.fresh == EVENTS - counts.holdouts
    assert counts.learned in (0, EVENTS - counts.holdouts), "all of them, or none where the gate refused"
    if not counts.learned:
        assert counts.returned == EVENTS - counts.holdouts, version


@pytest.mark.timeout(600)
def test_on_files(tmp_path: Path, tiny_base_dir: Path) -> None:
    run_on(write_config(tmp_path, tiny_base_dir))


@pytest.mark.timeout(600)
def test_on_kafka(tmp_path: Path, tiny_base_dir: Path, kafka_bootstrap: str, unique: str) -> None:
    redis = RedisProcess(tmp_path / "own")
    servers = f'[topics]\nkind = "kafka"\nbootstrap_servers = "{kafka_bootstrap}"\npartitions = 2\n'
    config = write_config(tmp_path, tiny_base_dir, servers + f'[redis]\nurl = "{redis.start()}"\nprefix = "{unique}"\n')
    config.write_text(config.read_text().replace("[feed.reviews]\n", f'[feed.reviews]\nevents_topic = "{unique}"\n'))
    try:
        run_on(config)
    finally:
        redis.stop()


def run_on(config: Path) -> None:
    config.write_text(config.read_text().replace("every_s = 1\n", "every_s = 3600\n"))
    port = int(config.read_text().partition("port = ")[2].split()[0])
    process, log = start_up(config)
    at = Installation(config, port, process, log)
    try:
        learn_what_was_just_produced(at)
    finally:
        process.terminate()
        process.wait(90)
