"""Topics on a Kafka cluster (kafka-python ≥ 3.0.12).

Guards: what `driftline.topics.Topics` promises, with at-least-once appends (acks=all, idempotent producer), positions
that the caller owns, and no group management except for `open_group`. A topic's identity is cluster id and topic id.
Topics that Driftline creates take records of up to 8 MB, so that a 5 MB record fits into the dead letters too.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors

from driftline.clock import Deadline, sleep
from driftline.config import TopicsConfig
from driftline.errors import TopicError, TopicUnavailable
from driftline.records import DeadLetter
from driftline.topics import MAX_RECORD_BYTES, Outgoing, Partition, Reader
from driftline.topics.kafka_client import build, client_options, is_passing, translate
from driftline.topics.kafka_producer import TOO_LARGE, KafkaAppender, KafkaRecord
from driftline.topics.kafka_reader import GroupCommitter, KafkaReader, LagToolsCommitter, NoCommitter, assign

__all__ = ["KafkaTopics"]

Answer = TypeVar("Answer")

ANSWER_WITHIN_S = 10.0
RETRY_S = 0.1
MAX_MESSAGE_BYTES = 8 << 20
CUT_BYTES = 256 << 10
"""What is kept of a dead letter that is too large for its topic. The buffer keeps all of it."""


class KafkaTopics:
    """`driftline.topics.Topics` on Kafka. Thread-safe; readers are single-threaded. Connects when it is first used.

    Errors: TopicUnavailable (retriable) when no broker answers within 10 s, an append within 25 s; TopicError with the
    remedy for what no retry mends; ConfigError for wrong client options, at once.
    """

    def __init__(self, section: TopicsConfig, *, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        """`max_record_bytes`: of a larger record only place and size are delivered."""
        self._section = section
        self._max_record_bytes = max_record_bytes
        self._options = client_options(section)
        self._lock = threading.Lock()
        self._admin: KafkaAdminClient | None = None
        self._appender = KafkaAppender(self._producer)
        self._known: set[str] = set()

    def ensure(self, topics: Iterable[str]) -> None:
        """Create what is missing, with the config's partitions and replication factor."""
        wanted = list(dict.fromkeys(topics))
        missing = [topic for topic in wanted if topic not in self._describe(wanted)]
        if missing:
            self._create(missing, {"max.message.bytes": str(MAX_MESSAGE_BYTES)})
        self._known.update(wanted)

    def exists(self, topic: str) -> bool:
        return bool(self._describe([topic]))

    def identity(self, topic: str) -> str:
        """`CLUSTER/TOPIC-ID`. TopicError if there is no such topic."""
        described = self._describe([topic])
        if topic not in described:
            raise TopicError(f"topic {topic!r} does not exist at {self._section.bootstrap_servers}")
        cluster = self._ask("asking Kafka for its cluster id", lambda admin: admin.describe_cluster())
        return f"{cluster['cluster_id']}/{described[topic]['topic_id'] or topic}"

    def partitions(self, topic: str) -> list[int]:
        described = self._describe([topic])
        return sorted(p["partition_index"] for p in described[topic]["partitions"]) if described else []

    def append(self, topic: str, records: Sequence[Outgoing]) -> None:
        """Creates the topic where it is missing."""
        self._append(topic, [KafkaRecord(value=record.value, key=record.key) for record in records])

    def append_dead_letters(self, topic: str, letters: Sequence[DeadLetter]) -> None:
        """Headers: feed, reason, detail, position ("topic-partition-offset", also the key). What is too large for the
        topic is cut, with the whole length in the header value_bytes."""
        records = [_letter(letter) for letter in letters]
        if not self._fits(topic, records):
            for record in records:
                if not self._fits(topic, [record]):
                    self._append(topic, [_cut(record)])

    def committed(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, int]:
        wanted = {TopicPartition(p.topic, p.partition): p for p in partitions}
        if not wanted:
            return {}
        offsets = self._ask(
            f"asking Kafka for the commits of group {group!r}",
            lambda admin: admin.list_group_offsets({group: list(wanted)})[group],
        )
        return {wanted[p]: found.offset for p, found in offsets.items() if p in wanted and found.offset >= 0}

    def open(self, positions: Mapping[Partition, int | None], *, commit_as: str | None = None) -> Reader:
        topics = {partition.topic for partition in positions}
        described = self._describe(topics)
        topic_ids = {topic: described.get(topic, {}).get("topic_id") for topic in topics}
        consumer = build(KafkaConsumer, self._options, enable_auto_commit=False, auto_offset_reset="none", **_STRICT)
        assign(consumer, positions)
        return KafkaReader(consumer, self._lag_tools(commit_as), topic_ids, self._max_record_bytes)

    def open_group(self, topics: Iterable[str], group: str) -> Reader:
        consumer = build(
            KafkaConsumer,
            self._options,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **_STRICT,
        )
        consumer.subscribe(sorted(set(topics)))
        return KafkaReader(consumer, GroupCommitter(consumer), {}, self._max_record_bytes)

    def close(self) -> None:
        """Readers are closed by who opened them."""
        self._appender.close()
        self._drop_admin()

    def _append(self, topic: str, records: Sequence[KafkaRecord]) -> None:
        if not records:
            return
        if topic not in self._known:
            self.ensure([topic])
        try:
            self._appender.append(topic, records)
        except TopicUnavailable:
            self._known.discard(topic)  # it may have been deleted
            raise

    def _fits(self, topic: str, records: Sequence[KafkaRecord]) -> bool:
        """Append; False if a record is too large for the topic (some of the others may have been appended)."""
        try:
            self._append(topic, records)
        except TopicError as error:
            if isinstance(error.__cause__, TOO_LARGE):
                return False
            raise
        return True

    def _lag_tools(self, group: str | None) -> LagToolsCommitter | NoCommitter:
        if group is None:
            return NoCommitter()
        return LagToolsCommitter(
            build(KafkaConsumer, self._options, group_id=group, enable_auto_commit=False, **_STRICT)
        )

    def _producer(self) -> KafkaProducer:
        return build(KafkaProducer, self._options, acks="all", enable_idempotence=True, **_STRICT)

    def _describe(self, topics: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Metadata of those of the topics that exist."""
        found = self._ask("asking Kafka for its topics", lambda admin: admin.describe_topics(sorted(set(topics))))
        for topic in found:
            _check(topic)
        return {topic["name"]: topic for topic in found if topic["error_code"] == 0}

    def _create(self, topics: list[str], configs: dict[str, str]) -> None:
        layout = {
            "num_partitions": self._section.partitions,
            "replication_factor": self._section.replication_factor,
            "configs": configs,
        }
        answer = self._ask(
            f"creating topics {', '.join(topics)}",
            lambda admin: admin.create_topics(dict.fromkeys(topics, layout), raise_errors=False),
        )
        errors = {kafka_errors.for_code(topic["error_code"]) for topic in answer["topics"]}
        if configs and errors & {kafka_errors.PolicyViolationError, kafka_errors.InvalidConfigurationError}:
            self._create(topics, {})  # a cluster that sets its own limits
            return
        for error in errors - {kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError}:
            raise translate(error(), f"creating topics {', '.join(topics)}")
        self._ask("waiting for the new topics", lambda admin: admin.wait_for_topics(topics))

    def _ask(self, what: str, question: Callable[[KafkaAdminClient], Answer]) -> Answer:
        """One admin request, tried again for 10 s while the cluster is electing or a connection was idle too long."""
        deadline = Deadline(ANSWER_WITHIN_S)
        while True:
            try:
                return question(self._current_admin())
            except kafka_errors.KafkaError as error:
                if not is_passing(error) or deadline.expired():
                    self._drop_admin()
                    raise translate(error, what) from error
                sleep(RETRY_S)

    def _current_admin(self) -> KafkaAdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = build(KafkaAdminClient, self._options)
            return self._admin

    def _drop_admin(self) -> None:
        with self._lock:
            admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()


_STRICT = {"allow_auto_create_topics": False}


def _check(topic: dict[str, Any]) -> None:
    error = kafka_errors.for_code(topic["error_code"])
    missing = (kafka_errors.NoError, kafka_errors.UnknownTopicOrPartitionError, kafka_errors.LeaderNotAvailableError)
    if error not in missing:
        raise translate(error(), f"topic {topic['name']!r}")


def _letter(letter: DeadLetter) -> KafkaRecord:
    headers = {
        "feed": letter.feed,
        "reason": letter.reason,
        "detail": letter.detail,
        "position": str(letter.position),
    }
    return KafkaRecord(
        value=letter.value,
        key=str(letter.position).encode(),
        headers=[(name, text.encode()) for name, text in headers.items()],
    )


def _cut(whole: KafkaRecord) -> KafkaRecord:
    length = ("value_bytes", str(len(whole.value)).encode())
    return KafkaRecord(value=whole.value[:CUT_BYTES], key=whole.key, headers=[*whole.headers, length])
