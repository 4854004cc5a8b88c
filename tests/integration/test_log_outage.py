"""What a process prints while its broker is gone: lines of one form, and each thing once in a while."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from driftline.assembly.bridge import AT_MOST_EVERY_S, NUMBERS
from driftline.assembly.existing import existing_buffer
from driftline.clock import Deadline
from driftline.config import Config, TopicsConfig, load_config
from driftline.errors import DriftlineError
from driftline.topics import Outgoing
from driftline.topics.kafka import KafkaTopics
from tests.fixtures.kafka import BrokerProcess

WITHIN_S = 120.0
KAFKA_LINES = 3
"""How many lines of kafka-python are to come before the broker comes back."""


class Lines:
    """The lines that a process wrote so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._all: list[str] = []
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._more:
                self._all.append(line)
                self._more.notify_all()

    def wait_for(self, pattern: str, times: int = 1) -> None:
        deadline = Deadline(WITHIN_S)
        with self._more:
            while sum(bool(re.search(pattern, line)) for line in self._all) < times:
                assert not deadline.expired(), self._all
                assert self._process.poll() is None, self._all
                self._more.wait(1.0)

    def end(self) -> list[str]:
        self._process.terminate()
        self._process.wait(WITHIN_S)
        self._thread.join(WITHIN_S)
        assert self._process.stderr is not None
        self._process.stderr.close()
        return self._all


def wait_until_taken_in(config: Config, feed: str) -> None:
    deadline, pause = Deadline(WITHIN_S), threading.Event()
    while not deadline.expired():
        with contextlib.suppress(DriftlineError):  # its schema is being made
            if (buffer := existing_buffer(config)) is not None:
                with contextlib.closing(buffer):
                    if buffer.counts(feed).event_records:
                        return
        pause.wait(0.1)
    raise AssertionError("ingest did not take the event in")


def test_an_outage_is_told_in_our_lines_and_not_hundreds_of_times(
    kafka_broker: BrokerProcess, tmp_path: Path, unique: str
) -> None:
    config = tmp_path / "driftline.toml"
    config.write_text(
        f'[topics]\nkind = "kafka"\nbootstrap_servers = "{kafka_broker.bootstrap}"\n'
        f'[feed.{unique}]\nlabels = ["bad", "good"]\n'
    )
    environment = {name: value for name, value in os.environ.items() if name != "DRIFTLINE_LOG_LEVEL"}
    command = [sys.executable, "-m", "driftline.cli", "ingest", "-c", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    lines = Lines(process)
    topics = KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=kafka_broker.bootstrap))
    try:
        topics.append(unique, [Outgoing(value=b'{"text": "x"}', key=None)])
        wait_until_taken_in(load_config(config), unique)
        kafka_broker.kill()
        lines.wait_for('"logger": ?"kafka', times=KAFKA_LINES)
        kafka_broker.start()
    finally:
        topics.close()
        written = lines.end()
    found = [json.loads(line) for line in written]  # each of them is one of ours
    assert all(line["process"] == "ingest" for line in found)
    last: dict[tuple[Any, ...], datetime] = {}
    for line in found:
        if "logger" in line and line["event"] != "lines_left_out":
            kind, at = (line["logger"], NUMBERS.sub("#", line["event"])), datetime.fromisoformat(line["timestamp"])
            assert kind not in last or (at - last[kind]).total_seconds() > AT_MOST_EVERY_S - 1, written
            last[kind] = at
