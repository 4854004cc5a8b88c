"""Answers mixed with pulses that stand in a real Redis: each equals a fresh computation, whatever happens meanwhile."""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.artefact.manifest import Trust
from driftline.artefact.weights import Weights
from driftline.base import Base
from driftline.clock import SystemClock
from driftline.experts import ExpertState
from driftline.records import Prediction, RawRecord
from driftline.registry import Registry
from driftline.topics import Partition
from driftline.topics.codec import Codec, encode_event
from driftline.topics.files import FileTopics
from serving.engine import Answer, Asked
from serving.scorer import Scorer
from tests.fixtures.fast_clock import LABELS, Clock
from tests.fixtures.fast_serving import Oracle, some_texts, weights_with_names
from tests.fixtures.registry import FEED, SIGNER
from tests.fixtures.replicas import Gate, Replica, eventually, feed_config, topic_names
from tests.fixtures.versions import Publisher, random_weights

TEXTS, _ = some_texts(7, seed=99)
WITHIN_S = 30.0
NUMBERS = ("0", "1", "2")
"""Label names that say nothing."""


MakeReplica = Callable[..., Replica]


@pytest.fixture
def make_replica(registry: Registry, base: Base, tmp_path: Path) -> Iterator[MakeReplica]:
    """A started engine with its follower, stepped by hand. `fast`: what stands under [feed.NAME.fast]."""
    made: list[Replica] = []

    def make(*, fast: dict[str, Any] | None = None, labels: Sequence[str] = LABELS) -> Replica:
        feeds = {
            FEED: feed_config(labels=labels, fast={"enabled": True} if fast is None else fast),
            "other": feed_config(),
        }
        trust = Trust.of(SIGNER.public_key)
        replica = Replica(registry, trust, base, feeds, tmp_path / f"replica-{len(made)}")
        replica.engine.start()
        made.append(replica)
        return replica

    yield make
    for replica in made:
        replica.engine.close()


@pytest.fixture
def replica(make_replica: MakeReplica) -> Replica:
    return make_replica()


def follow(replica: Replica) -> int:
    """What is live and what is out, taken over."""
    replica.watcher.sync(FEED)
    number = replica.watcher.follower.sync(FEED)
    assert replica.watcher.refused == {}
    return number


def assert_mixed(answers: Sequence[Answer], expected: np.ndarray, version: int, pulse: int) -> None:
    assert {(one.adapter_version, one.pulse) for one in answers} == {(version, pulse)}
    scores = np.array([[one.scores[label] for label in LABELS] for one in answers])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert [one.label for one in answers] == [LABELS[winner] for winner in expected.argmax(axis=1)]


def assert_heads(answers: Sequence[Answer], expected: np.ndarray, version: int, pulse: int) -> None:
    assert {(one.adapter_version, one.pulse) for one in answers} == {(version, pulse)}
    scores = np.array([list(one.scores.values()) for one in answers])
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_every_answer_equals_a_fresh_computation(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, named: Weights
) -> None:
    fast_clock.begin("first")
    slow_clock.publish(named)
    for seed in range(0, 30, 10):
        oracle.teach(fast_clock, named, 3, seed=seed)
        assert follow(replica) == fast_clock.pulse.number
        expected = oracle.scores(named, fast_clock.states, TEXTS)
        assert_mixed(replica.engine.predict(FEED, TEXTS), expected, 1, fast_clock.pulse.number)
    alone = slow_clock.scores(1, TEXTS).numpy()
    assert np.abs(expected - alone).max() > 0.05, "what was learned shows"


def test_the_feature_that_was_served_gives_the_same_answer(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, named: Weights
) -> None:
    fast_clock.begin("first")
    slow_clock.publish(named)
    oracle.teach(fast_clock, named, 2)
    follow(replica)
    answers = replica.engine.predict(FEED, TEXTS)
    served = np.stack([np.frombuffer(one.feature or b"", "<f2") for one in answers])
    np.testing.assert_allclose(served, oracle.features(named, TEXTS).numpy(), atol=2e-3)


