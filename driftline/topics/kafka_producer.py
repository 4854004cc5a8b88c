"""Appending to Kafka: acks=all, idempotent, every record waited for.

Guards: `append` returns only when all in-sync replicas have the records, and never waits for ever: kafka-python can
loop without end when the metadata names a leader that is not in the broker list, so the oldest unacknowledged record
is watched, and a producer that cannot deliver it in time is given up and built anew.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from kafka import KafkaProducer
from kafka import errors as kafka_errors
from kafka.producer.future import FutureRecordMetadata

from driftline.clock import Deadline
from driftline.errors import DriftlineError, TopicError, TopicUnavailable
from driftline.topics.kafka_client import translate

_log = structlog.get_logger()

PART_RECORDS = 2_000
"""So many records are in flight at once."""
GRACE_S = 5.0
"""Beyond the producer's own delivery timeout: it should have given up by itself."""
CLOSE_WITHIN_S = 2.0

TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaRecord:
    """A record to append. Headers are (name, value)."""

    value: bytes
    key: bytes | None = None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


class KafkaAppender:
    """Owns the producer. Thread-safe: an append that fails gives the producer up, which ends the others' as well.

    Delivery: durable when `append` returns; at least once where the caller tries again. Ordering: of one call and key.
    Atomicity: each record alone. Errors: TopicUnavailable after the delivery timeout, or when another append gave the
    producer up; TopicError (too large, refused).
    """

    def __init__(self, build: Callable[[], KafkaProducer]) -> None:
        self._build = build
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None

    def append(self, topic: str, records: Sequence[KafkaRecord]) -> None:
        """Send and wait for all. On an error some may have been appended; it says which were not acknowledged."""
        producer = self._current()
        futures: list[FutureRecordMetadata] = []
        try:
            for first in range(0, len(records), PART_RECORDS):
                _send(producer, topic, records[first : first + PART_RECORDS], futures)
        except kafka_errors.KafkaError as error:
            self._give_up(producer, topic)  # also after a record that was too large: the next ones would fail with it
            failed = _translated(error, topic)
            if isinstance(failed, TopicError):
                failed.unacknowledged = _unacknowledged(futures, len(records))
            raise failed from error

    def close(self) -> None:
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer)

    def _current(self) -> KafkaProducer:
        with self._lock:
            if self._producer is None:
                self._producer = self._build()
            return self._producer

    def _give_up(self, producer: KafkaProducer, topic: str) -> None:
        _log.warning("producer given up", topic=topic)
        with self._lock:
            if self._producer is producer:
                self._producer = None
        _close(producer)


def _send(
    producer: KafkaProducer, topic: str, records: Sequence[KafkaRecord], futures: list[FutureRecordMetadata]
) -> None:
    """Send and wait for these; `futures` gets one for each that was handed over."""
    first = len(futures)
    for record in records:
        futures.append(producer.send(topic, value=record.value, key=record.key, headers=record.headers or None))
    deadline = Deadline(producer.config["delivery_timeout_ms"] / 1000 + GRACE_S)
    for future in futures[first:]:
        future.get(timeout=deadline.remaining_s())


def _unacknowledged(futures: Sequence[FutureRecordMetadata], records: int) -> tuple[int, ...]:
    return tuple(index for index in range(records) if index >= len(futures) or not futures[index].succeeded())


def _translated(error: kafka_errors.KafkaError, topic: str) -> DriftlineError:
    if isinstance(error, kafka_errors.IllegalStateError):  # closed, and what was in flight with it
        return TopicUnavailable(
            f"appending to topic {topic!r}: another append gave the producer up: it can be tried again"
        )
    return translate(error, f"appending to topic {topic!r}")


def _close(producer: KafkaProducer) -> None:
    """Also ends a producer whose flush never ends: close() gives up then and leaves its thread running."""
    with contextlib.suppress(kafka_errors.KafkaError):
        producer.close(timeout=CLOSE_WITHIN_S)
        return
    producer._sender.force_close()
    producer._closed = True
