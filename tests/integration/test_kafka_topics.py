"""What only Kafka has: partitions, compression, holes, tombstones, record times, limits, client options."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from driftline.clock import Deadline
from driftline.config import FeedConfig, TopicsConfig
from driftline.errors import ConfigError, PositionLost, TopicError, TopicUnavailable
from driftline.records import DeadLetter, Event, Position, RawRecord
from driftline.topics import Outgoing, Partition, Reader
from driftline.topics.codec import Codec
from driftline.topics.kafka import CUT_BYTES, KafkaTopics
from driftline.topics.kafka_producer import KafkaAppender, KafkaRecord

WITHIN_S = 30.0


@pytest.fixture
def section(kafka_bootstrap: str) -> TopicsConfig:
    return TopicsConfig(kind="kafka", bootstrap_servers=kafka_bootstrap)


@pytest.fixture
def topics(section: TopicsConfig) -> Iterator[KafkaTopics]:
    made = KafkaTopics(section)
    yield made
    made.close()


@pytest.fixture
def admin(kafka_bootstrap: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    yield client
    client.close()


def producer(bootstrap: str, **options: object) -> KafkaProducer:
    """The users' own producer: nothing of ours."""
    return KafkaProducer(bootstrap_servers=bootstrap, **options)


def start(topic: str, offset: int | None = None) -> dict[Partition, int | None]:
    return {Partition(topic=topic, partition=0): offset}


def read(reader: Reader, count: int) -> list[RawRecord]:
    records: list[RawRecord] = []
    deadline = Deadline(WITHIN_S)
    while len(records) < count and not deadline.expired():
        records += reader.poll(count - len(records), 0.5)
    reader.close()
    assert len(records) == count
    return records


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_topics_are_read(topics: KafkaTopics, kafka_bootstrap: str, unique: str, codec: str) -> None:
    topics.ensure([unique])
    with producer(kafka_bootstrap, compression_type=codec, linger_ms=50) as users:
        for number in range(500):
            users.send(unique, value=b"text " * 20 + str(number).encode())
    records = read(topics.open(start(unique)), 500)
    assert [record.value for record in records] == [b"text " * 20 + str(number).encode() for number in range(500)]
    assert [r.position.offset for r in read(topics.open(start(unique, 250)), 250)] == list(range(250, 500))


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_our_appends_can_be_compressed(kafka_bootstrap: str, unique: str, codec: str) -> None:
    made = KafkaTopics(
        TopicsConfig(kind="kafka", bootstrap_servers=kafka_bootstrap, client={"compression_type": codec})
    )
    made.append(unique, [Outgoing(value=b"x" * 1000)])
    assert read(made.open(start(unique)), 1)[0].value == b"x" * 1000
    made.close()


def test_records_of_aborted_transactions_never_come(topics: KafkaTopics, kafka_bootstrap: str, unique: str) -> None:
    topics.ensure([unique])
    with producer(kafka_bootstrap, transactional_id=unique) as users:
        users.init_transactions()
        for value, commits in [(b"a", True), (b"no", False), (b"b", True), (b"no", False), (b"c", True)]:
            users.begin_transaction()
            users.send(unique, value=value)
            users.flush()
            users.commit_transaction() if commits else users.abort_transaction()
    records = read(topics.open(start(unique)), 3)
    assert [record.value for record in records] == [b"a", b"b", b"c"]
    assert [record.next_offset - record.position.offset for record in records] == [1, 1, 1]
    assert records[1].position.offset > records[0].next_offset  # a hole: markers and the aborted record
    rest = read(topics.open(start(unique, records[0].next_offset)), 2)
    assert rest == records[1:]


def test_the_lag_is_nothing_at_the_end_although_a_marker_is_last(
    topics: KafkaTopics, kafka_bootstrap: str, unique: str
) -> None:
    topics.ensure([unique])
    with producer(kafka_bootstrap, transactional_id=unique) as users:
        users.init_transactions()
        users.begin_transaction()
        users.send(unique, value=b"a")
        users.commit_transaction()
    reader = topics.open(start(unique))
    deadline = Deadline(WITHIN_S)
    while reader.lag() != {Partition(topic=unique, partition=0): 0} and not deadline.expired():
        reader.poll(10, 0.2)
    assert reader.lag() == {Partition(topic=unique, partition=0): 0}
    reader.close()


def test_a_topic_whose_front_was_deleted_is_read_from_what_is_left(
    topics: KafkaTopics, admin: KafkaAdminClient, unique: str
) -> None:
    topics.append(unique, [Outgoing(value=str(n).encode()) for n in range(10)])
    admin.delete_records({TopicPartition(unique, 0): 6})
    assert [r.position.offset for r in read(topics.open(start(unique)), 4)] == [6, 7, 8, 9]


