"""Ingest over a real Kafka broker that stops and comes back: it goes on by itself, and everything counts once."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from driftline.buffer import Buffer, FeedCounts, feed_rules
from driftline.clock import Deadline, SimulatedClock
from driftline.config import TopicsConfig, feed_topics, parse_config
from driftline.topics.codec import encode_event, encode_label
from driftline.topics.kafka import KafkaTopics
from stream.ingest import Ingest
from tests.fixtures.kafka import BrokerProcess

WITHIN_S = 60.0
START = datetime(2026, 1, 1, tzinfo=UTC)
EVENT_WAIT_S = 50.0


class Line:
    """One feed's ingest, running in a thread as in its process, on a clock that the test sets."""

    def __init__(self, topics: KafkaTopics, folder: Path, feed: str) -> None:
        settings = {"labels": ["neg", "pos"], "event_wait_s": EVENT_WAIT_S, "evaluation": {"holdout_share": 1e-12}}
        config = parse_config({"feed": {feed: settings}}, root=folder)
        self.topics, self.feed, self.names = topics, feed, feed_topics(config, feed)
        self.clock = SimulatedClock(START)
        rules = {feed: feed_rules(feed, config.feed[feed], self.names, config.ingest)}
        self.buffer = Buffer.open(folder / "b.sqlite3", rules, b"k")
        self.ingest = Ingest(
            topics,
            self.buffer,
            config.feed,
            {feed: self.names},
            config.ingest,
            self.clock,
            lock=folder / "lock",
        )
        self.failed: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.ingest.run(self._stop)
        except BaseException as error:  # noqa: BLE001  shown by the test
            self.failed.append(error)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(WITHIN_S)
        self.ingest.close()
        self.buffer.close()

    def events(self, *ids: str) -> None:
        self.topics.append(self.names.events, [encode_event(i, f"text of {i}") for i in ids])

    def labels(self, *ids: str) -> None:
        self.topics.append(self.names.labels, [encode_label(i, "pos", START, "ana") for i in ids])

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, and wait until ingest has applied the waits as of then."""
        self.clock.advance_to(self.clock.now() + timedelta(seconds=seconds))
        deadline = Deadline(WITHIN_S)
        while self.ingest._expired_at != self.clock.now():
            assert not deadline.expired()
            assert not self.failed
            self._stop.wait(0.05)

    def counts_with(self, **wanted: int) -> FeedCounts:
        """The counts once they are as wanted."""
        deadline = Deadline(WITHIN_S)
        while any(getattr(counts := self.buffer.counts(self.feed), name) != n for name, n in wanted.items()):
            assert not deadline.expired(), counts
            assert not self.failed
            self._stop.wait(0.05)
        return counts


@pytest.fixture
def line(kafka_broker: BrokerProcess, tmp_path: Path, unique: str) -> Iterator[Line]:
    topics = KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=kafka_broker.bootstrap))
    made = Line(topics, tmp_path, unique)
    yield made
    made.close()
    topics.close()


def test_ingest_lives_through_an_outage_and_gives_nothing_up_in_it(kafka_broker: BrokerProcess, line: Line) -> None:
    line.events("a", "b")
    line.labels("a", "late")  # the event of "late" is read after the outage only
    line.counts_with(event_records=2, examples=1, labels_waiting=1)
    line.pass_time(2)
    kafka_broker.stop()
    line.pass_time(EVENT_WAIT_S + 1)
    during = line.counts_with(event_records=2, examples=1)
    assert (during.labels_waiting, during.label_dead_letters) == (1, 0), "its event may stand unread on the topic"
    kafka_broker.start()
    line.events("late", "c")
    line.labels("b", "nobody")
    after = line.counts_with(event_records=4, examples=3, labels_waiting=1)
    assert (after.pending, after.duplicates, after.label_duplicates, after.dead_letters) == (1, 0, 0, 0)
    assert sorted(e.event_id for e in line.buffer.ledger.examples_after(line.feed, 0)) == ["a", "b", "late"]
    line.pass_time(EVENT_WAIT_S + 1)
    assert line.counts_with(labels_waiting=0).by_reason == {"no_event": 1}, "connected again, waits count again"
