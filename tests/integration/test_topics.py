"""One conformance suite for both kinds of topics: a real Kafka broker, and files."""

import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from driftline.clock import Deadline
from driftline.config import TopicsConfig
from driftline.errors import PositionLost, TopicError, TopicRecreated
from driftline.records import DeadLetter, Position, RawRecord
from driftline.topics import Outgoing, Partition, Reader, Topics
from driftline.topics.files import FileTopics
from driftline.topics.kafka import KafkaTopics

WITHIN_S = 30.0


MAX_BYTES = 7_000_000  # a dead letter of 5 MB is a line of 6.7 MB in files
"""More than any value here that is meant to arrive."""


@pytest.fixture(params=["files", "kafka"])
def topics(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Topics]:
    if request.param == "files":
        made: Topics = FileTopics(tmp_path / "topics", max_record_bytes=MAX_BYTES)
    else:
        section = TopicsConfig(kind="kafka", bootstrap_servers=request.getfixturevalue("kafka_bootstrap"))
        made = KafkaTopics(section, max_record_bytes=MAX_BYTES)
    yield made
    made.close()


@pytest.fixture
def opened() -> Iterator[Callable[[Reader], Reader]]:
    """Closes the readers that a test opened."""
    readers: list[Reader] = []

    def keep(reader: Reader) -> Reader:
        readers.append(reader)
        return reader

    yield keep
    for reader in readers:
        reader.close()


Keep = Callable[[Reader], Reader]


def start(topic: str, offset: int | None = None) -> dict[Partition, int | None]:
    return {Partition(topic=topic, partition=0): offset}


def outgoing(*values: str) -> list[Outgoing]:
    return [Outgoing(value=value.encode(), key=b"k") for value in values]


def read(reader: Reader, count: int) -> list[RawRecord]:
    """Polls until `count` records came; fails after 30 s."""
    records: list[RawRecord] = []
    deadline = Deadline(WITHIN_S)
    while len(records) < count and not deadline.expired():
        records += reader.poll(count - len(records), 0.5)
    assert len(records) == count
    return records


def values(records: list[RawRecord]) -> list[str]:
    return [record.value.decode() for record in records if record.value is not None]


def test_a_topic_exists_once_it_is_ensured(topics: Topics, unique: str) -> None:
    assert not topics.exists(unique)
    assert topics.partitions(unique) == []
    with pytest.raises(TopicError, match=unique):
        topics.identity(unique)
    topics.ensure([unique, unique])
    topics.ensure([unique])
    assert topics.exists(unique)
    assert topics.partitions(unique) == [0]


def test_identities_differ_between_topics_and_stay(topics: Topics, unique: str) -> None:
    topics.ensure([unique, f"{unique}.labels"])
    assert topics.identity(unique) == topics.identity(unique)
    assert topics.identity(unique) != topics.identity(f"{unique}.labels")


def test_records_come_back_in_order_with_their_bytes(topics: Topics, unique: str, opened: Keep) -> None:
    sent = ["eins", "zwei", "", "drei ☂", '{"id": "\\n"}', "x" * 300_000]
    topics.ensure([unique])
    topics.append(unique, outgoing(*sent))
    records = read(opened(topics.open(start(unique))), len(sent))
    assert values(records) == sent
    offsets = [record.position.offset for record in records]
    assert offsets == sorted(set(offsets))
    assert all(a.next_offset <= b.position.offset for a, b in pairwise(records))
    assert {(r.position.topic, r.position.partition) for r in records} == {(unique, 0)}


def test_append_creates_a_missing_topic_and_nothing_is_nothing(topics: Topics, unique: str, opened: Keep) -> None:
    topics.append(unique, [])
    topics.append(unique, outgoing("a"))
    assert values(read(opened(topics.open(start(unique))), 1)) == ["a"]


def test_a_reader_goes_on_from_any_stored_position(topics: Topics, unique: str, opened: Keep) -> None:
    topics.append(unique, outgoing(*[str(n) for n in range(20)]))
    first = read(opened(topics.open(start(unique))), 20)
    for stop in (0, 7, 18):
        rest = read(opened(topics.open(start(unique, first[stop].next_offset))), 19 - stop)
        assert rest == first[stop + 1 :]


def test_a_reader_that_is_ahead_of_the_appends_gets_them_when_they_come(
    topics: Topics, unique: str, opened: Keep
) -> None:
    topics.ensure([unique])
    reader = opened(topics.open(start(unique)))
    assert reader.poll(10, 0.05) == []
    writer = threading.Thread(target=topics.append, args=(unique, outgoing("late")))
    writer.start()
    assert values(read(reader, 1)) == ["late"]
    writer.join()


def test_a_reader_survives_a_topic_that_does_not_exist_yet(topics: Topics, unique: str, opened: Keep) -> None:
    reader = opened(topics.open(start(unique)))
    assert reader.poll(10, 0.2) == []
    topics.append(unique, outgoing("first"))
    assert values(read(reader, 1)) == ["first"]


