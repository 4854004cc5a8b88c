"""How fast events get into the buffer, beside kafka-python's own poll on the same topic, and how much of it is fsync.

    python -m benchmarks.ingest [--events 50000] [--rounds 3] [--quick] [--out FILE]

The real Ingest reads labelled events of 200 to 300 bytes into a real SQLite buffer, from a real broker (deploy/kafka)
and from topic files; every contender reads all of them in every round, from the first poll to the last event. Broker
and client share the machine, so only the ratios mean something. `without fsync` is the same ingest with SQLite's
`synchronous = OFF`: not a mode of ours, only there to see what durability costs.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from benchmarks.data import LABELS
from benchmarks.record import announce_ratios, options_of, write_result
from benchmarks.rounds import Contender, compare, interleave, shares, shares_in_words, timed_calls
from benchmarks.servers import kafka_broker, missing_kafka
from driftline.buffer import Buffer, feed_rules
from driftline.buffer.sqlite.intake import SqliteIntake
from driftline.cli.output import say
from driftline.clock import Deadline, SystemClock
from driftline.config import FeedConfig, FeedTopics, IngestConfig, TopicsConfig
from driftline.topics import Outgoing, Partition, Topics
from driftline.topics.file_reader import FileReader
from driftline.topics.files import FileTopics
from driftline.topics.kafka import KafkaTopics
from driftline.topics.kafka_reader import KafkaReader
from replay.simulate import Simulation, simulate
from stream.decode import Decoder
from stream.ingest import Ingest

TOPIC = "bench"
BATCH = 500
SECTION = IngestConfig(batch_records=BATCH, max_waiting_examples=1 << 30)
FEED = FeedConfig(labels=LABELS, serve={"score": False})  # type: ignore[arg-type]
NAMES = FeedTopics(
    events=TOPIC, labels=f"{TOPIC}.labels", predictions=f"{TOPIC}.predictions", dead_letters=f"{TOPIC}.dead-letters"
)
POLL_S = 1.0
WITHIN_S = 600.0
FSYNCS = 50


def make_values(n: int) -> list[bytes]:
    """n labelled events as JSON of 200 to 300 bytes, all ids different."""
    values = []
    for index, event in enumerate(simulate(Simulation(events=n, unlabelled=0.0))):
        record = {name: event[name] for name in ("id", "label", "timestamp", "source")}
        record["id"] = f"bench-{index:08d}"
        room = 200 + index * 37 % 101 - len(json.dumps(record | {"text": ""}))
        text = str(event["text"]).encode("ascii", "replace").decode()
        record["text"] = (f"{text} " * (1 + room // len(text)))[:room]
        values.append(json.dumps(record).encode())
    return values


@dataclass
class Source:
    """A cluster that holds the events, and a folder for the buffers that they are read into."""

    topics: Topics
    events: int
    folder: Path
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def read(self) -> float:
        """Seconds of our own reader's polls alone."""
        positions = {Partition(topic=TOPIC, partition=number): None for number in self.topics.partitions(TOPIC)}
        reader = self.topics.open(positions)
        try:
            return self._until_all(lambda: len(reader.poll(BATCH, POLL_S)))
        finally:
            reader.close()

    def ingest(self) -> float:
        """Seconds of Ingest from the first step to the last event in the buffer."""
        with self._ingest() as (ingest, _):
            return self._until_all(lambda: ingest.step(POLL_S))

    def ingest_without_fsync(self) -> float:
        """As `ingest`, but SQLite leaves it to the system when the disk gets its bytes."""
        with self._ingest() as (ingest, buffer):
            buffer._store._connection.execute("PRAGMA synchronous = OFF")
            return self._until_all(lambda: ingest.step(POLL_S))

    def _until_all(self, read: Callable[[], int]) -> float:
        seen, deadline, start = 0, Deadline(WITHIN_S), time.perf_counter()
        while seen < self.events:
            seen += read()
            if deadline.expired():
                raise RuntimeError(f"only {seen} of {self.events} events came within {WITHIN_S:.0f} s")
        return time.perf_counter() - start

    @contextmanager
    def _ingest(self) -> Iterator[tuple[Ingest, Buffer]]:
        """An ingest with a buffer and a feed name of its own, so that it reads everything again."""
        name = f"f{next(self._numbers)}"
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            buffer = Buffer.open(Path(folder) / "b.sqlite3", {name: feed_rules(name, FEED, NAMES, SECTION)}, b"bench")
            ingest = Ingest(
                self.topics, buffer, {name: FEED}, {name: NAMES}, SECTION, SystemClock(), lock=Path(folder) / "lock"
            )
            try:
                yield ingest, buffer
            finally:
                ingest.close()
                buffer.close()

    def profile(self, reader: type) -> dict[str, float]:
        """Shares of one more ingest's time: polling, decoding, writing (with the commit's fsync)."""
        phases = {"polling": (reader, "poll"), "decoding": (Decoder, "decode"), "writing": (SqliteIntake, "append")}
        with timed_calls(phases) as spent:
            total = self.ingest()
        return shares(spent, total)


