"""The watcher against a real Redis: what it takes up, what it refuses, and what happens when Redis goes away."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from driftline.artefact.manifest import Signer, Trust, load_or_create_keys
from driftline.artefact.weights import Weights, pack_body, pack_head
from driftline.base import Base, load_base
from driftline.config import BaseModelConfig
from driftline.names import Keys, StateFiles
from driftline.records import Probe
from driftline.registry import Registry, connect
from tests.fixtures.models import write_tiny_base
from tests.fixtures.redis import RedisProcess
from tests.fixtures.replicas import LABELS, Replica, eventually, feed_config
from tests.fixtures.versions import NOW, Publisher, make_manifest, random_weights

TEXTS = ["good phone", "the service was slow and the room was cold, but the food was great", "bad"]


@pytest.fixture
def replica(registry: Registry, signer: Signer, base: Base, tmp_path: Path) -> Iterator[Replica]:
    with Replica(registry, Trust.of(signer.public_key), base, {"f": feed_config()}, tmp_path) as replica:
        replica.engine.start()
        yield replica


def answers(replica: Replica, trainer: Publisher, version: int) -> bool:
    """Whether the replica answers with this version, in number and in scores."""
    given = replica.engine.predict("f", TEXTS)
    scores = torch.tensor([[answer.scores[label] for label in LABELS] for answer in given])
    same = bool((scores - trainer.scores(version, TEXTS)).abs().max() < 1e-3)
    return same and {answer.adapter_version for answer in given} == {version}


def test_a_feed_that_was_never_written_is_ready_at_version_zero(replica: Replica) -> None:
    assert not replica.watcher.ready("f")
    assert not replica.watcher.sync("f")
    assert replica.watcher.ready("f")
    assert replica.watcher.all_ready()
    assert replica.live("f") == 0


def test_promotion_rollback_and_promotion_again(replica: Replica, trainer: Publisher, base: Base) -> None:
    first = trainer.publish(random_weights(base, 3, seed=1))
    assert replica.watcher.sync("f")
    assert answers(replica, trainer, first)
    second = trainer.publish(random_weights(base, 3, seed=2))
    assert replica.watcher.sync("f")
    assert not replica.watcher.sync("f"), "nothing changed since"
    assert answers(replica, trainer, second)
    replica.registry.rollback("f", None, expected_revision=2, actor="ana", reason="worse", at=NOW)
    assert replica.watcher.sync("f")
    assert answers(replica, trainer, first)
    assert replica.engine.active("f") == (first, 3)
    replica.registry.rollback("f", 0, expected_revision=3, actor="ana", reason="all bad", at=NOW)
    assert replica.watcher.sync("f")
    assert replica.engine.predict("f", TEXTS)[0].label is None


def nan(weights: Weights) -> Weights:
    key = next(iter(weights.body))
    broken = weights.body[key].clone()
    broken[0, 0] = float("nan")
    return dataclasses.replace(weights, body={**weights.body, key: broken})


def without_a_tensor(weights: Weights) -> Weights:
    key = next(iter(weights.body))
    return dataclasses.replace(weights, body={name: value for name, value in weights.body.items() if name != key})


REFUSED: dict[str, tuple[Any, dict[str, Any]]] = {
    "not_finite": (nan, {}),
    "wrong_shape": (without_a_tensor, {}),
    "wrong_base": (None, {"base_fingerprint": "0" * 64}),
    "wrong_task": (None, {"task": "regression"}),
    "probe_mismatch": (None, {"probe": Probe(logits=((0.0, 0.0, 1.0),) * 8)}),
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_wrong_version_is_refused_with_its_reason_and_the_incumbent_answers(
    code: str, replica: Replica, trainer: Publisher, base: Base
) -> None:
    incumbent = trainer.publish(random_weights(base, 3, seed=1))
    assert replica.watcher.sync("f")
    change, manifest_changes = REFUSED[code]
    weights = random_weights(base, 3, seed=2)
    probe = make_manifest(base, trainer.folder, weights, "f", 9).probe
    bad = trainer.publish(change(weights) if change else weights, **{"probe": probe, **manifest_changes})
    assert not replica.watcher.sync("f")
    assert replica.watcher.refused["f"].startswith(f"{code}: ")
    assert replica.watcher.status().refused == replica.watcher.refused
    assert replica.watcher.status().serving == {"f": incumbent}
    assert answers(replica, trainer, incumbent)
    assert not replica.engine.resident("f", bad)
    good = trainer.publish(random_weights(base, 3, seed=3))
    assert replica.watcher.sync("f")
    assert replica.watcher.refused == {}
    assert answers(replica, trainer, good)


def test_a_version_with_other_labels_is_served_with_its_own(replica: Replica, trainer: Publisher, base: Base) -> None:
    own = ("positive", "mixed", "negative", "neutral")
    weights = random_weights(base, 4, seed=5)
    version = trainer.publish(weights, labels=own)
    assert replica.watcher.sync("f")
    assert replica.watcher.refused == {}
    given = replica.engine.predict("f", TEXTS)
    scores = torch.tensor([[answer.scores[label] for label in own] for answer in given])
    assert bool((scores - trainer.scores(version, TEXTS)).abs().max() < 1e-3)


def test_what_nobody_foresaw_is_tried_again(
    replica: Replica, trainer: Publisher, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.watcher.LAST_RETRY_S", 0.0)
    stage, errors = replica.engine.stage, iter([MemoryError("for a moment")])

    def short_of_memory(*given: Any) -> None:
        for error in errors:
            raise error
        stage(*given)

    monkeypatch.setattr(replica.engine, "stage", short_of_memory)
    first = trainer.publish(random_weights(base, 3, seed=1))
    assert not replica.watcher.sync("f")
    assert replica.watcher.refused["f"] == "MemoryError: for a moment"
    assert replica.watcher.sync("f")
    assert answers(replica, trainer, first)


def test_an_adapter_of_another_base_is_refused(
    replica: Replica, trainer: Publisher, base: Base, tmp_path: Path
) -> None:
    folder = write_tiny_base(tmp_path / "other", seed=5)
    other = load_base(BaseModelConfig(model=str(folder), device="cpu"))
    assert other.fingerprint != base.fingerprint
    trainer.base, trainer.folder = other, folder
    trainer.publish(random_weights(other, 3, seed=1))
    assert not replica.watcher.sync("f")
    assert replica.watcher.refused["f"].startswith("wrong_base: ")
    assert not replica.watcher.ready("f"), "it has no incumbent to fall back on"


def test_unsigned_and_foreign_manifests_are_refused(
    replica: Replica, trainer: Publisher, base: Base, tmp_path: Path
) -> None:
    incumbent = trainer.publish(random_weights(base, 3, seed=1))
    assert replica.watcher.sync("f")
    trainer.publish(random_weights(base, 3, seed=2), signer=load_or_create_keys(StateFiles(tmp_path / "foreign")))
    assert not replica.watcher.sync("f")
    assert replica.watcher.refused["f"].startswith("untrusted_key: ")
    weights = random_weights(base, 3, seed=3)
    signed = trainer.signer.sign(make_manifest(base, trainer.folder, weights, "f", replica.registry.next_version("f")))
    trainer.registry.put_blob("f", pack_body(weights))
    trainer.registry.put_blob("f", pack_head(weights))
    for signature in ("", signed.signature[::-1]):
        document = signed.document.replace(b'"f-', b'"g-', 1) if signature else signed.document
        trainer.put(dataclasses.replace(signed, signature=signature, document=document))
        assert not replica.watcher.sync("f")
        assert replica.watcher.refused["f"].startswith("bad_signature: ")
        signed = trainer.signer.sign(
            make_manifest(base, trainer.folder, weights, "f", replica.registry.next_version("f"))
        )
    assert answers(replica, trainer, incumbent)


def test_damaged_and_missing_blobs_are_refused(
    replica: Replica, trainer: Publisher, base: Base, redis_url: str, unique: str
) -> None:
    incumbent = trainer.publish(random_weights(base, 3, seed=1))
    assert replica.watcher.sync("f")
    keys, client = Keys(unique), connect(redis_url, unique)
    for seed, code in ((2, "hash_mismatch"), (3, "missing_blob")):
        weights = random_weights(base, 3, seed=seed)
        trainer.publish(weights)
        sha256 = replica.registry.put_blob("f", pack_body(weights))
        blob = keys.blob("f", sha256)
        chunk = next(name for name in client.hkeys(blob) if name not in (b"chunks", b"bytes"))
        if code == "missing_blob":
            client.delete(blob)
        else:
            client.hset(blob, chunk, client.hget(blob, chunk)[::-1])
        assert not replica.watcher.sync("f")
        assert replica.watcher.refused["f"].startswith(f"{code}: ")
        assert answers(replica, trainer, incumbent)
    client.close()


def test_a_version_in_a_request_is_fetched_and_checked_too(replica: Replica, trainer: Publisher, base: Base) -> None:
    first = trainer.publish(random_weights(base, 3, seed=1))
    second = trainer.publish(random_weights(base, 3, seed=2))
    assert replica.watcher.sync("f")
    assert not replica.engine.resident("f", first)
    given = replica.engine.predict("f", TEXTS, first)
    scores = torch.tensor([list(answer.scores.values()) for answer in given])
    assert bool((scores - trainer.scores(first, TEXTS)).abs().max() < 1e-3)
    assert answers(replica, trainer, second)


def test_an_older_revision_is_refused_as_registry_lost_also_after_a_restart(
    replica: Replica, trainer: Publisher, signer: Signer, base: Base, redis_url: str, unique: str, tmp_path: Path
) -> None:
    first = trainer.publish(random_weights(base, 3, seed=1))
    second = trainer.publish(random_weights(base, 3, seed=2))
    assert replica.watcher.sync("f")
    client = connect(redis_url, unique)
    lost = {"version": first, "revision": 1}
    client.hset(Keys(unique).live("f"), mapping=lost)
    assert not replica.watcher.sync("f")
    assert "registry_lost" in replica.watcher.refused["f"]
    assert answers(replica, trainer, second)
    client.delete(Keys(unique).live("f"))
    with Replica(replica.registry, Trust.of(signer.public_key), base, {"f": feed_config()}, tmp_path) as restarted:
        restarted.engine.start()
        assert not restarted.watcher.sync("f")
        assert "registry_lost" in restarted.watcher.refused["f"]
        assert not restarted.watcher.ready("f")
        client.hset(Keys(unique).live("f"), mapping={"version": second, "revision": 2})
        assert restarted.watcher.sync("f")
        assert answers(restarted, trainer, second)
    client.close()


def test_two_replicas_follow_and_say_so(
    registry: Registry, trainer: Publisher, signer: Signer, base: Base, tmp_path: Path
) -> None:
    trust = Trust.of(signer.public_key)
    feeds = {"f": feed_config()}
    with (
        Replica(registry, trust, base, feeds, tmp_path, name="a") as a,
        Replica(registry, trust, base, feeds, tmp_path, name="b") as b,
    ):
        both = (a.watch(), b.watch())
        assert eventually(lambda: all(one.watcher.all_ready() for one in both))
        for seed in (1, 2, 3):
            version = trainer.publish(random_weights(base, 3, seed=seed))
            assert eventually(lambda v=version: all(one.live("f") == v for one in both))
        revision = registry.live("f").revision
        registry.rollback("f", 1, expected_revision=revision, actor="ana", reason="test", at=NOW)
        assert eventually(lambda: all(one.live("f") == 1 for one in both))
        assert eventually(
            lambda: (
                [(s.replica, s.serving, s.revisions) for s in registry.replicas()]
                == [("a", {"f": 1}, {"f": 4}), ("b", {"f": 1}, {"f": 4})]
            )
        )


def test_serving_goes_on_without_redis_and_catches_up(
    redis_process: RedisProcess, unique: str, signer: Signer, base: Base, tiny_base_dir: Path, tmp_path: Path
) -> None:
    client = connect(redis_process.url, unique, timeout_s=1.0)
    registry = Registry(client, Keys(unique))
    trainer = Publisher(registry, signer, base, tiny_base_dir, "f")
    first = trainer.publish(random_weights(base, 3, seed=1))
    with Replica(registry, Trust.of(signer.public_key), base, {"f": feed_config()}, tmp_path) as replica:
        replica.watch()
        assert eventually(lambda: replica.live("f") == first)
        redis_process.pause()
        assert eventually(lambda: "RegistryUnavailable" in replica.watcher.refused.get("f", ""))
        assert answers(replica, trainer, first)
        redis_process.resume()
        assert eventually(lambda: replica.watcher.refused == {})
        redis_process.stop()
        assert eventually(lambda: "RegistryUnavailable" in replica.watcher.refused.get("f", ""))
        assert answers(replica, trainer, first)
        assert replica.watcher.all_ready()
        redis_process.start()
        trainer.close()
        trainer = Publisher(registry, signer, base, tiny_base_dir, "f")
        second = trainer.publish(random_weights(base, 3, seed=2))
        assert eventually(lambda: replica.live("f") == second)
        assert answers(replica, trainer, second)
    client.close()
