"""A hundred swaps under load: no request fails, and every answer is the one of the version it names (oracle: PEFT)."""

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import torch

from driftline.artefact.manifest import Signer, Trust
from driftline.base import Base
from driftline.registry import Registry
from driftline.topics.files import FileTopics
from tests.fixtures.replicas import LABELS, Replica, eventually, feed_config
from tests.fixtures.versions import NOW, Publisher, random_weights

TEXTS = [
    "good phone",
    "the service was slow and the room was cold, but the food was great",
    "bad",
    "never again, the screen was broken and the battery is poor",
    "we loved this movie",
    "it works",
]
SWAPS = 100
VERSIONS = 12
CLIENTS = 8

Given = tuple[int, tuple[int, ...], list[list[float]]]


def ask(client: httpx.Client, numbers: Sequence[int], version: int | None = None) -> Given:
    """(version, texts asked, their scores); every answer of a request must name the same version."""
    body = {"inputs": [{"text": TEXTS[number]} for number in numbers], "adapter_version": version}
    response = client.post("/v1/feeds/f/predict", json=body)
    while version is not None and response.status_code == 429:  # slots are few here; whoever names a version may wait
        threading.Event().wait(0.05)
        response = client.post("/v1/feeds/f/predict", json=body)
    assert response.status_code == 200, response.text
    predictions = response.json()["predictions"]
    [answered] = {one["adapter_version"] for one in predictions}
    assert version in (None, answered)
    return answered, tuple(numbers), [[one["scores"][label] for label in LABELS] for one in predictions]


def test_a_hundred_swaps_under_eight_clients_on_two_replicas(
    registry: Registry, trainer: Publisher, signer: Signer, base: Base, tmp_path: Path
) -> None:
    trust, topics, feeds = Trust.of(signer.public_key), FileTopics(tmp_path / "topics"), {"f": feed_config()}
    trainer.publish(random_weights(base, 3, seed=1))
    done, answered = threading.Event(), set[int]()
    small = {"slots": 4, "host_cache_versions": 6, "max_batch_tokens": 256}
    with (
        Replica(registry, trust, base, feeds, tmp_path, name="a", **small) as a,
        Replica(registry, trust, base, feeds, tmp_path, name="b", **small) as b,
    ):
        urls = [replica.serve(topics).url for replica in (a, b)]

        def hammer(number: int) -> list[Given]:
            chance = random.Random(number)
            given = []
            with httpx.Client(base_url=urls[number % 2], timeout=30) as client:
                while not done.is_set():
                    texts = [chance.randrange(len(TEXTS)) for _ in range(chance.randint(1, 4))]
                    given.append(ask(client, texts, 1 if number == 0 and len(given) % 5 == 0 else None))
                    answered.add(given[-1][0])
            return given

        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [pool.submit(hammer, number) for number in range(CLIENTS)]
            try:
                for turn in range(SWAPS):
                    version = swap(registry, trainer, base, [a, b], turn)
                    assert eventually(lambda now=version: now in answered or any(c.done() for c in clients))
            finally:
                done.set()
            given = [one for client in clients for one in client.result()]
        for replica in (a, b):
            assert len(replica.engine.pauses_ms) == SWAPS + 1
            assert replica.watcher.refused == {}
    assert len({version for version, _, _ in given}) == VERSIONS
    assert wrong(trainer, given) == 0


def swap(registry: Registry, trainer: Publisher, base: Base, replicas: Sequence[Replica], turn: int) -> int:
    """Make another version live, until both replicas have it. A dozen are new, the others old ones again."""
    live = registry.live("f")
    if turn % 8 == 0 and len(trainer.weights) < VERSIONS:
        version = trainer.publish(random_weights(base, 3, seed=100 + turn))
    else:
        others = [version for version in trainer.weights if version != live.version]
        version = random.Random(turn).choice(others)
        change = registry.rollback if turn % 3 == 0 else registry.promote
        change("f", version, expected_revision=live.revision, actor="test", reason="swap", at=NOW)
        if turn % 3 == 0:
            registry.resume("f", actor="test", reason="swap", at=NOW)
    taken_up = eventually(lambda: all(replica.live("f") == version for replica in replicas))
    assert taken_up, [replica.watcher.refused for replica in replicas]
    return version


def wrong(trainer: Publisher, given: Sequence[Given]) -> int:
    """How many answers differ from a fresh PEFT model of the version they name, by more than 1e-3."""
    oracle = {version: trainer.scores(version, TEXTS) for version in trainer.weights}
    return sum(
        bool((torch.tensor(scores) - oracle[version][list(texts)]).abs().max() > 1e-3)
        for version, texts, scores in given
    )