def kafka_python(bootstrap: str, events: int) -> float:
    """Seconds of a bare consumer with kafka-python's defaults, from the first poll to the last record."""
    consumer = KafkaConsumer(bootstrap_servers=[bootstrap], auto_offset_reset="earliest", enable_auto_commit=False)
    try:
        consumer.assign([TopicPartition(TOPIC, 0)])
        seen, deadline, start = 0, Deadline(WITHIN_S), time.perf_counter()
        while seen < events:
            seen += sum(len(records) for records in consumer.poll(timeout_ms=1000, max_records=BATCH).values())
            if deadline.expired():
                raise RuntimeError(f"kafka-python read only {seen} of {events} events")
        return time.perf_counter() - start
    finally:
        consumer.close()


def measure(
    source: Source, reference: str, contenders: dict[str, Contender], reader: type, rounds: int
) -> dict[str, Any]:
    """All contenders in turns, the share of fsync (median over the rounds), and the profile."""
    seconds = interleave(contenders, rounds)
    pairs = zip(seconds["ingest"], seconds["ingest without fsync"], strict=True)
    return {
        "contenders": compare(seconds, source.events, reference),
        "fsync_share": round(median(1 - without / full for full, without in pairs), 3),
        "where_time_goes": source.profile(reader),
    }


def on_kafka(values: list[bytes], folder: Path, rounds: int) -> dict[str, Any]:
    """Against a real broker with one partition."""
    with kafka_broker(folder / "kafka") as broker:
        topics = KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=broker.bootstrap))
        try:
            fill(topics, values)
            source = Source(topics, len(values), folder)
            contenders: dict[str, Contender] = {
                "kafka-python's poll": lambda: kafka_python(broker.bootstrap, len(values)),
                "our reader's poll": source.read,
                "ingest": source.ingest,
                "ingest without fsync": source.ingest_without_fsync,
            }
            return measure(source, "kafka-python's poll", contenders, KafkaReader, rounds)
        finally:
            topics.close()


def on_files(values: list[bytes], folder: Path, rounds: int) -> dict[str, Any]:
    """The same from topic files."""
    topics = FileTopics(folder / "topics")
    fill(topics, values)
    source = Source(topics, len(values), folder)
    contenders: dict[str, Contender] = {
        "our reader's poll": source.read,
        "ingest": source.ingest,
        "ingest without fsync": source.ingest_without_fsync,
    }
    return measure(source, "our reader's poll", contenders, FileReader, rounds)


def fill(topics: Topics, values: list[bytes]) -> None:
    """All events onto the topic, durable."""
    topics.ensure(NAMES.model_dump().values())
    for start in range(0, len(values), 2 * BATCH):
        topics.append(TOPIC, [Outgoing(value=value) for value in values[start : start + 2 * BATCH]])


def fsync_ms(folder: Path) -> float:
    """The disk's own limit: the median of 50 appends of 4 KiB with fsync, in ms."""
    taken = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            taken.append(1000 * (time.perf_counter() - start))
    return round(median(taken), 3)


def run(quick: bool = False, events: int | None = None, rounds: int | None = None) -> dict[str, Any]:
    """Both sources as one JSON-ready document; `kafka` says why it was skipped where there is no Java."""
    events, rounds = events or (2000 if quick else 50_000), rounds or (1 if quick else 3)
    values = make_values(events)
    reason = missing_kafka()
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name:
        folder = Path(name)
        return {
            "benchmark": "ingest",
            "events": events,
            "rounds": rounds,
            "value_bytes": [min(map(len, values)), max(map(len, values))],
            "records_per_transaction": BATCH,
            "fsync_of_4_kib_ms": fsync_ms(folder),
            "kafka": {"skipped": reason} if reason else on_kafka(values, folder, rounds),
            "files": on_files(values, folder, rounds),
        }


def announce(result: dict[str, Any]) -> None:
    """The figures as tables."""
    for kind, reference in (("kafka", "of kafka-python"), ("files", "of the reader")):
        found = result[kind]
        if "skipped" in found:
            say(f"{kind}: skipped: {found['skipped']}")
            continue
        title = f"events/s from {kind} ({result['events']:,} events of {result['value_bytes'][0]} B and more)"
        announce_ratios(title, {"first poll to last event": found["contenders"]}, reference)
        say(f"ingest: {shares_in_words(found['where_time_goes'])}; fsync is {100 * found['fsync_share']:.0f} % of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, help="events on the topic (default 50,000)")
    parser.add_argument("--rounds", type=int, help="rounds that count (default 3)")
    options = options_of(parser, "ingest")
    result = run(options.quick, options.events, options.rounds)
    announce(result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