def test_poll_keeps_to_its_limit_and_loses_nothing(topics: Topics, unique: str, opened: Keep) -> None:
    topics.append(unique, outgoing(*[str(n) for n in range(100)]))
    reader = opened(topics.open(start(unique)))
    got: list[RawRecord] = []
    deadline = Deadline(WITHIN_S)
    while len(got) < 100 and not deadline.expired():
        batch = reader.poll(7, 0.5)
        assert len(batch) <= 7
        got += batch
    assert values(got) == [str(n) for n in range(100)]


def test_poll_returns_after_its_timeout(topics: Topics, unique: str, opened: Keep) -> None:
    topics.ensure([unique])
    reader = opened(topics.open(start(unique)))
    reader.poll(1, 0.5)
    deadline = Deadline(5.0)
    assert reader.poll(1, 0.1) == []
    assert not deadline.expired()


def test_a_paused_topic_waits_and_the_others_go_on(topics: Topics, unique: str, opened: Keep) -> None:
    labels = f"{unique}.labels"
    topics.append(unique, outgoing(*[f"e{n}" for n in range(10)]))
    topics.append(labels, outgoing("l0"))
    reader = opened(topics.open(start(unique) | start(labels)))
    before = read(reader, 3)  # the rest is prefetched
    reader.pause([unique])
    reader.pause([unique])
    topics.append(unique, outgoing("e10"))
    topics.append(labels, outgoing("l1", "l2"))
    expected_labels = 3 - sum(record.position.topic == labels for record in before)
    paused = read(reader, expected_labels)
    assert {record.position.topic for record in paused} == {labels}
    assert reader.poll(10, 0.5) == []
    reader.resume([unique])
    reader.resume([unique])
    seen = [*before, *read(reader, 11 - sum(record.position.topic == unique for record in before))]
    assert [v for v in values(seen) if v.startswith("e")] == [f"e{n}" for n in range(11)]


def test_a_topic_that_stays_full_does_not_starve_another(topics: Topics, unique: str, opened: Keep) -> None:
    labels = f"{unique}.labels"
    topics.append(unique, outgoing(*[str(n) for n in range(2_000)]))
    topics.append(labels, outgoing("l"))
    reader = opened(topics.open(start(unique) | start(labels)))
    seen: set[str] = set()
    for _ in range(40):  # 4,000 records: Kafka gives what one fetch brought, all 2,000, before it turns to another
        seen |= {record.position.topic for record in read(reader, 100)}
        topics.append(unique, outgoing(*["more"] * 100))
    assert labels in seen


def test_lag_counts_down_to_nothing(topics: Topics, unique: str, opened: Keep) -> None:
    partition = Partition(topic=unique, partition=0)
    topics.append(unique, outgoing("a", "b", "c", "d"))
    reader = opened(topics.open(start(unique)))
    read(reader, 1)
    some = reader.lag()[partition]
    read(reader, 2)
    assert 0 < reader.lag()[partition] < some
    read(reader, 1)
    assert reader.lag() == {partition: 0}


def test_commits_of_a_reader_are_seen_by_others(topics: Topics, unique: str, opened: Keep) -> None:
    partition = Partition(topic=unique, partition=0)
    topics.append(unique, outgoing("a", "b"))
    assert topics.committed(unique, [partition]) == {}
    reader = opened(topics.open(start(unique), commit_as=unique))
    records = read(reader, 2)
    deadline = Deadline(WITHIN_S)
    while not topics.committed(unique, [partition]) and not deadline.expired():
        reader.commit({partition: records[1].next_offset})  # best effort: in the background
    assert topics.committed(unique, [partition]) == {partition: records[1].next_offset}
    assert topics.committed(f"{unique}-other", [partition]) == {}


def test_a_reader_without_a_group_commits_nowhere(topics: Topics, unique: str, opened: Keep) -> None:
    partition = Partition(topic=unique, partition=0)
    topics.append(unique, outgoing("a"))
    reader = opened(topics.open(start(unique)))
    reader.commit({partition: read(reader, 1)[0].next_offset})
    assert topics.committed(unique, [partition]) == {}


def test_a_group_goes_on_where_it_committed(topics: Topics, unique: str, opened: Keep) -> None:
    topics.append(unique, outgoing("a", "b", "c"))
    first = topics.open_group([unique], unique)
    records = read(first, 3)
    first.commit({Partition(topic=unique, partition=0): records[0].next_offset})
    first.close()
    second = opened(topics.open_group([unique], unique))
    assert values(read(second, 2)) == ["b", "c"]


def test_a_group_shares_a_topic_without_reading_twice(topics: Topics, unique: str) -> None:
    """One partition: one member has it; when it closes, the other goes on from the commit."""
    partition = Partition(topic=unique, partition=0)
    topics.append(unique, outgoing("a"))
    members = [topics.open_group([unique], unique), topics.open_group([unique], unique)]
    seen: list[str] = []
    deadline = Deadline(WITHIN_S)
    while not seen and not deadline.expired():
        for member in members:
            records = member.poll(10, 0.3)
            if records:
                member.commit({partition: records[-1].next_offset})
                owner = member
            seen += values(records)
    assert seen == ["a"]
    other = next(member for member in members if member is not owner)
    owner.close()
    topics.append(unique, outgoing("b"))
    assert values(read(other, 1)) == ["b"]
    other.close()


