"""Topics into the buffer, on files and on a real Kafka broker."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from driftline.buffer import Buffer, FeedCounts, feed_rules
from driftline.clock import Deadline, SimulatedClock
from driftline.config import Config, TopicsConfig, feed_topics, parse_config
from driftline.errors import BufferFull, BufferInUse, BufferStoreError, TopicError, TopicRecreated, TopicUnavailable
from driftline.records import Prediction, RawRecord, ServedAnswer
from driftline.topics import Outgoing, Partition, Topics
from driftline.topics.codec import encode_event, encode_label, encode_prediction
from driftline.topics.files import FileTopics
from driftline.topics.kafka import KafkaTopics
from stream.ingest import Ingest

WITHIN_S = 40.0
START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = b"key"
MAX_BYTES = 6_000_000


@pytest.fixture(params=["files", "kafka"])
def topics(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Topics]:
    if request.param == "files":
        made: Topics = FileTopics(tmp_path / "topics", max_record_bytes=MAX_BYTES)
    else:
        section = TopicsConfig(kind="kafka", bootstrap_servers=request.getfixturevalue("kafka_bootstrap"))
        made = KafkaTopics(section, max_record_bytes=MAX_BYTES)
    yield made
    made.close()


class House:
    """One feed's ingest on one state folder, which a test may close and open again."""

    def __init__(self, topics: Topics, folder: Path, feed: str) -> None:
        self.topics, self.folder, self.feed = topics, folder, feed
        self.clock = SimulatedClock(START)
        self.ingest: Ingest | None = None
        self.buffer: Buffer | None = None
        self.settings: dict = {
            "labels": ["neg", "pos"],
            "event_wait_s": 50.0,
            "evaluation": {"holdout_share": 1e-12},
            "schedule": {"min_examples": 10},
        }
        self.limits: dict = {}

    @property
    def config(self) -> Config:
        return parse_config({"feed": {self.feed: self.settings}, "ingest": self.limits}, root=self.folder)

    def open(self, **limits: object) -> "House":
        self.limits = limits
        config = self.config
        self.names = feed_topics(config, self.feed)
        rules = {self.feed: feed_rules(self.feed, config.feed[self.feed], self.names, config.ingest)}
        self.buffer = Buffer.open(self.folder / "buffer.sqlite3", rules, KEY)
        self.ingest = Ingest(
            self.topics,
            self.buffer,
            config.feed,
            {self.feed: self.names},
            config.ingest,
            self.clock,
            lock=self.folder / "ingest.lock",
        )
        return self

    def close(self) -> None:
        if self.ingest is not None:
            self.ingest.close()
        if self.buffer is not None:
            self.buffer.close()

    def step_until(self, done: Callable[[FeedCounts], bool]) -> FeedCounts:
        deadline = Deadline(WITHIN_S)
        while not done(counts := self.buffer.counts(self.feed)):
            assert not deadline.expired(), counts
            self.ingest.step(0.2)
        assert counts.event_records == (
            counts.examples + counts.unlabelled + counts.pending + counts.dead_letters + counts.duplicates
        )
        return counts

    def events(self, *ids: str, label: str | None = None) -> None:
        self.topics.append(self.names.events, [encode_event(i, f"text of {i}", label=label) for i in ids])

    def labels(self, *ids: str, label: str = "pos") -> None:
        self.topics.append(self.names.labels, [encode_label(i, label, START, "ana") for i in ids])

    def predictions(self, *ids: str) -> None:
        answers = [
            Prediction(
                event_id=i,
                feed=self.feed,
                label=None,
                scores={},
                adapter_version=0,
                replica="a",
                predicted_at=START,
            )
            for i in ids
        ]
        self.topics.append(self.names.predictions, [encode_prediction(answer) for answer in answers])


@pytest.fixture
def house(topics: Topics, tmp_path: Path, unique: str) -> Iterator[House]:
    made = House(topics, tmp_path / "state", unique)
    made.folder.mkdir()
    yield made
    made.close()


def read_all(topics: Topics, topic: str, count: int) -> list[bytes]:
    reader = topics.open({Partition(topic=topic, partition=0): None})
    values: list[bytes] = []
    deadline = Deadline(WITHIN_S)
    while len(values) < count and not deadline.expired():
        values += [raw.value or b"" for raw in reader.poll(100, 0.2)]
    reader.close()
    return values