def test_a_position_that_retention_deleted_is_lost_not_skipped(
    topics: KafkaTopics, admin: KafkaAdminClient, unique: str
) -> None:
    topics.append(unique, [Outgoing(value=str(n).encode()) for n in range(10)])
    admin.delete_records({TopicPartition(unique, 0): 6})
    reader = topics.open(start(unique, 3))
    with pytest.raises(PositionLost, match="retention"):
        poll_for(reader)
    reader.close()


def poll_for(reader: Reader) -> None:
    deadline = Deadline(WITHIN_S)
    while not deadline.expired():
        assert reader.poll(1, 0.5) == []


def test_partitions_keep_a_keys_order(kafka_bootstrap: str, unique: str) -> None:
    made = KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=kafka_bootstrap, partitions=3))
    made.ensure([unique])
    assert made.partitions(unique) == [0, 1, 2]
    keys = [f"k{n}".encode() for n in range(12)]
    made.append(unique, [Outgoing(value=str(n).encode(), key=key) for n in range(20) for key in keys])
    records = read(made.open({Partition(topic=unique, partition=p): None for p in range(3)}), 240)
    made.close()
    assert {record.position.partition for record in records} == {0, 1, 2}
    for key in keys:
        mine = [record for record in records if record.key == key]
        assert [record.value for record in mine] == [str(n).encode() for n in range(20)]
        assert len({record.position.partition for record in mine}) == 1


def test_only_the_assigned_partitions_are_read(kafka_bootstrap: str, unique: str) -> None:
    """As a scaled-out ingest: rank 1 of 2 takes partition 1 only."""
    made = KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=kafka_bootstrap, partitions=2))
    made.append(unique, [Outgoing(value=b"v", key=str(n).encode()) for n in range(50)])
    reader = made.open({Partition(topic=unique, partition=1): None})
    seen = reader.poll(100, WITHIN_S)
    while more := reader.poll(100, 1.0):
        seen += more
    reader.close()
    made.close()
    assert {record.position.partition for record in seen} == {1}