def test_a_version_without_names_is_mixed_without_them(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, base: Base
) -> None:
    nameless = random_weights(base, 3, seed=4)
    fast_clock.begin("first")
    slow_clock.publish(nameless)
    oracle.teach(fast_clock, nameless, 3)
    follow(replica)
    answers = replica.engine.predict(FEED, TEXTS, asked=Asked.EXPERTS)
    assert_mixed(answers, oracle.scores(nameless, fast_clock.states, TEXTS), 1, 4)
    assert set(answers[0].experts) == {"head", "ridge", "words", "chars"}


def test_a_version_with_fewer_classes_is_mixed_over_the_feeds(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, base: Base
) -> None:
    """The head grants an unknown class next to nothing, and the others may still answer it."""
    two, own = random_weights(base, 2, seed=5), ("positive", "negative")
    fast_clock.begin("first")
    slow_clock.publish(two, labels=own)
    for number in range(40):
        texts, targets = some_texts(8, number)
        fast_clock.learn(oracle.block(two, texts, own), targets)
        fast_clock.publish()
    follow(replica)
    answers = replica.engine.predict(FEED, TEXTS)
    assert_mixed(answers, oracle.scores(two, fast_clock.states, TEXTS, own), 1, 41)
    assert "neutral" in {one.label for one in answers}


def test_a_state_that_fell_back_leaves_the_head_alone(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, named: Weights
) -> None:
    fast_clock.begin("first")
    slow_clock.publish(named)
    oracle.teach(fast_clock, named, 2)
    oracle.teach(fast_clock, named, 1, seed=7, fell_back=True)
    follow(replica)
    assert_heads(replica.engine.predict(FEED, TEXTS), slow_clock.scores(1, TEXTS).numpy(), 1, 4)
    assert replica.watcher.status().fell_back == (FEED,)
    oracle.teach(fast_clock, named, 1, seed=8)
    follow(replica)
    assert_mixed(replica.engine.predict(FEED, TEXTS), oracle.scores(named, fast_clock.states, TEXTS), 1, 5)
    assert (replica.watcher.status().fell_back, replica.watcher.status().pulses) == ((), {FEED: 5})


def test_before_the_first_label_a_version_answers_alone(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, named: Weights
) -> None:
    slow_clock.publish(named)
    alone = slow_clock.scores(1, TEXTS).numpy()
    follow(replica)
    assert_heads(replica.engine.predict(FEED, TEXTS), alone, 1, 0)
    fast_clock.begin("first")
    follow(replica)
    assert_heads(replica.engine.predict(FEED, TEXTS), alone, 1, 1)


def test_the_head_alone_may_be_asked_for(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, named: Weights
) -> None:
    fast_clock.begin("first")
    oracle.teach(fast_clock, None, 2)
    assert replica.engine.predict(FEED, TEXTS, asked=Asked.HEAD)[0].label is None
    slow_clock.publish(named)
    follow(replica)
    alone = slow_clock.scores(1, TEXTS).numpy()
    for version in (None, 1):
        assert_heads(replica.engine.predict(FEED, TEXTS, version, Asked.HEAD), alone, 1, 0)


def test_a_named_version_is_mixed_with_the_newest_pulse(
    replica: Replica,
    fast_clock: Clock,
    slow_clock: Publisher,
    oracle: Oracle,
    named: Weights,
    base: Base,
    tiny_base_dir: Path,
) -> None:
    fast_clock.begin("first")
    slow_clock.publish(named)
    second = weights_with_names(base, tiny_base_dir, 3, seed=2)
    slow_clock.publish(second)
    oracle.teach(fast_clock, second, 3)
    follow(replica)
    for version, weights in ((1, named), (2, second), (None, second), (0, None)):
        expected = oracle.scores(weights, fast_clock.states, TEXTS)
        assert_mixed(replica.engine.predict(FEED, TEXTS, version), expected, 2 if version is None else version, 4)