def test_events_labels_and_predictions_meet(house: House) -> None:
    house.open()
    house.events("a", "b", "c")
    house.events("d", label="neg")
    house.labels("b", "a", "nobody")
    house.predictions("a", "d")
    counts = house.step_until(lambda c: c.examples == 3 and c.labels_waiting == 1 and c.fresh == 2)
    assert (counts.pending, counts.awaiting_prediction) == (1, 1)
    examples = {e.event_id: e for e in house.buffer.ledger.examples_after(house.feed, 0)}
    assert {i: (e.label, e.text, e.answer is not None) for i, e in examples.items()} == {
        "a": ("pos", "text of a", True),
        "b": ("pos", "text of b", False),
        "d": ("neg", "text of d", True),
    }
    house.clock.advance_to(START + timedelta(seconds=61))
    counts = house.step_until(lambda c: c.fresh == 3)
    assert counts.label_dead_letters == 1


def test_what_cannot_be_used_is_dead_lettered_sent_and_retried(house: House) -> None:
    house.open()
    bad = [b"\xff\xfe not json", b'{"id": "x"}', b'{"id": "u", "text": "fine", "label": "angry"}']
    house.topics.append(house.names.events, [Outgoing(value=value) for value in bad])
    house.events("a")
    counts = house.step_until(lambda c: c.event_records == 4)
    assert counts.by_reason == {"undecodable": 1, "missing_field": 1, "unknown_label": 1}
    assert (counts.dead_letters, counts.label_dead_letters, counts.pending) == (2, 1, 2)
    house.predictions("u")
    assert house.ingest.drain_dead_letters() == 3
    assert house.ingest.drain_dead_letters() == 0
    assert len(read_all(house.topics, house.names.dead_letters, 3)) == 3
    house.close()

    house.settings["labels"] = ["neg", "pos", "angry"]  # the operator mends the config and retries
    house.open()
    assert house.buffer.letters.mark_for_retry(house.feed, None) == 3
    assert house.ingest.retry_dead_letters() == 3
    counts = house.buffer.counts(house.feed)
    assert (counts.event_records, counts.dead_letters, counts.examples, counts.pending) == (4, 2, 1, 1)
    house.step_until(lambda c: c.fresh == 1)
    (example,) = house.buffer.ledger.examples_after(house.feed, 0)
    assert (example.event_id, example.label) == ("u", "angry")
    assert example.answer == ServedAnswer(label=None, adapter_version=0), "the one that was given"
    assert counts.label_dead_letters == 0
    assert house.ingest.drain_dead_letters() == 0, "the other two were sent with the same reason before"


def test_a_record_that_is_too_large_is_accounted_for_without_its_bytes_and_not_retried(house: House) -> None:
    house.open()
    house.events("a")
    house.topics.append(house.names.events, [Outgoing(value=b'{"text": "' + b"x" * 6_500_000 + b'"}', key=b"k")])
    house.events("b")
    counts = house.step_until(lambda c: c.event_records == 3)
    assert counts.by_reason == {"record_too_large": 1}
    assert counts.pending == 2
    [row] = house.buffer.letters.newest(house.feed, 10, None)
    assert (row.letter.value, row.letter.position.topic) == (b"", house.names.events)
    assert row.letter.detail == "the record has 6,500,012 bytes, more than ingest.max_record_bytes; they are not kept"
    assert house.ingest.drain_dead_letters() == 1
    assert house.buffer.letters.mark_for_retry(house.feed, None) == 0
    house.close()
    house.open()
    house.events("c")
    assert house.step_until(lambda c: c.event_records == 4).dead_letters == 1, "the position went past it"


def test_it_goes_on_where_it_stopped(house: House) -> None:
    house.open(batch_records=3)
    house.events(*(f"e{i}" for i in range(10)))
    house.step_until(lambda c: c.event_records >= 3)
    house.close()
    house.open(batch_records=100)
    house.events("late")
    counts = house.step_until(lambda c: c.event_records == 11)
    assert counts.duplicates == 0
    house.ingest.step(0.2)
    assert house.buffer.counts(house.feed).event_records == 11


