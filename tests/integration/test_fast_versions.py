"""What the fast clock reads of versions in a real Redis: heads and label names, also once damage is mended."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from driftline.artefact.manifest import Trust
from driftline.experts import Partial
from driftline.names import Keys
from driftline.registry import Client, Registry
from learner.fast import recent
from learner.fast.heads import Heads
from learner.fast.versions import FastVersions
from tests.fixtures.registry import FEED, SIGNER, Publisher, manifest_of

LABELS = ("negative", "positive")
DRAW = np.random.default_rng(0)
HEAD = {"head.weight": DRAW.normal(size=(2, 4)).astype(np.float32), "head.bias": np.zeros(2, np.float32)}
NAMES = DRAW.normal(size=(2, 4)).astype(np.float16)
BASE_NAMES = np.ones((2, 4), np.float32)


@pytest.fixture
def parts(publisher: Publisher, registry: Registry) -> dict[str, str]:
    """Those of version 1, which is out."""
    blobs = {"head": safetensors.numpy.save(HEAD), "names": safetensors.numpy.save({"names": NAMES})}
    manifest = manifest_of(1)
    own = {name: registry.put_blob(FEED, data) for name, data in blobs.items()}
    publisher.publish(replace(manifest, parts={**manifest.parts, **own}))
    return own


def versions_of(registry: Registry) -> FastVersions:
    return FastVersions(FEED, LABELS, registry, Trust.of(SIGNER.public_key), lambda: BASE_NAMES)


@pytest.mark.usefixtures("parts")
def test_heads_and_names_are_those_that_were_published(registry: Registry) -> None:
    versions = versions_of(registry)
    head, names = versions.head(1), versions.names(1)
    assert head is not None
    assert names is not None
    assert np.array_equal(head.weight, HEAD["head.weight"])
    assert np.array_equal(names, NAMES.astype(np.float32))
    assert versions.names(0) is BASE_NAMES
    assert (versions.head(2), versions.names(2), versions.fast_state(1)) == (None, None, None)


def test_what_was_damaged_for_a_moment_is_not_missing_for_ever(
    registry: Registry, parts: dict[str, str], redis_client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {name: redis_client.hget(keys.blob(FEED, sha256), "0") for name, sha256 in parts.items()}
    for sha256 in parts.values():
        redis_client.hset(keys.blob(FEED, sha256), "0", b"damaged")
    versions = versions_of(registry)
    heads, features = Heads(versions.head), Partial.full(np.ones((1, 4), np.float32))
    for mended in (False, True):
        if mended:
            for name, sha256 in parts.items():
                redis_client.hset(keys.blob(FEED, sha256), "0", whole[name])
        assert not heads.scores(features, [1], LABELS).known.any()
        assert versions.names(1) is None
    monkeypatch.setattr(recent, "AGAIN_S", 0.0)
    assert heads.scores(features, [1], LABELS).known.all()
    assert versions.names(1) is not None
