"""Blobs: every size comes back, damage is noticed and mended, and what is in use is never collected."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest

from driftline.artefact.manifest import decode_manifest
from driftline.errors import (
    ArtefactError,
    UnknownVersion,
)
from driftline.names import BLOB_CHUNK_BYTES, Keys
from driftline.records import (
    LiveRecord,
)
from driftline.registry import Client, Registry
from driftline.registry.retention import kept_versions
from tests.fixtures.registry import FEED, NOW, SIGNER, WHO, Publisher, manifest_of, parts_for


@pytest.mark.parametrize("size", [0, 1, BLOB_CHUNK_BYTES - 1, BLOB_CHUNK_BYTES, 2 * BLOB_CHUNK_BYTES + 5])
def test_blobs_of_every_size_come_back(registry: Registry, redis_client: Client, keys: Keys, size: int) -> None:
    data = bytes(itertools.islice(itertools.cycle(range(251)), size))
    name = registry.put_blob(FEED, data)
    assert name == sha256(data).hexdigest() == registry.put_blob(FEED, data)
    assert registry.get_blob(FEED, name) == data
    chunks = redis_client.hgetall(keys.blob(FEED, name))
    assert int(chunks[b"chunks"]) == -(-size // BLOB_CHUNK_BYTES)
    assert int(chunks[b"bytes"]) == size
    assert max(len(chunk) for chunk in chunks.values()) <= BLOB_CHUNK_BYTES


def test_an_unknown_blob_is_missing(registry: Registry) -> None:
    with pytest.raises(ArtefactError) as caught:
        registry.get_blob(FEED, "0" * 64)
    assert caught.value.code == "missing_blob"


def _lose_chunk(redis_client: Client, blob: str) -> None:
    redis_client.hdel(blob, "1")


def _lose_end(redis_client: Client, blob: str) -> None:
    redis_client.hdel(blob, "chunks", "bytes")


def _flip_byte(redis_client: Client, blob: str) -> None:
    chunk = bytearray(redis_client.hget(blob, "1"))
    chunk[7] ^= 1
    redis_client.hset(blob, "1", bytes(chunk))


def _swap_chunks(redis_client: Client, blob: str) -> None:
    first, second = redis_client.hmget(blob, "0", "1")
    redis_client.hset(blob, mapping={"0": second, "1": first})


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (_lose_chunk, "missing_blob"),
        (_lose_end, "missing_blob"),
        (_flip_byte, "hash_mismatch"),
        (_swap_chunks, "hash_mismatch"),
    ],
)
def test_a_damaged_blob_is_noticed_and_mended_by_putting_it_again(
    registry: Registry, redis_client: Client, keys: Keys, damage: Callable[[Client, str], None], code: str
) -> None:
    data = b"a" * BLOB_CHUNK_BYTES + b"b" * BLOB_CHUNK_BYTES
    name = registry.put_blob(FEED, data)
    damage(redis_client, keys.blob(FEED, name))
    with pytest.raises(ArtefactError) as caught:
        registry.get_blob(FEED, name)
    assert caught.value.code == code
    registry.put_blob(FEED, data)
    assert registry.get_blob(FEED, name) == data


def test_a_blob_with_a_lost_chunk_cannot_be_published(publisher: Publisher, redis_client: Client, keys: Keys) -> None:
    for data in parts_for(1).values():
        publisher.registry.put_blob(FEED, data)
    redis_client.hdel(keys.blob(FEED, manifest_of(1).parts["head"]), "0")
    with pytest.raises(ArtefactError) as caught:
        publisher.registry.publish(SIGNER.sign(manifest_of(1)), lease=publisher.lease, expected_revision=0, at=NOW)
    assert caught.value.code == "missing_blob"


def test_kept_versions_by_hand() -> None:
    live = LiveRecord(feed=FEED, version=3, anchor=2, revision=9)
    assert kept_versions([1, 2, 3, 4, 5, 6, 7, 8], live, 1, 2) == {7, 8, 3, 2, 1}
    assert kept_versions([1, 2, 3], LiveRecord(feed=FEED), None, 0) == set()
    assert kept_versions([], LiveRecord(feed=FEED), None, 50) == set()


def test_collecting_keeps_what_the_design_names(publisher: Publisher, registry: Registry) -> None:
    """Anchor 2, incumbent 4 (before it: 3); 1 is replaced; 5 to 9 rejected; the newest two are kept."""
    for version, anchor in ((1, True), (2, True), (3, False), (4, False)):
        publisher.publish(manifest_of(version, anchor=anchor))
    for version in range(5, 10):
        publisher.publish(manifest_of(version, promote=False))
    assert registry.collect_garbage(FEED, 2) == 0, "all are younger than the grace"
    assert registry.collect_garbage(FEED, 2, grace_s=-1) == 4 * 3
    assert blobs_left(registry) == {2, 3, 4, 8, 9}
    assert registry.versions(FEED) == list(range(1, 10)), "manifests stay for ever"
    with pytest.raises(UnknownVersion, match="no longer kept"):
        registry.promote(FEED, 6, expected_revision=4, **WHO)
    assert registry.rollback(FEED, None, expected_revision=4, **WHO).version == 3


def test_fast_states_stay_with_the_newest_few_and_older_versions_go_live_without(
    publisher: Publisher, registry: Registry
) -> None:
    """Version 2 carries the same as 9: nothing was learned between them."""
    states = {version: b"fast state %d" % (9 if version == 2 else version) for version in range(1, 10)}
    for version, state in states.items():
        manifest = manifest_of(version)
        parts = {**manifest.parts, "fast_state": registry.put_blob(FEED, state)}
        publisher.publish(replace(manifest, parts=parts))
    assert registry.collect_garbage(FEED) == 0, "all are younger than the grace"
    assert registry.collect_garbage(FEED, grace_s=-1) == 3
    assert {version for version, state in states.items() if _readable(registry, state)} == {2, 5, 6, 7, 8, 9}
    assert blobs_left(registry) == set(range(1, 10))
    registry.require_kept(FEED, 3)
    assert registry.rollback(FEED, 3, expected_revision=9, **WHO).version == 3
    with pytest.raises(ArtefactError, match=r"not .wholly. in the registry"):
        registry.get_part(decode_manifest(registry.manifest(FEED, 3).document), "fast_state")


def blobs_left(registry: Registry) -> set[int]:
    """Versions all of whose blobs can be read; a version with only some of them fails the test."""
    left = set()
    for version in registry.versions(FEED):
        readable = [_readable(registry, data) for data in parts_for(version).values()]
        assert len(set(readable)) == 1
        left |= {version} if readable[0] else set()
    return left


def _readable(registry: Registry, data: bytes) -> bool:
    try:
        return registry.get_blob(FEED, sha256(data).hexdigest()) == data
    except ArtefactError:
        return False


def test_blobs_in_flight_are_safe_and_orphans_go(
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys
) -> None:
    """A learner between its blobs and its manifest; and one that died there long ago."""
    publisher.promote_up_to(1)
    in_flight = registry.put_blob(FEED, b"in flight")
    orphan = registry.put_blob(FEED, b"orphan")
    half = registry.put_blob(FEED, b"half of one")
    redis_client.hdel(keys.blob(FEED, half), "chunks")
    for name in (orphan, half):
        redis_client.zadd(keys.blobs(FEED), {name: 0})
    assert registry.collect_garbage(FEED) == 2
    assert registry.get_blob(FEED, in_flight) == b"in flight"
    assert redis_client.exists(keys.blob(FEED, orphan), keys.blob(FEED, half)) == 0


def test_a_blob_that_comes_into_use_while_collecting_stays(
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys
) -> None:
    """The collector has read what is kept; before it removes, an old version is rolled back to."""
    publisher.promote_up_to(4)
    for name in redis_client.zrange(keys.blobs(FEED), 0, -1):
        redis_client.zadd(keys.blobs(FEED), {name: 0})
    kept = {name for version in (4,) for name in _names(version)}
    registry.rollback(FEED, 1, expected_revision=4, **WHO)
    removed = registry._blobs.collect(FEED, kept, 900)
    assert removed == 2 * 3
    assert blobs_left(registry) == {1, 4}


def _names(version: int) -> list[str]:
    return [sha256(data).hexdigest() for data in parts_for(version).values()]


def test_a_damaged_manifest_stops_the_collector(
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys
) -> None:
    """Not knowing what a kept version names, it must remove nothing."""
    publisher.promote_up_to(3)
    redis_client.hset(keys.manifests(FEED), "3", b"garbage")
    with pytest.raises(ArtefactError):
        registry.collect_garbage(FEED, 1, grace_s=-1)
    assert all(_readable(registry, data) for version in (1, 2, 3) for data in parts_for(version).values())