def test_too_many_waiting_examples_pause_events_and_never_labels(house: House) -> None:
    house.settings["schedule"] = {"min_examples": 8, "max_examples": 10}
    house.open(batch_records=10, max_waiting_examples=20)
    house.events(*(f"e{i}" for i in range(25)), label="pos")
    house.step_until(lambda c: c.examples >= 20)
    house.ingest.step(0.0)
    assert house.ingest.paused
    house.events(*(f"f{i}" for i in range(30)), label="pos")
    house.labels(*(f"x{i}" for i in range(7)))
    counts = house.step_until(lambda c: c.labels_waiting == 7)
    assert counts.examples < 30, "the prefetched rest at most"
    assert house.ingest.paused
    waiting = house.buffer.intake.waiting_examples()
    house.clock.advance_to(START + timedelta(seconds=61))
    house.step_until(lambda c: c.fresh == waiting)
    assert house.buffer.ledger.retire_overflow(house.feed, keep=5) == waiting - 5
    counts = house.step_until(lambda c: c.examples > 25)
    assert counts.dead_letters == 0


@pytest.mark.parametrize("topics", ["files"], indirect=True)
def test_a_clock_that_is_set_back_stops_no_expiry(house: House) -> None:
    house.open()
    house.clock = house.ingest._clock = SimulatedClock(START + timedelta(days=1))
    house.ingest.step(0.0)
    house.clock = house.ingest._clock = SimulatedClock(START)
    house.labels("a")
    house.step_until(lambda c: c.labels_waiting == 1)
    house.clock.advance_to(START + timedelta(seconds=50))
    house.step_until(lambda c: c.label_dead_letters == 1)


def test_after_an_outage_nothing_expires_before_the_topics_are_read(house: House) -> None:
    house.open(batch_records=2)
    house.labels("a")
    house.step_until(lambda c: c.labels_waiting == 1)
    house.close()
    house.clock.advance_to(START + timedelta(days=30))  # much longer than event_wait_s
    house.events("x1", "x2", "x3", "x4", "x5", "a")
    house.open(batch_records=2)
    counts = house.step_until(lambda c: c.event_records == 6)
    assert (counts.examples, counts.label_dead_letters) == (1, 0)


def test_a_second_ingest_is_kept_out(house: House) -> None:
    house.open()
    other = House(house.topics, house.folder, house.feed)
    with pytest.raises(BufferInUse, match="another ingest"):
        other.open()
    other.buffer.close()
    house.close()
    house.open()


def test_an_empty_buffer_where_something_was_read_before_stops_with_the_remedy(house: House) -> None:
    house.open()
    house.events("a")
    house.step_until(lambda c: c.event_records == 1)
    group = f"driftline-ingest-{house.feed}"
    partition = Partition(topic=house.names.events, partition=0)
    deadline = Deadline(WITHIN_S)
    while not house.topics.committed(group, [partition]) and not deadline.expired():
        house.ingest.step(0.2)  # commits now and then, on Kafka in the background
    house.close()
    for file in house.folder.glob("buffer.sqlite3*"):
        file.unlink()
    with pytest.raises(BufferStoreError, match=f"(?s)the buffer is empty.*{group}") as refused:
        house.open()
    house.buffer.close()
    kafka = f"kafka-consumer-groups.sh --bootstrap-server HOST:PORT --delete-offsets --group {group} --topic "
    assert kafka in str(refused.value)
    if isinstance(house.topics, FileTopics):
        named = re.findall(r"topics/\S+\.json", str(refused.value))
        assert named
        for file in named:
            (house.folder.parent / file).unlink()
        house.open()
        house.step_until(lambda c: c.event_records == 1)


@pytest.mark.parametrize("topics", ["files"], indirect=True)
def test_a_feed_under_a_new_name_reads_its_topics_from_their_start(house: House) -> None:
    own = {f"{kind}_topic": f"{house.feed}.{kind}" for kind in ("events", "labels", "predictions")}
    house.settings |= own
    house.open()
    house.events("a", "b", label="neg")
    house.topics.append(house.names.events, [Outgoing(value=b"?")])
    house.labels("c")
    house.step_until(lambda c: (c.event_records, c.labels_waiting) == (3, 1))
    house.close()
    old, house.feed = house.feed, f"{house.feed}-anew"
    house.open()
    house.events("c")
    anew = house.step_until(lambda c: c.event_records == 4)
    assert (anew.examples, anew.dead_letters) == (3, 1)
    house.close()
    house.feed = old
    house.open()
    before = house.step_until(lambda c: c.event_records == 4)
    assert (before.examples, before.dead_letters, before.duplicates) == (3, 1, 0), "it goes on where it was"