def test_cold_start_by_names_then_by_what_was_learned(replica: Replica, fast_clock: Clock, oracle: Oracle) -> None:
    assert [(one.label, one.pulse) for one in replica.engine.predict(FEED, TEXTS)] == [(None, 0)] * len(TEXTS)
    fast_clock.begin("first")
    follow(replica)
    assert_mixed(replica.engine.predict(FEED, TEXTS), oracle.scores(None, fast_clock.states, TEXTS), 0, 1)
    oracle.teach(fast_clock, None, 5)
    follow(replica)
    answers = replica.engine.predict(FEED, TEXTS)
    assert_mixed(answers, oracle.scores(None, fast_clock.states, TEXTS), 0, 6)
    _, targets = some_texts(len(TEXTS), seed=99)
    assert [one.label for one in answers] == [LABELS[target] for target in targets]


def test_the_first_labels_are_learned_with_features(replica: Replica, oracle: Oracle) -> None:
    """Answers that say nothing carry them, too: else ridge would miss what a feed begins with."""
    answers = replica.engine.predict(FEED, TEXTS)
    assert answers[0].scores == dict.fromkeys(LABELS, 1 / 3)
    served = np.stack([np.frombuffer(one.feature or b"", "<f2") for one in answers])
    np.testing.assert_allclose(served, oracle.features(None, TEXTS).numpy(), atol=2e-3)


@pytest.mark.parametrize(
    ("labels", "fast"),
    [
        (NUMBERS, {"enabled": True}),
        (LABELS, {"enabled": True, "experts": ["head", "ridge", "words", "chars"]}),
    ],
    ids=["names that say nothing", "no names expert"],
)
def test_without_names_that_say_something_nobody_answers_before_the_first_label(
    make_replica: MakeReplica, fast_clock: Clock, labels: Sequence[str], fast: dict[str, Any]
) -> None:
    replica = make_replica(labels=labels, fast=fast)
    state = {
        name: one
        for name, one in fast_clock.states.items()
        if name in (*fast.get("experts", fast_clock.states), "mixer")
    }
    if "experts" in fast:
        del state["mixer"].scoring["names"]
    fast_clock.states = state
    fast_clock.labels = tuple(labels)
    fast_clock.begin("first")
    assert follow(replica) == 1
    answers = replica.engine.predict(FEED, TEXTS)
    assert [(one.label, one.pulse, one.scores) for one in answers] == [(None, 1, dict.fromkeys(labels, 1 / 3))] * 7
    assert all(one.feature for one in answers)


def test_a_pulse_in_the_middle_of_many_requests(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, named: Weights
) -> None:
    """Each request is answered by one pulse, and exactly as that pulse's state says."""
    fast_clock.begin("first")
    slow_clock.publish(named)
    oracle.teach(fast_clock, named, 1)
    follow(replica)
    states: dict[int, dict[str, ExpertState]] = {fast_clock.pulse.number: copy.deepcopy(fast_clock.states)}
    stop = threading.Event()

    def client() -> list[list[Answer]]:
        found = []
        while not stop.is_set():
            found.append(replica.engine.predict(FEED, TEXTS))
        return found

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        try:
            for seed in range(50, 70):
                oracle.teach(fast_clock, named, 1, seed=seed)
                states[fast_clock.pulse.number] = copy.deepcopy(fast_clock.states)
                follow(replica)
        finally:
            stop.set()
        requests = [answers for one in clients for answers in one.result(WITHIN_S)]
    pulses = [{one.pulse for one in answers} for answers in requests]
    assert all(len(one) == 1 for one in pulses)
    seen = set.union(*pulses)
    assert len(seen) > 3
    expected = {number: oracle.scores(named, states[number], TEXTS) for number in seen}
    for answers in requests:
        assert_mixed(answers, expected[answers[0].pulse], 1, answers[0].pulse)