def test_a_position_beyond_the_end_is_lost(topics: Topics, unique: str, opened: Keep) -> None:
    topics.append(unique, outgoing("a"))
    reader = opened(topics.open(start(unique, 1_000)))
    with pytest.raises(PositionLost, match=unique):
        read(reader, 1)


def test_a_topic_made_anew_has_another_identity(topics: Topics, unique: str) -> None:
    topics.append(unique, outgoing("old"))
    before = topics.identity(unique)
    delete(topics, unique)
    topics.ensure([unique])
    assert topics.identity(unique) != before


def test_a_topic_made_anew_stops_its_reader(topics: Topics, unique: str, opened: Keep) -> None:
    topics.append(unique, outgoing("old", "older"))
    reader = opened(topics.open(start(unique)))
    read(reader, 1)
    delete(topics, unique)
    topics.ensure([unique])
    with pytest.raises(TopicRecreated, match=unique):
        append_and_poll(topics, unique, reader)


def test_dead_letters_keep_bytes_reason_and_place(topics: Topics, unique: str, opened: Keep) -> None:
    letters = [
        DeadLetter(
            feed="reviews",
            reason="undecodable",
            detail="not UTF-8 at byte 0",
            position=Position(topic="reviews", partition=0, offset=offset),
            value=value,
        )
        for offset, value in enumerate([b"\xff\x00\n{", b"", b"y" * 5_000_000])
    ]
    topics.append_dead_letters(unique, letters)
    topics.append_dead_letters(unique, [])
    records = read(opened(topics.open(start(unique))), 3)
    assert [letter_of(topics, record) for record in records] == [
        ("undecodable", "not UTF-8 at byte 0", f"reviews-0-{offset}", letter.value)
        for offset, letter in enumerate(letters)
    ]


def append_and_poll(topics: Topics, topic: str, reader: Reader) -> None:
    """Until something is raised, at most 30 s."""
    deadline = Deadline(WITHIN_S)
    while not deadline.expired():
        topics.append(topic, outgoing("new"))
        reader.poll(10, 0.5)


def delete(topics: Topics, topic: str) -> None:
    """As an operator would."""
    if isinstance(topics, FileTopics):
        (topics._data(topic)).unlink()
        return
    from kafka import KafkaAdminClient

    assert isinstance(topics, KafkaTopics)
    admin = KafkaAdminClient(bootstrap_servers=topics._options["bootstrap_servers"])
    try:
        admin.delete_topics([topic])
    finally:
        admin.close()
    deadline = Deadline(WITHIN_S)
    while topics.exists(topic):  # the controller has deleted it; the broker's metadata follow
        assert not deadline.expired()


def letter_of(topics: Topics, record: RawRecord) -> tuple[str, str, str, bytes]:
    """(reason, detail, position, value), read with the client itself."""
    if isinstance(topics, FileTopics):
        import base64
        import json

        document = json.loads(record.value or b"")
        value = base64.b64decode(document["value_base64"])
        return document["reason"], document["detail"], document["position"], value
    from kafka import KafkaConsumer, TopicPartition

    assert isinstance(topics, KafkaTopics)
    consumer = KafkaConsumer(bootstrap_servers=topics._options["bootstrap_servers"])
    try:
        partition = TopicPartition(record.position.topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, record.position.offset)
        raw = consumer.poll(timeout_ms=10_000, max_records=1)[partition][0]
    finally:
        consumer.close()
    headers = {name: value.decode() for name, value in raw.headers}
    assert raw.key.decode() == headers["position"]
    return headers["reason"], headers["detail"], headers["position"], raw.value


def test_a_record_beyond_the_limit_comes_as_its_size_and_the_rest_as_it_is(
    topics: Topics, unique: str, opened: Keep
) -> None:
    sizes = [3, MAX_BYTES, MAX_BYTES + 1, 0, 8_000_000, 5]
    for size in sizes:
        topics.append(unique, [Outgoing(value=b"x" * size, key=b"k")])
    records = read(opened(topics.open(start(unique))), len(sizes))
    found = [len(one.value) if one.value is not None else -(one.skipped_bytes or 0) for one in records]
    assert found == [3, MAX_BYTES, -MAX_BYTES - 1, 0, -8_000_000, 5]
    again = read(opened(topics.open(start(unique, records[2].position.offset))), 4)
    assert again == records[2:]
    behind = read(opened(topics.open(start(unique, records[2].next_offset))), 3)
    assert behind == records[3:]
    group = opened(topics.open_group([unique], f"{unique}-group"))
    assert [one.skipped_bytes for one in read(group, len(sizes))] == [one.skipped_bytes for one in records]