def test_a_full_disk_loses_nothing(house: House) -> None:
    house.open()
    house.events("a")
    house.step_until(lambda c: c.event_records == 1)
    connection = house.buffer._store._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    house.events(*(f"long{i}" + "x" * 400 for i in range(50)))
    with pytest.raises(BufferFull):
        house.step_until(lambda c: c.event_records == 51)
    with pytest.raises(BufferFull):
        house.ingest.step(0.2)
    connection.execute("PRAGMA max_page_count = 100000")
    assert house.step_until(lambda c: c.event_records == 51).duplicates == 0


def test_run_until_told_to_stop(house: House) -> None:
    house.open()
    stop, failed = threading.Event(), []

    def run() -> None:
        try:
            house.ingest.run(stop)
        except BaseException as error:  # noqa: BLE001  shown by the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    house.events(*(f"e{i}" for i in range(100)))
    house.topics.append(house.names.events, [Outgoing(value=b"no json")])
    letters = read_all(house.topics, house.names.dead_letters, 1)
    stop.set()
    thread.join(WITHIN_S)
    assert not thread.is_alive()
    assert not failed
    assert len(letters) == 1
    assert house.buffer.counts(house.feed).event_records == 101


@pytest.fixture
def of_two_feeds(topics: Topics, tmp_path: Path) -> Iterator[tuple[Ingest, Buffer]]:
    """Ingest of the feeds `one` and `two`, and its buffer."""
    config = parse_config({"feed": {name: {"labels": ["neg", "pos"]} for name in ("one", "two")}}, root=tmp_path)
    names = {name: feed_topics(config, name) for name in config.feed}
    rules = {name: feed_rules(name, feed, names[name], config.ingest) for name, feed in config.feed.items()}
    buffer, clock = Buffer.open(tmp_path / "buffer.sqlite3", rules, KEY), SimulatedClock(START)
    with Ingest(topics, buffer, config.feed, names, config.ingest, clock, lock=tmp_path / "lock") as ingest:
        yield ingest, buffer
    buffer.close()


@pytest.mark.parametrize("topics", ["files"], indirect=True)
def test_two_feeds_share_a_buffer(topics: Topics, of_two_feeds: tuple[Ingest, Buffer]) -> None:
    ingest, buffer = of_two_feeds
    topics.append("one", [encode_event("a", "first", label="neg"), encode_event("b", "second")])
    topics.append("two", [encode_event("a", "another", label="pos"), Outgoing(value=b"?")])
    topics.append("two.labels", [encode_label("b", "pos", None, None)])
    assert sum(ingest.step(0.0) for _ in range(10)) == 5
    assert ingest.drain_dead_letters() == 1
    one, two = buffer.counts("one"), buffer.counts("two")
    assert (one.examples, one.pending, one.dead_letters, one.labels_waiting) == (1, 1, 0, 0)
    assert (two.examples, two.pending, two.dead_letters, two.labels_waiting) == (1, 0, 1, 1)
    assert len(read_all(topics, "two.dead-letters", 1)) == 1
    assert read_all(topics, "one.dead-letters", 0) == []