def test_what_waits_together_is_mixed_together_and_answered_apart(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, named: Weights
) -> None:
    fast_clock.begin("first")
    slow_clock.publish(named)
    oracle.teach(fast_clock, named, 2)
    follow(replica)
    entered, released = threading.Event(), threading.Event()

    def hold() -> None:
        entered.set()
        assert released.wait(WITHIN_S)

    holding = threading.Thread(target=replica.engine.between_mixes, args=(hold,))
    holding.start()
    assert entered.wait(WITHIN_S)
    futures = [replica.engine.submit(FEED, TEXTS[start:]) for start in range(len(TEXTS))]
    futures.insert(3, replica.engine.submit(FEED, TEXTS, 0))
    unmixed = replica.engine.predict("other", TEXTS)
    assert len(unmixed) == len(TEXTS), "a feed without fast clock waits for no mixing"
    assert not any(future.done() for future in futures)
    released.set()
    holding.join()
    answers = [future.result(WITHIN_S) for future in futures]
    assert_mixed(answers.pop(3), oracle.scores(None, fast_clock.states, TEXTS), 0, 3)
    expected = oracle.scores(named, fast_clock.states, TEXTS)
    for start, own in enumerate(answers):
        assert_mixed(own, expected[start:], 1, 3)


def test_closing_answers_everything(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, named: Weights
) -> None:
    fast_clock.begin("first")
    slow_clock.publish(named)
    oracle.teach(fast_clock, named, 1)
    follow(replica)
    gate = Gate(replica.engine)
    futures = [gate.hold(replica.engine, FEED)]
    futures += [replica.engine.submit(FEED, TEXTS) for _ in range(5)]
    closing = threading.Thread(target=replica.engine.close)
    closing.start()
    gate.open()
    closing.join(WITHIN_S)
    expected = oracle.scores(named, fast_clock.states, TEXTS)
    for future in futures[1:]:
        assert_mixed(future.result(0), expected, 1, 2)
    assert replica.watcher.follower.sync(FEED) == 2, "no pulse is taken over any more"
    assert not replica.engine.alive


