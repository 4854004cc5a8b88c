"""A feed with a fast clock over HTTP: pulses are named, experts are told to who asks, collected inputs carry both."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from driftline.artefact.manifest import Trust
from driftline.artefact.weights import Weights
from driftline.base import Base
from driftline.registry import Registry
from driftline.topics.files import FileTopics
from tests.fixtures.fast_clock import LABELS, Clock
from tests.fixtures.fast_serving import Oracle, some_texts
from tests.fixtures.registry import FEED, SIGNER
from tests.fixtures.replicas import Replica, eventually, feed_config
from tests.fixtures.versions import Publisher

TEXTS, _ = some_texts(3, seed=99)


@pytest.fixture
def topics(tmp_path: Path) -> FileTopics:
    return FileTopics(tmp_path / "topics")


@pytest.fixture
def replica(
    registry: Registry,
    base: Base,
    tmp_path: Path,
    fast_clock: Clock,
    slow_clock: Publisher,
    oracle: Oracle,
    named: Weights,
) -> Iterator[Replica]:
    """Version 1 is live, pulse 4 is out."""
    slow_clock.publish(named)
    fast_clock.begin("first")
    oracle.teach(fast_clock, named, 3)
    feeds = {FEED: feed_config(fast={"enabled": True}, serve={"collect": True}), "still": feed_config()}
    with Replica(registry, Trust.of(SIGNER.public_key), base, feeds, tmp_path) as replica:
        yield replica


@pytest.fixture
def client(replica: Replica, topics: FileTopics) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=replica.serve(topics).url, timeout=30) as client:
        assert eventually(lambda: replica.engine.fast[FEED].number == 4)
        yield client


def predict(client: httpx.Client, query: str = "", feed: str = FEED, **body: Any) -> httpx.Response:
    inputs = [{"id": str(place), "text": text} for place, text in enumerate(TEXTS)]
    return client.post(f"/v1/feeds/{feed}/predict{query}", json={"inputs": inputs, **body})


def test_answers_name_their_pulse(
    client: httpx.Client, fast_clock: Clock, oracle: Oracle, named: Weights, topics: FileTopics
) -> None:
    answers = predict(client).json()["predictions"]
    expected = oracle.scores(named, fast_clock.states, TEXTS)
    for answer, row in zip(answers, expected.tolist(), strict=True):
        assert set(answer) == {"id", "label", "scores", "adapter_version", "pulse"}
        assert (answer["adapter_version"], answer["pulse"]) == (1, 4)
        assert answer["scores"] == pytest.approx(dict(zip(LABELS, row, strict=True)), abs=1e-5)
    [still, *_] = predict(client, feed="still").json()["predictions"]
    assert (still["pulse"], still["label"]) == (0, None)
    path = topics._data(f"{FEED}.predictions")
    assert eventually(lambda: path.exists() and len(path.read_text().splitlines()) == len(TEXTS))
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["id"], one["pulse"], one["label"]) for one in kept] == [
        (answer["id"], 4, answer["label"]) for answer in answers
    ]
    assert all(len(one["feature"]) > 60 for one in kept)


def test_experts_are_told_to_who_asks(client: httpx.Client) -> None:
    for answer in predict(client, "?experts=true").json()["predictions"]:
        assert set(answer["experts"]) == {"head", "ridge", "words", "chars", "names"}
        logits = [
            answer["bias"][label]
            + sum(one["weight"][label] * one["scores"][label] for one in answer["experts"].values())
            for label in LABELS
        ]
        raised = np.exp(logits)
        assert [answer["scores"][label] for label in LABELS] == pytest.approx(
            (raised / raised.sum()).tolist(), abs=1e-6
        )
    version_zero = predict(client, "?experts=true", adapter_version=0).json()["predictions"][0]
    assert set(version_zero["experts"]) == {"ridge", "words", "chars", "names"}
    still = predict(client, "?experts=true", feed="still").json()["predictions"][0]
    assert (still["experts"], still["bias"]) == ({}, {})
    assert "experts" not in predict(client, "?experts=false").json()["predictions"][0]


def test_another_value_of_the_flag_is_refused(client: httpx.Client) -> None:
    refused = predict(client, "?experts=yes")
    assert refused.status_code == 422
    assert refused.json()["error"] == {
        "code": "invalid_query",
        "message": "?experts=yes: use true or false, or leave it out",
    }


def test_the_flag_and_what_it_brings_stand_in_the_schema(client: httpx.Client) -> None:
    route = client.get("/openapi.json").json()["paths"]["/v1/feeds/{feed}/predict"]["post"]
    assert {one["name"]: one["in"] for one in route["parameters"]} == {"feed": "path", "experts": "query"}
    schema = route["responses"]["200"]["content"]["application/json"]["schema"]
    answer = schema["properties"]["predictions"]["items"]
    assert {"pulse", "experts", "bias"} <= set(answer["properties"])
    assert set(answer["required"]) == {"id", "label", "scores", "adapter_version", "pulse"}
    assert set(answer["properties"]["experts"]["additionalProperties"]["properties"]) == {"scores", "weight"}


def test_what_is_served_names_the_pulse_and_whether_it_fell_back(
    client: httpx.Client, replica: Replica, fast_clock: Clock, oracle: Oracle, named: Weights
) -> None:
    listed = {one["feed"]: one["pulse"] for one in client.get("/v1/feeds").json()["feeds"]}
    assert listed == {FEED: 4, "still": 0}
    oracle.teach(fast_clock, named, 1, seed=9, fell_back=True)
    assert eventually(lambda: replica.engine.fast[FEED].number == 5)
    state = client.get("/readyz").json()["feeds"][FEED]
    assert (state["ready"], state["pulse"], state["fell_back"], state["refused"]) == (True, 5, True, None)
    answer = predict(client, "?experts=true").json()["predictions"][0]
    assert (answer["pulse"], answer["experts"]) == (5, {})
    metrics = client.get("/metrics").text
    assert f'driftline_live_pulse{{feed="{FEED}"}} 5.0' in metrics
    assert "driftline_mixing_ms_count" in metrics
    assert "driftline_pulse_apply_ms_count" in metrics
