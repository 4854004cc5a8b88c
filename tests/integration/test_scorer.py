"""The scorer on topic files and on a real broker: nothing is left unanswered, whatever fails in between."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from driftline.assembly import wiring
from driftline.base import Base
from driftline.clock import SimulatedClock
from driftline.config import FeedConfig, ServeConfig, TopicsConfig, parse_config
from driftline.errors import NotReady, Overloaded, ServingError, TopicUnavailable
from driftline.topics import Outgoing, Partition, Topics
from driftline.topics.codec import encode_event
from driftline.topics.files import FileTopics
from driftline.topics.kafka import KafkaTopics
from replay.pipeline import open_pipeline, replay_config
from serving.engine import Engine
from serving.scorer import Scorer
from tests.fixtures.replicas import LABELS, eventually, feed_config, topic_names
from tests.fixtures.versions import make_manifest, random_weights

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture
def engine(base: Base, tiny_base_dir: Path, unique: str) -> Iterator[Engine]:
    engine = Engine(base, ServeConfig(), {unique: FeedConfig(labels=LABELS)})
    engine.start()
    weights = random_weights(base, 3, seed=1)
    engine.stage(unique, make_manifest(base, tiny_base_dir, weights, unique, 1), weights)
    yield engine
    engine.close()


@pytest.fixture
def topics(tmp_path: Path) -> FileTopics:
    return FileTopics(tmp_path / "topics")


MakeScorer = Callable[..., Scorer]


@pytest.fixture
def make_scorer(engine: Engine, unique: str) -> Iterator[MakeScorer]:
    made = []

    def make(topics: Topics, section: FeedConfig | None = None) -> Scorer:
        names = topic_names(unique)
        topics.ensure(names.model_dump().values())
        reader = topics.open_group([names.events], f"score-{unique}")
        scorer = Scorer(topics, reader, engine, unique, section or feed_config(), names, "a", SimulatedClock(NOW))
        made.append(scorer)
        return scorer

    yield make
    for scorer in made:
        scorer.close()


def events(*ids: str, **fields: Any) -> list[Outgoing]:
    return [encode_event(one, f"good phone {one}", **fields) for one in ids]


def predictions(topics: Topics, feed: str) -> list[dict[str, Any]]:
    topic = topic_names(feed).predictions
    reader = topics.open({Partition(topic=topic, partition=number): None for number in topics.partitions(topic)})
    found: list[dict[str, Any]] = []
    while any(reader.lag().values()):
        found += [json.loads(record.value or b"") for record in reader.poll(1000, 0.2)]
    reader.close()
    return found


def test_every_event_is_answered_by_the_live_version(
    topics: FileTopics, make_scorer: MakeScorer, engine: Engine, unique: str
) -> None:
    scorer = make_scorer(topics)
    assert scorer.step(0.0) == 0
    topics.append(unique, events("a"))
    assert scorer.step(5.0) == 1
    engine.activate(unique, 1, 1)
    topics.append(unique, events("b", "c"))
    assert scorer.step(5.0) == 2
    found = predictions(topics, unique)
    assert [(one["id"], one["adapter_version"], one["replica"]) for one in found] == [
        ("a", 0, "a"),
        ("b", 1, "a"),
        ("c", 1, "a"),
    ]
    assert found[0]["label"] is None
    assert found[0]["scores"] == dict.fromkeys(LABELS, 1 / 3)
    [expected] = engine.predict(unique, ["good phone b"])
    assert found[1]["label"] == expected.label
    assert found[1]["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert found[1]["timestamp"] == "2026-11-22T08:00:00Z"


def test_an_event_with_a_bad_label_or_time_is_answered_and_answers_carry_their_event(
    topics: FileTopics, make_scorer: MakeScorer, unique: str
) -> None:
    scorer = make_scorer(topics)
    good = {"text": "schön  phone", "timestamp": "Sat, 21 Nov 2026 08:00:00 +0000", "source": "shop"}
    bad = [good | {"id": "label", "label": "angry"}, good | {"id": "time", "timestamp": "soon", "source": None}]
    topics.append(unique, [Outgoing(value=json.dumps(one).encode()) for one in bad])
    assert scorer.step(5.0) == 2
    with_label, with_time = predictions(topics, unique)
    assert (with_label["id"], with_label["source"]) == ("label", "shop")
    assert with_label["event_timestamp"] == "2026-11-21T08:00:00Z"
    assert with_label["text_sha256"] == hashlib.sha256("schön phone".encode()).hexdigest()
    assert with_time["id"] == "time"
    assert not {"event_timestamp", "source"} & with_time.keys()


def test_collected_and_unusable_events_are_skipped(topics: FileTopics, make_scorer: MakeScorer, unique: str) -> None:
    scorer = make_scorer(topics)
    no_id = Outgoing(value=b'{"text": "good"}')
    bad = [Outgoing(value=b"\xff\xfe"), Outgoing(value=b'{"id": "e", "text": " "}'), Outgoing(value=b"{")]
    topics.append(unique, [*events("a"), *events("http", collected=True), *bad, no_id])
    assert scorer.step(5.0) == 6
    ids = [one["id"] for one in predictions(topics, unique)]
    assert ids[0] == "a"
    assert ids[1].startswith(f"{unique}-0-")
    assert len(ids) == 2


class Failing(FileTopics):
    """Refuses the next `failures` appends to the predictions topic."""

    failures = 0

    def append(self, topic: str, records: Any) -> None:
        if topic.endswith(".predictions") and self.failures:
            self.failures -= 1
            raise TopicUnavailable("the disk is full")
        super().append(topic, records)


def test_when_predictions_cannot_be_written_the_same_events_are_answered_later(
    tmp_path: Path, make_scorer: MakeScorer, unique: str
) -> None:
    topics = Failing(tmp_path)
    scorer = make_scorer(topics)
    topics.append(unique, events("a", "b"))
    topics.failures = 2
    for _ in range(2):
        with pytest.raises(TopicUnavailable):
            scorer.step(5.0)
    topics.append(unique, events("c"))
    assert scorer.step(5.0) == 2
    assert scorer.step(5.0) == 1
    assert [one["id"] for one in predictions(topics, unique)] == ["a", "b", "c"]


def test_a_crash_before_the_commit_answers_again_and_loses_nothing(
    topics: FileTopics, make_scorer: MakeScorer, unique: str
) -> None:
    first = make_scorer(topics)
    topics.append(unique, events("a", "b"))
    assert first.step(5.0) == 2
    topics.append(unique, events("c", "d"))

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    first._reader.commit = crash  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.step(5.0)
    first.close()
    second = make_scorer(topics)
    topics.append(unique, events("e"))
    answered = 0
    while answered < 3:
        answered += second.step(5.0)
    assert [one["id"] for one in predictions(topics, unique)] == ["a", "b", "c", "d", "c", "d", "e"]


def test_one_text_that_cannot_be_answered_does_not_stop_the_feed(
    topics: FileTopics, make_scorer: MakeScorer, engine: Engine, unique: str
) -> None:
    engine.activate(unique, 1, 1)
    scorer = make_scorer(topics)
    topics.append(unique, [*events("a"), encode_event("poison", "awful " * 30), *events("b")])
    forward = engine._bank.forward

    def poisoned(input_ids: Any, mask: Any, slots: Any) -> Any:
        if input_ids.shape[1] > 20:
            raise RuntimeError("out of memory")
        return forward(input_ids, mask, slots)

    engine._bank.forward = poisoned  # type: ignore[method-assign]
    assert scorer.step(5.0) == 3
    assert [one["id"] for one in predictions(topics, unique)] == ["a", "b"]
    assert scorer.failed == 1


def test_the_replay_counts_what_could_not_be_answered(tiny_base_dir: Path, tmp_path: Path, unique: str) -> None:
    asked = {"base": {"model": str(tiny_base_dir), "device": "cpu"}, "feed": {unique: {"labels": list(LABELS)}}}
    config = replay_config(parse_config(asked, root=tmp_path), unique, tmp_path / "state")
    with open_pipeline(config, unique, SimulatedClock(NOW)) as pipeline:
        predict = pipeline.engine.predict

        def broken(*_: Any, **__: Any) -> Any:
            raise ServingError("out of memory")

        pipeline.engine.predict = broken  # type: ignore[method-assign]
        pipeline.topics.append(unique, events("a", "b"))
        assert pipeline.answer_waiting(2) == 2
        pipeline.engine.predict = predict  # type: ignore[method-assign]
        pipeline.topics.append(unique, events("c"))
        assert pipeline.answer_waiting(1) == 0
        assert [one["id"] for one in predictions(pipeline.topics, unique)] == ["c"]


def test_installations_that_share_topics_score_apart(
    topics: FileTopics, engine: Engine, unique: str, tmp_path: Path
) -> None:
    topics.append(unique, events("a"))
    feeds = {unique: {"labels": list(LABELS)}}
    for prefix in ("north", "south"):
        config = parse_config({"redis": {"prefix": prefix}, "feed": feeds}, root=tmp_path / prefix)
        with closing(wiring.build_scorer(unique, config, topics, engine, SimulatedClock(NOW))) as scorer:
            assert scorer.step(5.0) == 1
    assert [one["id"] for one in predictions(topics, unique)] == ["a", "a"]


def test_run_waits_until_ready_and_through_what_passes(
    topics: FileTopics, make_scorer: MakeScorer, engine: Engine, unique: str
) -> None:
    scorer = make_scorer(topics)
    topics.append(unique, events("a"))
    ready, stop, asked = threading.Event(), threading.Event(), threading.Semaphore(0)
    predict = engine.predict
    errors = iter([Overloaded("the queue is full", 0.01), NotReady("starting")])

    def reluctant(*args: Any) -> Any:
        for error in errors:
            raise error
        return predict(*args)

    engine.predict = reluctant  # type: ignore[method-assign]

    def is_ready() -> bool:
        asked.release()
        return ready.is_set()

    runner = threading.Thread(target=scorer.run, args=(stop, is_ready))
    runner.start()
    for _ in range(5):  # it would have come through both errors by then
        assert asked.acquire(timeout=60)
    assert predictions(topics, unique) == []
    ready.set()
    assert eventually(lambda: [one["id"] for one in predictions(topics, unique)] == ["a"])
    stop.set()
    runner.join(60)
    assert not runner.is_alive()


def test_on_kafka_two_scorers_share_the_events_and_a_lost_one_is_replaced(
    kafka_bootstrap: str, make_scorer: MakeScorer, engine: Engine, unique: str
) -> None:
    engine.activate(unique, 1, 1)
    section = TopicsConfig(kind="kafka", bootstrap_servers=kafka_bootstrap, partitions=2)
    clusters = [KafkaTopics(section) for _ in range(2)]
    stops = [threading.Event() for _ in range(2)]
    scorers = [make_scorer(cluster) for cluster in clusters]
    threads = [
        threading.Thread(target=scorer.run, args=(stop, lambda: True))
        for scorer, stop in zip(scorers, stops, strict=True)
    ]
    for thread in threads:
        thread.start()
    ids = [f"e{number}" for number in range(200)]
    clusters[0].append(unique, events(*ids[:100]))
    assert eventually(lambda: {one["id"] for one in predictions(clusters[0], unique)} == set(ids[:100]))
    stops[0].set()
    threads[0].join(60)
    scorers[0].close()
    clusters[0].append(unique, events(*ids[100:]))
    assert eventually(lambda: {one["id"] for one in predictions(clusters[1], unique)} == set(ids))
    stops[1].set()
    threads[1].join(60)
    assert {one["adapter_version"] for one in predictions(clusters[1], unique)} == {1}
    for cluster in clusters:
        cluster.close()