def test_where_mixing_fails_the_head_answers(
    replica: Replica,
    fast_clock: Clock,
    slow_clock: Publisher,
    oracle: Oracle,
    named: Weights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fast_clock.begin("first")
    slow_clock.publish(named)
    oracle.teach(fast_clock, named, 1)
    follow(replica)

    def broken(_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(replica.engine.fast[FEED], "mix", broken)
    assert_heads(replica.engine.predict(FEED, TEXTS), slow_clock.scores(1, TEXTS).numpy(), 1, 0)
    assert [one.label for one in replica.engine.predict(FEED, TEXTS, 0)] == [None] * len(TEXTS)
    assert replica.engine.alive


def test_a_feed_without_fast_clock_is_untouched(
    make_replica: MakeReplica, fast_clock: Clock, slow_clock: Publisher, named: Weights
) -> None:
    replica = make_replica(fast={"enabled": False})
    fast_clock.begin("first")
    slow_clock.publish(named)
    replica.watcher.sync(FEED)
    answers = replica.engine.predict(FEED, TEXTS, asked=Asked.EXPERTS)
    assert_heads(answers, slow_clock.scores(1, TEXTS).numpy(), 1, 0)
    assert all((one.feature, one.experts, one.bias) == (None, {}, {}) for one in answers)
    assert replica.engine.fast == {}
    assert replica.watcher.status().pulses == {}
    assert replica.watcher.ready(FEED)


@pytest.mark.parametrize("features", [True, False])
def test_predictions_on_the_topic_carry_pulse_and_feature(
    replica: Replica,
    fast_clock: Clock,
    slow_clock: Publisher,
    oracle: Oracle,
    named: Weights,
    tmp_path: Path,
    features: bool,
) -> None:
    """As ingest reads them: at version 0, too, where a label needs a pulse."""
    topics, names = FileTopics(tmp_path / "topics"), topic_names(FEED)
    section = feed_config(serve={"features": features})
    topics.ensure(names.model_dump().values())
    with closing(topics.open_group([names.events], "score")) as reader:
        scorer = Scorer(topics, reader, replica.engine, FEED, section, names, "a", SystemClock())
        fast_clock.begin("first")
        for number in range(3):
            follow(replica)
            topics.append(names.events, [encode_event(str(number), TEXTS[0])])
            assert scorer.step(5.0) == 1
            if number == 0:
                oracle.teach(fast_clock, None, 1)
            else:
                slow_clock.publish(named)
    read = [Codec(FEED, section).prediction(raw) for raw in read_all(topics, names.predictions)]
    found = [one for one in read if isinstance(one, Prediction)]
    told = [(one.adapter_version, one.pulse, one.label is None) for one in found]
    assert told == [(0, 1, False), (0, 2, False), (1, 2, False)]
    expected = oracle.scores(named, fast_clock.states, TEXTS[:1])[0]
    assert found[-1].scores == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-5)
    served = [None if one.feature is None else np.frombuffer(one.feature, "<f2") for one in found]
    for one, weights in zip(served, (None, None, named), strict=True):
        if features:
            np.testing.assert_allclose(one, oracle.features(weights, TEXTS[:1])[0].numpy(), atol=2e-3)
        else:
            assert one is None


def read_all(topics: FileTopics, topic: str) -> list[RawRecord]:
    with closing(topics.open({Partition(topic=topic, partition=0): None})) as reader:
        return list(reader.poll(1000, 0.2))


def test_experts_say_what_an_answer_was_mixed_from(
    replica: Replica, fast_clock: Clock, slow_clock: Publisher, oracle: Oracle, named: Weights
) -> None:
    fast_clock.begin("first")
    slow_clock.publish(named)
    oracle.teach(fast_clock, named, 4)
    follow(replica)
    for answer in replica.engine.predict(FEED, TEXTS, asked=Asked.EXPERTS):
        assert set(answer.experts) == {"head", "ridge", "words", "chars", "names"}
        logits = [
            answer.bias[label] + sum(one.weight[label] * one.scores[label] for one in answer.experts.values())
            for label in LABELS
        ]
        raised = np.exp(logits)
        np.testing.assert_allclose(raised / raised.sum(), [answer.scores[label] for label in LABELS], atol=1e-6)
    assert replica.engine.predict(FEED, TEXTS)[0].experts == {}


def test_a_replica_follows_by_itself_and_tells_what_it_cannot_have(
    registry: Registry,
    base: Base,
    fast_clock: Clock,
    slow_clock: Publisher,
    oracle: Oracle,
    named: Weights,
    tmp_path: Path,
) -> None:
    slow_clock.publish(named)
    fast_clock.begin("first")
    with Replica(
        registry, Trust.of(SIGNER.public_key), base, {FEED: feed_config(fast={"enabled": True})}, tmp_path
    ) as replica:
        replica.watch()
        assert eventually(replica.watcher.all_ready)
        oracle.teach(fast_clock, named, 2)
        assert eventually(lambda: replica.engine.fast[FEED].number == 3)
        assert registry.pulses.publish(FEED, 4, b"\xc1 nothing", lease=fast_clock.lease)
        assert eventually(lambda: "pulse 3: unreadable" in replica.watcher.refused.get(FEED, ""))
        assert replica.watcher.all_ready()
        assert eventually(lambda: any("unreadable" in one.refused.get(FEED, "") for one in registry.replicas()))
        assert_mixed(replica.engine.predict(FEED, TEXTS), oracle.scores(named, fast_clock.states, TEXTS), 1, 3)


def test_ready_without_a_fast_state_that_can_be_had(
    registry: Registry, base: Base, fast_clock: Clock, slow_clock: Publisher, named: Weights, tmp_path: Path
) -> None:
    slow_clock.publish(named)
    assert registry.pulses.publish(FEED, 1, b"\xc1 nothing", lease=fast_clock.lease)
    with Replica(
        registry, Trust.of(SIGNER.public_key), base, {FEED: feed_config(fast={"enabled": True})}, tmp_path
    ) as replica:
        replica.watch()
        assert eventually(replica.watcher.all_ready)
        assert "pulse 0" in replica.watcher.refused[FEED]
        assert_heads(replica.engine.predict(FEED, TEXTS), slow_clock.scores(1, TEXTS).numpy(), 1, 0)