def test_tombstones_keys_and_times_come_through(topics: KafkaTopics, kafka_bootstrap: str, unique: str) -> None:
    topics.ensure([unique])
    with producer(kafka_bootstrap) as users:
        users.send(unique, key=b"r-1", value=None, timestamp_ms=1_577_836_800_123)
        users.send(unique, key=None, value=b'{"text": "good"}', timestamp_ms=1_577_836_801_000)
    tombstone, event = read(topics.open(start(unique)), 2)
    assert (tombstone.key, tombstone.value) == (b"r-1", None)
    assert tombstone.timestamp == datetime(2020, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC)
    feed = FeedConfig(labels=("a", "b"))
    letter, decoded = Codec("f", feed).event(tombstone), Codec("f", feed).event(event)
    assert isinstance(letter, DeadLetter)
    assert letter.reason == "tombstone"
    assert isinstance(decoded, Event)
    assert decoded.event_id == f"{unique}-0-1"
    assert decoded.occurred_at == datetime(2020, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_a_record_too_large_for_its_topic_says_what_to_raise(
    topics: KafkaTopics, admin: KafkaAdminClient, unique: str
) -> None:
    admin.create_topics({unique: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    with pytest.raises(TopicError, match=r"max\.message\.bytes") as raised:
        topics.append(unique, [Outgoing(value=b"x" * 2_000_000)])
    assert not raised.value.retriable
    topics.append(unique, [Outgoing(value=b"fits")])
    assert read(topics.open(start(unique)), 1)[0].value == b"fits"


def test_a_dead_letter_too_large_for_its_topic_is_cut(
    topics: KafkaTopics, admin: KafkaAdminClient, kafka_bootstrap: str, unique: str
) -> None:
    admin.create_topics({unique: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    topics.append_dead_letters(unique, [letter(0, b"small"), letter(1, b"x" * 5_000_000)])
    consumer = KafkaConsumer(unique, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest")
    found = {}
    deadline = Deadline(WITHIN_S)
    while len(found) < 2 and not deadline.expired():
        for records in consumer.poll(timeout_ms=500).values():
            found |= {record.key: record for record in records}
    consumer.close()
    assert found[b"reviews-0-0"].value == b"small"
    assert found[b"reviews-0-1"].value == b"x" * CUT_BYTES
    assert dict(found[b"reviews-0-1"].headers)["value_bytes"] == b"5000000"


def letter(offset: int, value: bytes) -> DeadLetter:
    position = Position(topic="reviews", partition=0, offset=offset)
    return DeadLetter(feed="reviews", reason="undecodable", detail="", position=position, value=value)


def test_an_append_whose_producer_another_one_gave_up_can_be_tried_again(
    topics: KafkaTopics, kafka_bootstrap: str, unique: str
) -> None:
    topics.ensure([unique])
    given_up, whole = producer(kafka_bootstrap), producer(kafka_bootstrap)
    given_up.close()  # as when another append fails after this one took the producer
    ready = iter([given_up, whole])
    appender = KafkaAppender(lambda: next(ready))
    with pytest.raises(TopicUnavailable, match="another append gave the producer up"):
        appender.append(unique, [KafkaRecord(value=b"a")])
    appender.append(unique, [KafkaRecord(value=b"a")])
    appender.close()


def test_more_replicas_than_brokers_names_the_key(kafka_bootstrap: str, unique: str) -> None:
    made = KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=kafka_bootstrap, replication_factor=9))
    with pytest.raises(TopicError, match=r"topics\.replication_factor"):
        made.ensure([unique])
    made.close()


@pytest.mark.parametrize(
    ("client", "message"),
    [
        ({"group_id": "mine"}, r"topics\.client\.group_id: cannot be set here"),
        ({"acks": 1}, r"topics\.client\.acks: cannot be set here"),
        ({"secruity_protocol": "SSL"}, r"did you mean 'security_protocol'"),
        ({"security_protocol": "TLS"}, r"'TLS': use one of PLAINTEXT, SSL"),
        ({"ssl_cafile": "/no/such.pem"}, r"topics\.client\.ssl_cafile = '/no/such.pem': no such file"),
        ({"sasl_plain_password": "env:DRIFTLINE_TEST_NO_SUCH_SECRET"}, r"DRIFTLINE_TEST_NO_SUCH_SECRET"),
    ],
)
def test_a_wrong_client_option_names_the_key(client: dict[str, str | int | float | bool], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KafkaTopics(TopicsConfig(kind="kafka", client=client))


@pytest.mark.parametrize("servers", ["", " , ", "localhost:abc", "localhost:"])
def test_wrong_servers_name_the_key(servers: str) -> None:
    with pytest.raises(ConfigError, match=r"topics\.bootstrap_servers"):
        KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=servers))


def test_options_reach_the_clients_that_know_them(
    kafka_bootstrap: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_TEST_CLIENT_ID", unique)
    client: dict[str, str | int | float | bool] = {
        "client_id": "env:DRIFTLINE_TEST_CLIENT_ID",
        "fetch_max_wait_ms": 100,
        "linger_ms": 0,
    }
    made = KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=kafka_bootstrap, client=client))
    made.append(unique, [Outgoing(value=b"v")])
    assert made._appender._current().config["client_id"] == unique
    assert made._appender._current().config["linger_ms"] == 0
    reader = made.open(start(unique))
    assert reader._consumer.config["fetch_max_wait_ms"] == 100  # type: ignore[attr-defined]
    assert reader._consumer.config["fetch_max_bytes"] == 16 << 20  # type: ignore[attr-defined]
    assert len(read(reader, 1)) == 1
    made.close()


def test_crc32c_is_native() -> None:
    """Without it the consumer is five times slower."""
    from kafka.record import util

    assert util.crc32c_c is not None


@pytest.mark.parametrize("codec", [None, "zstd"])
def test_a_record_of_64_mb_is_passed_by_its_size(
    kafka_bootstrap: str, admin: KafkaAdminClient, section: TopicsConfig, unique: str, codec: str | None
) -> None:
    """A batch greater than any fetch is asked for; compressed it is small, and counts as what it comes to."""
    size = 64 << 20
    made = KafkaTopics(section)
    made.ensure([unique])
    change = ConfigResource(ConfigResourceType.TOPIC, unique, {"max.message.bytes": str(size + 4096)})
    admin.alter_configs([change])
    limits = {"max_request_size": size + 4096, "compression_type": codec}
    users = producer(kafka_bootstrap, **limits)
    with closing(made), closing(users) as send:
        for value in (b"before", b"x" * size, b"after"):
            send.send(unique, value, partition=0).get(60)
        records = read(made.open(start(unique)), 3)
    assert [(one.value, one.skipped_bytes) for one in records] == [(b"before", None), (None, size), (b"after", None)]
    letter = Codec("f", FeedConfig(labels=("a", "b"))).event(records[1])
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.value) == ("record_too_large", b"")
    assert "67,108,864 bytes" in letter.detail