@pytest.mark.parametrize("topics", ["files"], indirect=True)
def test_what_one_feed_gave_is_not_lost_to_another_ones_outage(
    topics: Topics, of_two_feeds: tuple[Ingest, Buffer], monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest, buffer = of_two_feeds
    for name in ("one", "two"):
        topics.append(name, [encode_event(i, f"text of {i}", label="neg") for i in "abc"])
    with monkeypatch.context() as outage:
        outage.setattr(ingest._sources["two"].reader, "poll", unavailable)
        with pytest.raises(TopicUnavailable):
            ingest.step(0.0)
    assert sum(ingest.step(0.0) for _ in range(5)) == 6
    assert [buffer.counts(name).examples for name in ("one", "two")] == [3, 3]


def unavailable(*_: object) -> list[RawRecord]:
    raise TopicUnavailable("for a moment")


@pytest.mark.parametrize("topics", ["files"], indirect=True)
def test_a_topic_made_anew_stops_ingest(house: House, tmp_path: Path) -> None:
    house.open()
    house.events("a")
    house.step_until(lambda c: c.event_records == 1)
    house.close()
    folder = tmp_path / "topics" / house.names.events
    for file in [*folder.rglob("*")][::-1]:
        if file.is_file():
            file.unlink()
    house.events("b")
    with pytest.raises(TopicRecreated, match="made anew"):
        house.open()


def wait_for_partitions(topics: Topics, names: Sequence[str]) -> None:
    deadline = Deadline(WITHIN_S)
    while any(len(topics.partitions(name)) < 4 for name in names):
        assert not deadline.expired()


@pytest.mark.parametrize("topics", ["kafka"], indirect=True)
def test_partitions_by_rank_and_those_that_are_added(house: House, kafka_bootstrap: str) -> None:
    from kafka import KafkaAdminClient

    house.open(rank=0, of_ranks=2)
    assert {p.partition for p in house.ingest._sources[house.feed].assigned} == {0}
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    read = (house.names.events, house.names.labels, house.names.predictions)
    admin.create_partitions(dict.fromkeys(read[:1], 4))
    wait_for_partitions(house.topics, read[:1])
    house.ingest._look_for_partitions()
    with pytest.raises(TopicError, match="equally many"):
        house.ingest.step(0.1)
    admin.create_partitions(dict.fromkeys(read[1:], 4))
    wait_for_partitions(house.topics, read[1:])
    admin.close()
    house.events(*(f"e{i}" for i in range(200)))
    house.ingest.step(0.1)
    assert {p.partition for p in house.ingest._sources[house.feed].assigned if p.topic == house.names.events} == {0, 2}
    deadline = Deadline(WITHIN_S)
    while any(house.ingest._sources[house.feed].reader.lag().values()):
        assert not deadline.expired()
        house.ingest.step(0.2)
    assert 0 < house.buffer.counts(house.feed).event_records < 200, "the other rank reads the rest"
    assert {p.partition for p in house.buffer.intake.positions() if p.topic == house.names.events} <= {0, 2}


def test_a_topic_file_whose_last_line_is_not_whole_ends_no_wait(tmp_path: Path, unique: str) -> None:
    topics = FileTopics(tmp_path / "topics")
    house = House(topics, tmp_path, unique).open()
    house.events("a")
    house.labels("nobody")
    with (tmp_path / "topics" / house.names.events / "0.jsonl").open("ab") as file:
        file.write(b'{"id": "b", "te')
    house.step_until(lambda counts: counts.pending == 1 and counts.labels_waiting == 1)
    house.clock.advance_to(START + timedelta(seconds=60))
    house.step_until(lambda counts: counts.label_dead_letters == 1)
    house.close()


class Street:
    """Two feeds' ingest on file topics; the dead-letter topic of the first refuses what is appended to it."""

    def __init__(self, folder: Path) -> None:
        labels = {"labels": ["neg", "pos"]}
        config = parse_config({"feed": {"deaf": labels, "well": labels}}, root=folder)
        self.names = {feed: feed_topics(config, feed) for feed in config.feed}
        rules = {feed: feed_rules(feed, config.feed[feed], self.names[feed], config.ingest) for feed in config.feed}
        self.topics = FileTopics(folder / "topics")
        self.buffer = Buffer.open(folder / "b.sqlite3", rules, KEY)
        clock = SimulatedClock(START)
        self.ingest = Ingest(
            self.topics, self.buffer, config.feed, self.names, config.ingest, clock, lock=folder / "lock"
        )
        refusing = folder / "topics" / self.names["deaf"].dead_letters / "0.jsonl"
        refusing.unlink()
        refusing.mkdir()

    def close(self) -> None:
        self.ingest.close()
        self.buffer.close()


def test_a_dead_letter_topic_that_refuses_holds_up_no_other_feed(tmp_path: Path) -> None:
    street = Street(tmp_path)
    for names in street.names.values():
        street.topics.append(names.events, [Outgoing(value=b"not JSON")])
    street.ingest.step(0.0)
    looked: list[bool] = []
    street.ingest._look_for_partitions = lambda: looked.append(True)  # type: ignore[method-assign]
    street.ingest._careful_housekeeping(look_at=0.0)
    assert looked, "the search for new partitions goes on"
    assert [row.state for row in street.buffer.letters.newest("well", 9)] == ["sent"]
    assert [row.state for row in street.buffer.letters.newest("deaf", 9)] == ["to_send"]
    assert street.ingest.drain_dead_letters() == 0
    street.close()
