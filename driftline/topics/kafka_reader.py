"""Reading from Kafka at positions that we own, or as a member of a group.

Guards: no deserializers, so that a bad record is data and not an exception; offsets may have holes; read_committed;
never a reset to another offset on its own with `open`; a topic that was made anew under the reader stops it.

Covered: broker outages (poll returns [] until it is back), retention (PositionLost), a topic deleted and made again
(seen in the client's metadata, which it refreshes after a fetch error and each minute). Not covered: records of the
new topic that come between the deletion and that refresh are delivered; TopicRecreated follows.
"""

import contextlib
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata

from driftline.errors import PositionLost, TopicRecreated
from driftline.records import Position, RawRecord
from driftline.topics import Partition
from driftline.topics.kafka_client import our_errors

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ANSWER_WITHIN_MS = 5_000
CLOSE_WITHIN_MS = 2_000


class Committer(Protocol):
    """Where a reader's `commit` goes."""

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None: ...

    def close(self) -> None: ...


class KafkaReader:
    """`driftline.topics.Reader` over a consumer that has its assignment (or subscription) already. One thread only."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        committer: Committer,
        topic_ids: Mapping[str, str | None],
        max_record_bytes: int,
    ) -> None:
        self._consumer = consumer
        self._max_record_bytes = max_record_bytes
        self._committer = committer
        self._topic_ids = dict(topic_ids)
        self._paused: set[str] = set()

    def poll(self, max_records: int, timeout_s: float) -> list[RawRecord]:
        """TopicRecreated, PositionLost; during an outage [] after `timeout_s`."""
        self._apply_pauses()
        try:
            with our_errors("reading from Kafka"):
                fetched = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except PositionLost:
            with our_errors("asking Kafka for its topics"):
                self._consumer.topics()  # refreshes the metadata: is it still the same topic?
            self._check_topics()
            raise
        self._check_topics()
        if self._paused:
            self._drop_prefetched()
        wanted = (one for partition, records in fetched.items() for one in self._wanted(partition, records))
        return [_raw(record, self._max_record_bytes) for record in wanted]

    def pause(self, topics: Iterable[str]) -> None:
        self._paused.update(topics)
        self._apply_pauses()

    def resume(self, topics: Iterable[str]) -> None:
        self._paused.difference_update(topics)
        self._drop_prefetched()
        self._consumer.resume(*(p for p in self._consumer.paused() if p.topic not in self._paused))

    def commit(self, positions: Mapping[Partition, int]) -> None:
        offsets = {_kafka(p): OffsetAndMetadata(offset, "", -1) for p, offset in positions.items()}
        if offsets:
            self._committer.commit(offsets)

    def lag(self) -> dict[Partition, int]:
        """Asks the brokers. Holes count as records."""
        with our_errors("asking Kafka for the ends of the topics"):
            partitions = list(self._consumer.assignment())
            ends = self._consumer.end_offsets(partitions, timeout_ms=ANSWER_WITHIN_MS) if partitions else {}
            places = {p: self._consumer.position(p, timeout_ms=ANSWER_WITHIN_MS) for p in partitions}
        return {
            Partition(topic=p.topic, partition=p.partition): max(0, ends[p] - (places[p] or 0))
            for p in sorted(partitions)
        }

    def close(self) -> None:
        self._committer.close()
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_WITHIN_MS)

    def _apply_pauses(self) -> None:
        """Again before each poll: a rebalance hands out partitions that are not paused."""
        self._consumer.pause(*(p for p in self._consumer.assignment() if p.topic in self._paused))

    def _drop_prefetched(self) -> None:
        """kafka-python (3.0.12) parks what it fetched for paused partitions, holds it in memory, and forgets it there
        after `resume` if nothing else is fetched: the partition stands still. So it is fetched again from the position.
        """
        self._consumer._fetcher._paused_partition_records.clear()
        self._consumer._fetcher._paused_completed_fetches.clear()

    def _wanted(self, partition: TopicPartition, records: list[ConsumerRecord]) -> list[ConsumerRecord]:
        """Not those of a paused topic that a rebalance brought in the middle of the poll: they come after `resume`."""
        if partition.topic in self._paused and records:
            with contextlib.suppress(ValueError):  # no longer ours
                self._consumer.seek(partition, records[0].offset)
            return []
        return records

    def _check_topics(self) -> None:
        for topic, opened in self._topic_ids.items():
            now = self._consumer._cluster.topic_id(topic)  # what the client's last metadata said; no request
            if now is None:
                continue
            if opened is None:  # it did not exist when the reader was opened
                self._topic_ids[topic] = str(now)
            elif str(now) != opened:
                raise TopicRecreated(
                    f"topic {topic!r} was deleted and made anew while it was being read: its stored positions belong "
                    "to the old one. Start with an empty buffer to read the new one from the start"
                )


class LagToolsCommitter:
    """Commits offsets for lag tools only: in the background, best effort, never raises, never delays the poll.

    It has a consumer of its own: one with a group stops delivering while the group's coordinator is gone.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self._answered = threading.Event()
        self._answered.set()

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        with contextlib.suppress(kafka_errors.KafkaError):
            self._answered.clear()
            self._consumer.commit_async(dict(offsets)).add_both(lambda _: self._answered.set())

    def close(self) -> None:
        """Waits a moment for the commit in flight: the library's network thread would trip over a closed selector."""
        self._answered.wait(CLOSE_WITHIN_MS / 1000)
        with contextlib.suppress(RuntimeError):
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_WITHIN_MS)


class GroupCommitter:
    """Durable commits of a group's member. TopicUnavailable if the group rebalanced: poll again, records come again."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        with our_errors("committing to Kafka"):
            self._consumer.commit(dict(offsets), timeout_ms=2 * ANSWER_WITHIN_MS)

    def close(self) -> None:
        """The reader closes the consumer."""


class NoCommitter:
    """For a reader that commits nowhere."""

    def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None: ...

    def close(self) -> None: ...


def assign(consumer: KafkaConsumer, positions: Mapping[Partition, int | None]) -> None:
    """Exactly these partitions, each from its offset; None is the earliest there is."""
    consumer.assign([_kafka(p) for p in sorted(positions)])
    for partition, offset in positions.items():
        if offset is None:
            consumer.seek_to_beginning(_kafka(partition))
        else:
            consumer.seek(_kafka(partition), offset)


def _kafka(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.partition)


def _raw(record: ConsumerRecord, max_bytes: int) -> RawRecord:
    value = _bytes(record.value)
    size = len(value or b"")
    return RawRecord(
        position=Position(topic=record.topic, partition=record.partition, offset=record.offset),
        next_offset=record.offset + 1,
        value=None if size > max_bytes else value,
        key=_bytes(record.key),
        timestamp=_moment(record.timestamp),
        skipped_bytes=size if size > max_bytes else None,
    )


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)


def _moment(milliseconds: int) -> datetime | None:
    """None for −1 (unknown) and for what no datetime can hold: producers may set any number."""
    try:
        return EPOCH + timedelta(milliseconds=milliseconds) if milliseconds >= 0 else None
    except OverflowError:
        return None
