"""A real ingest process, over files and over Kafka, killed (SIGKILL) at random moments: everything counts once."""

import json
import multiprocessing
import random
import threading
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from driftline.clock import Deadline
from driftline.config import feed_topics
from driftline.records import RawRecord
from driftline.topics import Outgoing, Partition
from tests.fixtures.ingest_process import config_of, ingest_until_killed, open_buffer, topics_of

RECORDS_PER_LIFE = 400
WITHIN_S = 120.0


class Producer:
    """Writes records of all kinds, and knows what has to become of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.topics = topics_of(folder)
        self.names = feed_topics(config_of(folder), "f")
        self.rng = random.Random(seed)
        self.events: list[str] = []
        self.labels: dict[str, str] = {}
        self.events_written = 0
        self.fates: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.waiting: defaultdict[str, list[Outgoing]] = defaultdict(list)

    def produce(self, count: int) -> None:
        for _ in range(count):
            self.rng.choice([self.event, self.event, self.event, self.label, self.label, self.again, self.junk])()
        for topic, records in self.waiting.items():
            self.topics.append(topic, records)
        self.waiting.clear()

    def put(self, topic: str, document: dict) -> None:
        self.waiting[topic].append(Outgoing(value=json.dumps(document).encode()))
        self.events_written += topic == self.names.events

    def event(self) -> None:
        event_id = f"e{len(self.events)}"
        self.events.append(event_id)
        document = {"id": event_id, "text": f"text of {event_id}"}
        if self.rng.random() < 0.4:
            document["label"] = self.labels[event_id] = self.rng.choice(["neg", "pos"])
        self.put(self.names.events, document)

    def label(self) -> None:
        waiting = [event_id for event_id in self.events[-50:] if event_id not in self.labels]
        if waiting:
            event_id = self.rng.choice(waiting)
            self.labels[event_id] = self.rng.choice(["neg", "pos"])
            self.put(self.names.labels, {"id": event_id, "label": self.labels[event_id]})

    def again(self) -> None:
        if self.events:
            event_id = self.rng.choice(self.events)
            changed = self.rng.random() < 0.5
            self.put(self.names.events, {"id": event_id, "text": "another text" if changed else f"text of {event_id}"})
            self.fates["conflict" if changed else "duplicate"] += 1

    def junk(self) -> None:
        self.put(self.names.events, {"id": "no text"})
        self.fates["junk"] += 1


@pytest.mark.parametrize(("kind", "lives"), [("files", 20), ("kafka", 6)])
def test_killed_at_random_moments_every_example_is_there_once(
    kind: str, lives: int, tmp_path: Path, unique: str, request: pytest.FixtureRequest
) -> None:
    servers = {"bootstrap_servers": request.getfixturevalue("kafka_bootstrap")} if kind == "kafka" else {}
    names = {f"{topic}_topic": f"{unique}.{topic}" for topic in ("events", "labels", "predictions", "dead_letters")}
    document = {"feed": {"f": {"labels": ["neg", "pos"], **names}}, "ingest": {"batch_records": 10}}
    (tmp_path / "config.json").write_text(json.dumps(document | {"topics": {"kind": kind, **servers}}))
    producer, rng = Producer(tmp_path, seed=1), random.Random(1)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fixtures.ingest_process"])
    cut_short = 0
    for _ in range(lives):
        producer.produce(RECORDS_PER_LIFE)
        child = context.Process(target=ingest_until_killed, args=(tmp_path,))
        child.start()
        wait_for_progress(tmp_path, rng.choice([0, 1, 40, 200]))
        child.join(rng.uniform(0.0, 0.03))
        assert child.exitcode is None, "it must live until it is killed"
        child.kill()
        child.join()
        cut_short += 0 < check_invariants(tmp_path) < producer.events_written
    assert cut_short >= lives / 2, "most lives must end in the middle of the work"
    child = context.Process(target=ingest_until_killed, args=(tmp_path,))
    child.start()
    wait_for_all(tmp_path, producer)
    child.kill()
    child.join()
    check_outcome(tmp_path, producer)
    producer.topics.close()


def check_invariants(folder: Path) -> int:
    """Returns how many event records are in the buffer."""
    buffer = open_buffer(folder)
    counts = buffer.counts("f")
    examples = buffer.ledger.examples_after("f", 0)
    buffer.close()
    assert counts.event_records == (
        counts.examples + counts.unlabelled + counts.pending + counts.dead_letters + counts.duplicates
    )
    assert len(examples) == counts.examples
    assert len({e.event_id for e in examples}) == len(examples)
    return counts.event_records


def wait_for_progress(folder: Path, records: int) -> None:
    """Until so many more event records are in the buffer, or at once."""
    buffer, deadline, ended = open_buffer(folder), Deadline(WITHIN_S), threading.Event()
    before = buffer.counts("f").event_records
    while buffer.counts("f").event_records < before + records:
        ended.wait(0.002)
        assert not deadline.expired()
    buffer.close()


def wait_for_all(folder: Path, producer: Producer) -> None:
    buffer, deadline = open_buffer(folder), Deadline(WITHIN_S)
    ended = threading.Event()
    while not ended.wait(0.05):
        counts = buffer.counts("f")
        complete = counts.event_records == producer.events_written and counts.examples == len(producer.labels)
        if complete and not buffer.letters.to_send("f", 1):
            ended.set()
        assert not deadline.expired(), counts
    buffer.close()


def check_outcome(folder: Path, producer: Producer) -> None:
    check_invariants(folder)
    buffer = open_buffer(folder)
    examples, counts = buffer.ledger.examples_after("f", 0), buffer.counts("f")
    buffer.close()
    assert {e.event_id: e.label for e in examples} == producer.labels
    assert all(e.text == f"text of {e.event_id}" for e in examples)
    assert [e.seq for e in examples] == list(range(1, len(examples) + 1))
    assert counts.pending == len(producer.events) - len(producer.labels)
    assert counts.duplicates == producer.fates["duplicate"]
    assert counts.by_reason == {
        "conflicting_duplicate": producer.fates["conflict"],
        "missing_field": producer.fates["junk"],
    }
    assert len(dead_letter_positions(producer)) == counts.dead_letters, "at least once each"


def dead_letter_positions(producer: Producer) -> set[str]:
    """Of everything that stands on the dead-letter topic."""
    reader = producer.topics.open({Partition(topic=producer.names.dead_letters, partition=0): None})
    found: list[RawRecord] = []
    while any(reader.lag().values()):
        found += reader.poll(1000, 0.2)
    reader.close()
    return {one.key.decode() if one.key else json.loads(one.value)["position"] for one in found}
