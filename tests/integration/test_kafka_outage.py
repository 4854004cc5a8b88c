"""A broker that stops, is killed and comes back, under open readers, groups and producers: nothing is lost."""

import threading
from collections.abc import Iterator

import pytest

from driftline.clock import Deadline
from driftline.config import TopicsConfig
from driftline.errors import TopicUnavailable
from driftline.records import RawRecord
from driftline.topics import Outgoing, Partition, Reader
from driftline.topics.kafka import KafkaTopics
from tests.fixtures.kafka import BrokerProcess

WITHIN_S = 60.0
IMPATIENT = {
    "bootstrap_timeout_ms": 1_000,
    "request_timeout_ms": 1_000,
    "delivery_timeout_ms": 2_000,
    "max_block_ms": 2_000,
}


@pytest.fixture
def topics(kafka_broker: BrokerProcess) -> Iterator[KafkaTopics]:
    made = KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=kafka_broker.bootstrap))
    yield made
    made.close()


@pytest.fixture
def impatient(kafka_broker: BrokerProcess) -> Iterator[KafkaTopics]:
    """For calls that are to fail soon. A slow machine fails the others too: `append_until_it_works`."""
    made = KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=kafka_broker.bootstrap, client=IMPATIENT))
    yield made
    made.close()


def outgoing(*numbers: int) -> list[Outgoing]:
    return [Outgoing(value=str(number).encode(), key=b"k") for number in numbers]


def read_until(reader: Reader, value: bytes) -> list[RawRecord]:
    records: list[RawRecord] = []
    deadline = Deadline(WITHIN_S)
    while value not in [record.value for record in records] and not deadline.expired():
        records += reader.poll(100, 0.5)
    assert value in [record.value for record in records]
    return records


def append_until_it_works(topics: KafkaTopics, topic: str, number: int) -> int:
    """How often it was unavailable before."""
    deadline = Deadline(WITHIN_S)
    refusals = 0
    while not deadline.expired():
        try:
            topics.append(topic, outgoing(number))
            return refusals
        except TopicUnavailable:
            refusals += 1
    raise AssertionError("never available again")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_reading_and_appending_go_on_after_an_outage(
    kafka_broker: BrokerProcess, topics: KafkaTopics, impatient: KafkaTopics, unique: str, how: str
) -> None:
    topics.append(unique, outgoing(0, 1))
    append_until_it_works(impatient, unique, 2)
    reader = topics.open({Partition(topic=unique, partition=0): None}, commit_as=unique)
    records = read_until(reader, b"1")
    (kafka_broker.stop if how == "stop" else kafka_broker.kill)()
    with pytest.raises(TopicUnavailable):
        impatient.append(unique, outgoing(2))
    assert reader.poll(10, 1.0) == []
    reader.commit({Partition(topic=unique, partition=0): records[-1].next_offset})
    kafka_broker.start()
    append_until_it_works(impatient, unique, 2)
    append_until_it_works(topics, unique, 3)
    records += read_until(reader, b"3")
    reader.close()
    values = [int(record.value or b"") for record in records]
    assert [n for n in values if n != 2] == [0, 1, 3]  # 2 was refused and sent again: it is there any number of times
    offsets = [record.position.offset for record in records]
    assert offsets == sorted(set(offsets))


def test_everything_that_was_acknowledged_is_read_across_an_outage(
    kafka_broker: BrokerProcess, topics: KafkaTopics, impatient: KafkaTopics, unique: str
) -> None:
    topics.ensure([unique])
    reader = topics.open({Partition(topic=unique, partition=0): None})
    stopped = threading.Event()
    outage = threading.Thread(target=lambda: (kafka_broker.stop(), stopped.set(), kafka_broker.start()))
    refusals = 0
    for number in range(60):
        if number == 20:
            outage.start()
            stopped.wait(WITHIN_S)
        refusals += append_until_it_works(impatient, unique, number)
    outage.join()
    values = [int(record.value or b"") for record in read_until(reader, b"59")]
    reader.close()
    assert list(dict.fromkeys(values)) == list(range(60))  # in order; a retried append may stand there twice
    assert refusals < WITHIN_S


def test_a_group_goes_on_after_an_outage(kafka_broker: BrokerProcess, topics: KafkaTopics, unique: str) -> None:
    partition = Partition(topic=unique, partition=0)
    topics.append(unique, outgoing(0))
    reader = topics.open_group([unique], unique)
    records = read_until(reader, b"0")
    reader.commit({partition: records[-1].next_offset})
    kafka_broker.kill()
    assert reader.poll(10, 0.5) == []
    kafka_broker.start()
    append_until_it_works(topics, unique, 1)
    again = read_until(reader, b"1")
    deadline = Deadline(WITHIN_S)
    while topics.committed(unique, [partition]) != {partition: again[-1].next_offset} and not deadline.expired():
        commit_or_poll(reader, partition, again[-1].next_offset)
    reader.close()
    assert topics.committed(unique, [partition]) == {partition: again[-1].next_offset}
    assert [record.value for record in [*records, *again]] == [b"0", b"1"]


def commit_or_poll(reader: Reader, partition: Partition, offset: int) -> None:
    try:
        reader.commit({partition: offset})
    except TopicUnavailable:
        reader.poll(1, 0.5)


def test_without_a_broker_everything_says_so_and_leaves_no_thread(
    kafka_broker: BrokerProcess, impatient: KafkaTopics, unique: str
) -> None:
    kafka_broker.stop()
    before = set(threading.enumerate())
    calls = [
        lambda: impatient.exists(unique),
        lambda: impatient.ensure([unique]),
        lambda: impatient.append(unique, outgoing(0)),
        lambda: impatient.open({Partition(topic=unique, partition=0): None}),
        lambda: impatient.open_group([unique], unique),
    ]
    for call in calls:
        with pytest.raises(TopicUnavailable, match=kafka_broker.bootstrap):
            call()
    deadline = Deadline(WITHIN_S)
    for thread in set(threading.enumerate()) - before:
        thread.join(deadline.remaining_s())
    assert set(threading.enumerate()) <= before
    kafka_broker.start()
    append_until_it_works(impatient, unique, 0)
