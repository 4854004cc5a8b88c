"""`driftline produce` when the broker goes away, or it is stopped itself: it waits, or says exactly how far it came."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from driftline.assembly.wiring import build_topics
from driftline.clock import Deadline
from driftline.config import load_config
from driftline.topics import Partition
from tests.fixtures.kafka import BrokerProcess

WITHIN_S = 120.0
RECORDS = 1_500
RATE = "60"
"""Records a second, so few that the broker can be killed in time also where the machine is busy."""
IMPATIENT = (
    "[topics.client]\nbootstrap_timeout_ms = 2000\nrequest_timeout_ms = 2000\n"
    "delivery_timeout_ms = 4000\nmax_block_ms = 4000\n"
)


class Producing:
    """`driftline produce events.jsonl` as a process, which logs into a file."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._log = folder / "produce.log"
        with self._log.open("w") as output:
            command = [sys.executable, "-m", "driftline.cli", "produce", "events.jsonl", *options]
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, text=True, preexec_fn=_hear_ctrl_c
            )

    def said(self) -> str:
        return self._log.read_text()

    def ended(self) -> int:
        return self.process.wait(WITHIN_S)


def _hear_ctrl_c() -> None:
    """Also where the tests run in a shell's background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With 1,500 events, whose texts are their numbers."""
    lines = [json.dumps({"id": f"r-{number}", "text": str(number)}) for number in range(RECORDS)]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def config(folder: Path, kafka_broker: BrokerProcess, unique: str) -> Iterator[Path]:
    path = folder / "driftline.toml"
    path.write_text(
        f'[topics]\nkind = "kafka"\nbootstrap_servers = "{kafka_broker.bootstrap}"\n{IMPATIENT}'
        f'[feed.{unique}]\nlabels = ["bad", "good"]\n'
    )
    yield path
    kafka_broker.kill()
    kafka_broker.start()


def wait_for(condition: Callable[[], object]) -> None:
    deadline, tick = Deadline(WITHIN_S), threading.Event()
    while not condition():
        assert not deadline.expired(), "waited too long"
        tick.wait(0.05)


def texts(config: Path, topic: str, last: int) -> list[int]:
    """The events on the topic by number, in order, up to the first of this number and those polled with it."""
    found: list[int] = []
    deadline = Deadline(WITHIN_S)
    with closing(build_topics(load_config(config))) as topics:
        topics.ensure([topic])
        with closing(topics.open({Partition(topic=topic, partition=0): None})) as reader:
            while last not in found:
                assert not deadline.expired(), f"{last} never came, but {found[-1:]}"
                found += [int(json.loads(record.value or b"")["text"]) for record in reader.poll(5000, 1.0)]
    return found


def test_an_outage_is_waited_for_and_said_once(
    folder: Path, config: Path, kafka_broker: BrokerProcess, unique: str
) -> None:
    producing = Producing(folder, "--rate", RATE)
    texts(config, unique, 100)
    kafka_broker.kill()
    wait_for(lambda: "waiting for Kafka at " in producing.said())
    threading.Event().wait(9.0)  # the outage that is ridden out: longer than what one append is given
    kafka_broker.start()
    assert producing.ended() == 0, producing.said()
    said = producing.said()
    assert said.count("waiting for Kafka at ") == 1
    assert re.search(
        rf"waiting for Kafka at {kafka_broker.bootstrap} \(.*acknowledged so far; gives up after 1,800 s \(--wait-s\)",
        said,
    )
    assert f"1,500 records onto {unique}" in said
    assert list(dict.fromkeys(texts(config, unique, RECORDS - 1))) == list(range(RECORDS))


def test_who_gives_up_says_how_many_are_acknowledged_and_how_to_go_on(
    folder: Path, config: Path, kafka_broker: BrokerProcess, unique: str
) -> None:
    producing = Producing(folder, "--rate", RATE, "--wait-s", "1")
    texts(config, unique, 100)
    kafka_broker.kill()
    assert producing.ended() == 1
    told = re.search(r"([\d,]+) of 1,500 records are on the topic (\S+);.*--skip (\d+)(?: -c \S+)?`", producing.said())
    assert told, producing.said()
    acknowledged, skip = int(told[1].replace(",", "")), int(told[3])
    assert (told[2], skip) == (unique, acknowledged), "one partition: they are the first ones"
    kafka_broker.start()
    assert set(texts(config, unique, acknowledged - 1)) >= set(range(acknowledged))
    again = Producing(folder, "--skip", str(skip))
    assert again.ended() == 0, again.said()
    assert f"{RECORDS - skip:,} records onto {unique}" in again.said()
    assert list(dict.fromkeys(texts(config, unique, RECORDS - 1))) == list(range(RECORDS))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_who_is_stopped_says_so_too(folder: Path, how: signal.Signals) -> None:
    (folder / "driftline.toml").write_text('[feed.reviews]\nlabels = ["bad", "good"]\n')
    topic = folder / "state" / "topics" / "reviews" / "0.jsonl"
    producing = Producing(folder, "--rate", RATE)
    wait_for(lambda: topic.exists() and topic.read_bytes().count(b"\n") > 100)
    producing.process.send_signal(how)
    assert producing.ended() == 1
    there = topic.read_bytes().count(b"\n")
    assert f"{there:,} of 1,500 records are on the topic reviews; to go on: `" in producing.said()
    assert f"produce events.jsonl --rate {RATE} --skip {there}" in producing.said()
