"""The registry on a real Redis: publishing, switching, leases, retention, and what is left after every fault."""

import itertools
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from driftline.artefact.manifest import Signer, Trust, decode_manifest, encode_signed
from driftline.errors import (
    ArtefactError,
    ConfigError,
    DriftlineError,
    LeaseLost,
    RegistryConflict,
    RegistryError,
    RegistryLost,
    RegistryUnavailable,
    UnknownVersion,
)
from driftline.journal import Journal
from driftline.names import BLOB_CHUNK_BYTES, Keys
from driftline.records import (
    ExampleRanges,
    GateDecision,
    GateReason,
    LiveRecord,
    Manifest,
    Probe,
    PublishOutcome,
    ReplicaStatus,
)
from driftline.registry import Client, Lease, Registry, check_not_lost, connect
from driftline.registry.replies import server_problems
from driftline.registry.retention import kept_versions
from tests.fixtures.redis import RedisProcess

FEED = "reviews"
NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
SIGNER = Signer(Ed25519PrivateKey.generate())
WHO = {"actor": "ana", "reason": "looks wrong", "at": NOW}


def manifest_of(version: int, *, promote: bool = True, anchor: bool = True, cycle: str = "") -> Manifest:
    """A manifest whose three blobs are `blobs_for(version)`."""
    body, head, state = (sha256(data).hexdigest() for data in blobs_for(version))
    reason = GateReason(code="not_worse" if promote else "worse_than_incumbent", holds=promote)
    return Manifest(
        feed=FEED,
        version=version,
        parent=version - 1,
        cycle_id=cycle or f"cycle-{version}",
        body_sha256=body,
        head_sha256=head,
        trainer_state_sha256=state,
        base_fingerprint="f",
        task="classification",
        labels=("negative", "positive"),
        rank=8,
        alpha=16.0,
        target_modules=("query",),
        max_tokens=64,
        pooling="mean",
        config_sha256="c",
        seed=0,
        threads=2,
        libraries={},
        examples=ExampleRanges(fresh=((1, 2),), replayed=()),
        fresh_examples=2,
        replayed_examples=0,
        evaluation={},
        decision=GateDecision(promote=promote, reasons=(reason,), becomes_anchor=promote and anchor),
        probe=Probe(logits=((0.0, 1.0),) * 8),
        created_at=NOW,
    )


def blobs_for(version: int) -> tuple[bytes, bytes, bytes]:
    return (f"body {version}".encode(), f"head {version}".encode(), f"state {version}".encode())


class Publisher:
    """A learner's last steps: blobs, then the script."""

    def __init__(self, registry: Registry, lease: Lease) -> None:
        self.registry = registry
        self.lease = lease

    def publish(self, manifest: Manifest, expected_revision: int | None = None) -> PublishOutcome:
        for data in blobs_for(manifest.version):
            self.registry.put_blob(FEED, data)
        expected = self.registry.live(FEED).revision if expected_revision is None else expected_revision
        return self.registry.publish(SIGNER.sign(manifest), lease=self.lease, expected_revision=expected, at=NOW)

    def promote_up_to(self, last: int) -> None:
        for version in range(len(self.registry.versions(FEED)) + 1, last + 1):
            assert self.publish(manifest_of(version)).status == "promoted"


@pytest.fixture
def publisher(registry: Registry) -> Iterator[Publisher]:
    with registry.lease(FEED, "learner", ttl_s=30) as lease:
        assert lease.acquire()
        yield Publisher(registry, lease)


@pytest.fixture
def client(redis_url: str, unique: str) -> Iterator[Client]:
    """A second connection to look behind the registry's back."""
    client = connect(redis_url, unique)
    yield client
    client.close()


@pytest.fixture
def keys(unique: str) -> Keys:
    return Keys(unique)


def everything(client: Client, keys: Keys) -> dict[bytes, object]:
    """All keys of this test with their contents; not the times at which blobs were touched, and not the lease."""
    read: dict[bytes, Callable[[bytes], object]] = {
        b"hash": client.hgetall,
        b"string": client.get,
        b"set": client.smembers,
        b"zset": lambda name: sorted(client.zrange(name, 0, -1)),
        b"stream": client.xrange,
    }
    names = [name for name in client.scan_iter(f"{keys.prefix}:*") if b":lease:" not in name]
    return {name: read[client.type(name)](name) for name in names}


# --- publishing


def test_a_feed_starts_at_version_0(registry: Registry) -> None:
    assert registry.live(FEED) == LiveRecord(feed=FEED)
    assert registry.audit(FEED) == []
    assert registry.versions(FEED) == []
    assert registry.last_change(FEED) == "0-0"
    assert registry.cycle_outcome(FEED, "cycle-1") is None


def test_a_promotion_is_live_with_everything_about_it(publisher: Publisher, registry: Registry) -> None:
    outcome = publisher.publish(manifest_of(1))
    assert outcome == PublishOutcome(status="promoted", version=1, revision=1)
    assert registry.live(FEED) == LiveRecord(
        feed=FEED, version=1, revision=1, anchor=1, changed_at=NOW, actor="learner"
    )
    assert Trust.of(SIGNER.public_key).verify(registry.manifest(FEED, 1)) == manifest_of(1)
    assert registry.get_blob(FEED, manifest_of(1).body_sha256) == b"body 1"
    assert registry.promoted_before(FEED, 1) == 0
    assert registry.cycle_outcome(FEED, "cycle-1") == outcome
    (entry,) = registry.audit(FEED)
    assert (entry.entry_id, entry.action, entry.version, entry.from_version) == ("1-0", "promoted", 1, 0)
    assert (entry.revision, entry.actor, entry.reason, entry.at) == (1, "learner", "not_worse", NOW)


def test_versions_count_up_and_feeds_are_apart(registry: Registry) -> None:
    assert [registry.next_version(FEED) for _ in range(3)] == [1, 2, 3]
    assert registry.next_version("other") == 1
    assert registry.feeds() == ["other", FEED]


def test_concurrent_learners_never_get_the_same_number(registry: Registry) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(registry.next_version, [FEED] * 200))
    assert sorted(numbers) == list(range(1, 201))


def test_a_candidate_below_the_anchor_leaves_it(publisher: Publisher, registry: Registry) -> None:
    publisher.publish(manifest_of(1))
    publisher.publish(manifest_of(2, anchor=False))
    assert (registry.live(FEED).version, registry.live(FEED).anchor) == (2, 1)


def test_a_rejection_registers_and_changes_nothing_live(publisher: Publisher, registry: Registry) -> None:
    publisher.publish(manifest_of(1))
    before = registry.live(FEED)
    outcome = publisher.publish(manifest_of(2, promote=False))
    assert outcome == PublishOutcome(status="rejected", version=2, revision=1)
    assert registry.live(FEED) == before
    assert registry.versions(FEED) == [1, 2]
    assert [entry.version for entry in registry.audit(FEED)] == [1]
    assert registry.promoted_before(FEED, 2) is None


def test_publishing_twice_is_once(publisher: Publisher, client: Client, keys: Keys) -> None:
    publisher.publish(manifest_of(1))
    publisher.publish(manifest_of(2, promote=False))
    before = everything(client, keys)
    for version, recorded in ((1, "promoted"), (2, "rejected")):
        again = publisher.publish(manifest_of(version))
        assert again == PublishOutcome(status="duplicate", version=version, revision=1, recorded=recorded)
    assert everything(client, keys) == before


def test_a_known_cycle_with_another_decision_is_still_a_duplicate(publisher: Publisher, registry: Registry) -> None:
    """The learner that crashed after publishing sees its own promotion as a changed incumbent, and tries to reject."""
    publisher.publish(manifest_of(1))
    again = publisher.publish(manifest_of(1, promote=False))
    assert (again.status, again.recorded) == ("duplicate", "promoted")
    assert decode_manifest(registry.manifest(FEED, 1).document).decision.promote


def test_a_conflict_writes_nothing(publisher: Publisher, registry: Registry, client: Client, keys: Keys) -> None:
    publisher.promote_up_to(2)
    for data in blobs_for(3):
        registry.put_blob(FEED, data)
    before = everything(client, keys)
    outcome = publisher.publish(manifest_of(3), expected_revision=1)
    assert outcome == PublishOutcome(status="conflict", version=3, revision=2)
    assert everything(client, keys) == before
    rejected = publisher.publish(manifest_of(3, promote=False), expected_revision=1)
    assert rejected.status == "rejected", "a rejection is registered whatever is live"


def test_a_pause_writes_nothing_and_lets_rejections_through(
    publisher: Publisher, registry: Registry, client: Client, keys: Keys
) -> None:
    publisher.promote_up_to(1)
    registry.pause(FEED, **WHO)
    for data in blobs_for(2):
        registry.put_blob(FEED, data)
    before = everything(client, keys)
    assert publisher.publish(manifest_of(2)) == PublishOutcome(status="paused", version=2, revision=1)
    assert everything(client, keys) == before
    assert publisher.publish(manifest_of(2, promote=False)).status == "rejected"
    registry.resume(FEED, **WHO)
    assert publisher.publish(manifest_of(3)).status == "promoted"


def test_a_version_number_is_never_used_twice(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(1)
    with pytest.raises(RegistryConflict, match="registered by another cycle"):
        publisher.publish(manifest_of(1, cycle="another"))
    assert decode_manifest(registry.manifest(FEED, 1).document).cycle_id == "cycle-1"
    assert registry.cycle_outcome(FEED, "another") is None


@pytest.mark.parametrize("promote", [True, False])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_blob_keeps_the_manifest_out(
    publisher: Publisher, registry: Registry, client: Client, keys: Keys, missing: int, promote: bool
) -> None:
    manifest = manifest_of(1, promote=promote)
    for data in (data for number, data in enumerate(blobs_for(1)) if number != missing):
        registry.put_blob(FEED, data)
    before = everything(client, keys)
    with pytest.raises(ArtefactError) as caught:
        registry.publish(SIGNER.sign(manifest), lease=publisher.lease, expected_revision=0, at=NOW)
    assert caught.value.code == "missing_blob"
    assert everything(client, keys) == before


def test_an_audit_that_is_ahead_means_lost_and_nothing_is_written(
    publisher: Publisher, registry: Registry, client: Client, keys: Keys
) -> None:
    publisher.promote_up_to(3)
    client.delete(keys.live(FEED))
    for data in blobs_for(4):
        registry.put_blob(FEED, data)
    before = everything(client, keys)
    with pytest.raises(RegistryLost, match="ahead of the live record"):
        publisher.publish(manifest_of(4))
    with pytest.raises(RegistryLost):
        registry.promote(FEED, 2, expected_revision=0, **WHO)
    with pytest.raises(RegistryLost):
        registry.pause(FEED, **WHO)
    assert everything(client, keys) == before


# --- blobs


@pytest.mark.parametrize("size", [0, 1, BLOB_CHUNK_BYTES - 1, BLOB_CHUNK_BYTES, 2 * BLOB_CHUNK_BYTES + 5])
def test_blobs_of_every_size_come_back(registry: Registry, client: Client, keys: Keys, size: int) -> None:
    data = bytes(itertools.islice(itertools.cycle(range(251)), size))
    name = registry.put_blob(FEED, data)
    assert name == sha256(data).hexdigest() == registry.put_blob(FEED, data)
    assert registry.get_blob(FEED, name) == data
    chunks = client.hgetall(keys.blob(FEED, name))
    assert int(chunks[b"chunks"]) == -(-size // BLOB_CHUNK_BYTES)
    assert int(chunks[b"bytes"]) == size
    assert max(len(chunk) for chunk in chunks.values()) <= BLOB_CHUNK_BYTES


def test_an_unknown_blob_is_missing(registry: Registry) -> None:
    with pytest.raises(ArtefactError) as caught:
        registry.get_blob(FEED, "0" * 64)
    assert caught.value.code == "missing_blob"


def _lose_chunk(client: Client, blob: str) -> None:
    client.hdel(blob, "1")


def _lose_end(client: Client, blob: str) -> None:
    client.hdel(blob, "chunks", "bytes")


def _flip_byte(client: Client, blob: str) -> None:
    chunk = bytearray(client.hget(blob, "1"))
    chunk[7] ^= 1
    client.hset(blob, "1", bytes(chunk))


def _swap_chunks(client: Client, blob: str) -> None:
    first, second = client.hmget(blob, "0", "1")
    client.hset(blob, mapping={"0": second, "1": first})


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
    registry: Registry, client: Client, keys: Keys, damage: Callable[[Client, str], None], code: str
) -> None:
    data = b"a" * BLOB_CHUNK_BYTES + b"b" * BLOB_CHUNK_BYTES
    name = registry.put_blob(FEED, data)
    damage(client, keys.blob(FEED, name))
    with pytest.raises(ArtefactError) as caught:
        registry.get_blob(FEED, name)
    assert caught.value.code == code
    registry.put_blob(FEED, data)
    assert registry.get_blob(FEED, name) == data


def test_a_blob_with_a_lost_chunk_cannot_be_published(publisher: Publisher, client: Client, keys: Keys) -> None:
    for data in blobs_for(1):
        publisher.registry.put_blob(FEED, data)
    client.hdel(keys.blob(FEED, manifest_of(1).head_sha256), "0")
    with pytest.raises(ArtefactError) as caught:
        publisher.registry.publish(SIGNER.sign(manifest_of(1)), lease=publisher.lease, expected_revision=0, at=NOW)
    assert caught.value.code == "missing_blob"


# --- manifests


def test_an_unknown_version_is_named(publisher: Publisher, registry: Registry) -> None:
    with pytest.raises(UnknownVersion, match=r"no version 9; it has none yet"):
        registry.manifest(FEED, 9)
    publisher.promote_up_to(3)
    with pytest.raises(UnknownVersion, match=r"no version 9; it has 3, from 1 to 3"):
        registry.manifest(FEED, 9)


def test_another_versions_manifest_is_not_taken_for_the_one_asked(
    publisher: Publisher, registry: Registry, client: Client, keys: Keys
) -> None:
    """A validly signed older manifest replayed under a newer number would roll a feed back without a trace."""
    publisher.promote_up_to(2)
    client.hset(keys.manifests(FEED), "2", encode_signed(registry.manifest(FEED, 1)))
    with pytest.raises(ArtefactError, match="another manifest stands under version 2"):
        registry.manifest(FEED, 2)


def test_a_manifest_changed_in_redis_fails_its_signature(
    publisher: Publisher, registry: Registry, client: Client, keys: Keys
) -> None:
    publisher.promote_up_to(1)
    signed = registry.manifest(FEED, 1)
    forged = replace(signed, document=signed.document.replace(b'"seed":0', b'"seed":1'))
    client.hset(keys.manifests(FEED), "1", encode_signed(forged))
    with pytest.raises(ArtefactError) as caught:
        Trust.of(SIGNER.public_key).verify(registry.manifest(FEED, 1))
    assert caught.value.code == "bad_signature"


# --- admin verbs


def test_rollback_goes_to_what_was_live_before_and_pauses(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(3)
    live = registry.rollback(FEED, None, expected_revision=3, **WHO)
    assert live == registry.live(FEED)
    assert (live.version, live.revision, live.paused, live.pause_reason) == (2, 4, True, "looks wrong")
    assert (live.actor, live.changed_at) == ("ana", NOW)
    last = registry.audit(FEED)[-1]
    assert (last.entry_id, last.action, last.version, last.from_version) == ("4-0", "rolled_back", 2, 3)
    assert (last.actor, last.reason) == ("ana", "looks wrong")
    assert publisher.publish(manifest_of(4)).status == "paused", "the next cycle must not undo it"


def test_rollbacks_in_a_row_walk_back_to_the_base(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(3)
    walked = [registry.rollback(FEED, None, expected_revision=3 + step, **WHO).version for step in range(3)]
    assert walked == [2, 1, 0]
    with pytest.raises(UnknownVersion, match="nothing was live before version 0"):
        registry.rollback(FEED, None, expected_revision=6, **WHO)


def test_the_first_promotion_decides_what_was_before(publisher: Publisher, registry: Registry) -> None:
    """1, 2, back to 1, then 2 again by hand: before 2 is still 1, and before 1 still 0."""
    publisher.promote_up_to(2)
    registry.rollback(FEED, None, expected_revision=2, **WHO)
    registry.promote(FEED, 2, expected_revision=3, **WHO)
    assert registry.rollback(FEED, None, expected_revision=4, **WHO).version == 1
    assert registry.rollback(FEED, None, expected_revision=5, **WHO).version == 0


def test_rollback_to_a_named_version_and_to_0(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(3)
    assert registry.rollback(FEED, 1, expected_revision=3, **WHO).version == 1
    live = registry.rollback(FEED, 0, expected_revision=4, **WHO)
    assert (live.version, live.anchor, live.revision) == (0, 0, 5)


def test_rollback_withdraws_newer_anchors(publisher: Publisher, registry: Registry) -> None:
    """Anchors 1, 2 and 4. Back to 3: the anchor is 2 again, as it was when 3 was live."""
    for version, anchor in ((1, True), (2, True), (3, False), (4, True), (5, False)):
        publisher.publish(manifest_of(version, anchor=anchor))
    assert registry.live(FEED).anchor == 4
    assert registry.rollback(FEED, 4, expected_revision=5, **WHO).anchor == 4
    assert registry.rollback(FEED, 3, expected_revision=6, **WHO).anchor == 2
    assert registry.rollback(FEED, 1, expected_revision=7, **WHO).anchor == 1


def test_a_rejected_version_can_be_promoted_by_hand(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(1)
    publisher.publish(manifest_of(2, promote=False))
    live = registry.promote(FEED, 2, expected_revision=1, **WHO)
    assert (live.version, live.anchor, live.paused) == (2, 1, False)
    assert registry.rollback(FEED, None, expected_revision=2, **WHO).version == 1


@pytest.mark.parametrize("version", [4, 99])
def test_what_is_not_there_cannot_go_live(
    publisher: Publisher, registry: Registry, client: Client, keys: Keys, version: int
) -> None:
    publisher.promote_up_to(5)
    client.delete(keys.blob(FEED, manifest_of(4).body_sha256))
    before = everything(client, keys)
    for verb in (registry.promote, registry.rollback):
        with pytest.raises(UnknownVersion):
            verb(FEED, version, expected_revision=5, **WHO)
    assert everything(client, keys) == before


def test_admin_verbs_compare_and_set(publisher: Publisher, registry: Registry, client: Client, keys: Keys) -> None:
    publisher.promote_up_to(2)
    before = everything(client, keys)
    for verb in (registry.promote, registry.rollback):
        with pytest.raises(RegistryConflict, match="revision 2, not 1"):
            verb(FEED, 1, expected_revision=1, **WHO)
    assert everything(client, keys) == before


def test_of_many_admins_at_once_one_wins(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(5)
    gate = threading.Barrier(5)

    def go(version: int) -> int | None:
        gate.wait()
        try:
            return registry.rollback(FEED, version, expected_revision=5, **WHO).version
        except RegistryConflict:
            return None

    with ThreadPoolExecutor(5) as pool:
        results = list(pool.map(go, range(5)))
    (winner,) = [version for version in results if version is not None]
    assert (registry.live(FEED).version, registry.live(FEED).revision) == (winner, 6)
    assert len(registry.audit(FEED)) == 6


def test_pause_and_resume_keep_the_revision_and_rise_in_the_audit(publisher: Publisher, registry: Registry) -> None:
    registry.pause(FEED, **WHO)
    registry.resume(FEED, **WHO)
    publisher.promote_up_to(1)
    live = registry.pause(FEED, actor="bo", reason="freeze", at=NOW + timedelta(hours=1))
    assert (live.version, live.revision, live.paused, live.pause_reason) == (1, 1, True, "freeze")
    assert (live.actor, live.changed_at) == ("learner", NOW), "who changed the version stays"
    live = registry.resume(FEED, **WHO)
    assert (live.paused, live.pause_reason) == (False, None)
    publisher.promote_up_to(2)
    entries = registry.audit(FEED)
    assert [entry.entry_id for entry in entries] == ["0-1", "0-2", "1-0", "1-1", "1-2", "2-0"]
    assert [entry.action for entry in entries] == ["paused", "resumed", "promoted", "paused", "resumed", "promoted"]
    assert (entries[3].actor, entries[3].version, entries[3].at) == ("bo", 1, NOW + timedelta(hours=1))


# --- what was seen before


def test_a_live_record_that_went_back_is_lost(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(2)
    check_not_lost(registry.live(FEED), 2)
    check_not_lost(registry.live(FEED), 0)
    with pytest.raises(RegistryLost, match=r"revision 2, but revision 3 was seen.*Restore Redis"):
        check_not_lost(registry.live(FEED), 3)
    with pytest.raises(RegistryLost, match="registry_lost"):
        check_not_lost(LiveRecord(feed=FEED), 1)


# --- waiting


def test_waiting_ends_when_something_changes(publisher: Publisher, registry: Registry) -> None:
    seen = {FEED: registry.last_change(FEED), "other": "0-0"}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(registry.wait_for_change, seen, 4)
        publisher.promote_up_to(1)
        assert waiting.result(timeout=10) == {FEED: "1-0"}
    registry.pause("other", **WHO)
    assert registry.wait_for_change(seen, 4) == {FEED: "1-0", "other": "0-1"}
    assert registry.wait_for_change({FEED: "1-0", "other": "0-1"}, 0.05) == {}
    assert registry.wait_for_change({}, 4) == {}


def test_a_late_watcher_gets_the_newest_id(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(5)
    assert registry.wait_for_change({FEED: "0-0"}, 1) == {FEED: "5-0"}
    assert registry.last_change(FEED) == "5-0"


# --- leases


def test_one_holder_at_a_time_and_a_rising_fence(registry: Registry) -> None:
    first, second = (registry.lease(FEED, "learner", ttl_s=30) for _ in range(2))
    assert first.acquire()
    assert first.held
    assert not second.acquire()
    assert not second.held
    with pytest.raises(LeaseLost, match="never acquired"):
        _ = second.fence
    assert first.acquire(), "again by the holder: still held, same fence"
    fence = first.fence
    first.release()
    first.release()
    assert not first.held
    assert second.acquire()
    assert second.fence == fence + 1
    second.release()


def test_leases_of_other_names_and_feeds_are_apart(registry: Registry) -> None:
    leases = [registry.lease(FEED, "learner", ttl_s=30), registry.lease(FEED, "rollout", ttl_s=30)]
    leases.append(registry.lease("other", "learner", ttl_s=30))
    assert all(lease.acquire() for lease in leases)
    for lease in leases:
        lease.release()


def test_a_killed_holders_lease_runs_out(registry: Registry, client: Client, keys: Keys) -> None:
    held = registry.lease(FEED, "learner", ttl_s=0.3)
    assert held.acquire()
    held._stop.set()  # what a kill does to the renewing thread
    wait_until(lambda: client.exists(keys.lease(FEED, "learner")) == 0)
    assert registry.lease(FEED, "learner", ttl_s=30).acquire()
    assert not held.held
    held.release()
    assert client.exists(keys.lease(FEED, "learner")) == 1, "a late release does not end the new holder's lease"


def test_a_lease_is_renewed_for_as_long_as_it_is_held(registry: Registry, client: Client) -> None:
    with registry.lease(FEED, "learner", ttl_s=0.3) as lease:
        assert lease.acquire()
        start = client.time()
        wait_until(lambda: client.time()[0] - start[0] >= 2)
        assert lease.held
        assert not registry.lease(FEED, "learner", ttl_s=1).acquire()


def test_an_old_fence_is_refused(publisher: Publisher, registry: Registry, client: Client, keys: Keys) -> None:
    """A learner that slept through its lease wakes up and publishes, believing that it still holds it."""
    publisher.promote_up_to(1)
    client.delete(keys.lease(FEED, "learner"))
    with registry.lease(FEED, "learner", ttl_s=30) as newer:
        assert newer.acquire()
        for data in blobs_for(2):
            registry.put_blob(FEED, data)
        before = everything(client, keys)
        for promote in (True, False):
            with pytest.raises(LeaseLost, match="another learner"):
                publisher.publish(manifest_of(2, promote=promote))
        assert everything(client, keys) == before
        assert Publisher(registry, newer).publish(manifest_of(2)).status == "promoted"


def test_an_expired_lease_that_nobody_took_still_publishes(publisher: Publisher, client: Client, keys: Keys) -> None:
    """The fence has not moved, so nobody can have acted in between."""
    client.delete(keys.lease(FEED, "learner"))
    assert publisher.publish(manifest_of(1)).status == "promoted"


def test_two_learners_at_once_publish_one_version_each_revision(registry: Registry, client: Client, keys: Keys) -> None:
    """Both believe that they may; the newer fence or the first to arrive wins, and nothing is half done."""
    for round_number in range(10):
        revision = registry.live(FEED).revision
        older, newer = (registry.lease(FEED, "learner", ttl_s=30) for _ in range(2))
        older.acquire()
        if round_number % 2:
            client.delete(keys.lease(FEED, "learner"))
            newer.acquire()
        else:
            newer = older
        statuses = _race(registry, [older, newer], first_version=2 * round_number + 1, revision=revision)
        assert statuses.count("promoted") == 1, statuses
        assert set(statuses) <= {"promoted", "conflict", "LeaseLost"}
        assert registry.live(FEED).revision == revision + 1
        newer.release()
        older.release()
    revisions = [entry.revision for entry in registry.audit(FEED)]
    assert revisions == list(range(1, 11))
    assert len(registry.versions(FEED)) == 10


def _race(registry: Registry, leases: list[Lease], first_version: int, revision: int) -> list[str]:
    gate = threading.Barrier(len(leases))

    def go(number: int) -> str:
        gate.wait()
        try:
            return Publisher(registry, leases[number]).publish(manifest_of(first_version + number), revision).status
        except LeaseLost:
            return "LeaseLost"

    with ThreadPoolExecutor(len(leases)) as pool:
        return list(pool.map(go, range(len(leases))))


# --- faults


class Died(BaseException):
    """The process ended here."""


class MortalClient(Client):
    """A client whose process dies at its n-th command: before the command is sent, or after it was executed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.commands_left = 10**9
        self.after = False

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.commands_left -= 1
        if self.commands_left == 0 and not self.after:
            raise Died
        reply = super().execute_command(*args, **options)
        if self.commands_left == 0:
            raise Died
        return reply


def test_a_publisher_killed_between_any_two_steps_leaves_all_or_nothing(
    redis_url: str, registry: Registry, client: Client, keys: Keys
) -> None:
    """Commands of publishing: two for each blob, then the script. From the eighth on it survives."""
    survived = 0
    for step, after in itertools.product(range(1, 10), (False, True)):
        live, versions = registry.live(FEED), registry.versions(FEED)
        version = live.version + 1
        mortal = MortalClient.from_url(redis_url, protocol=2)
        dying = Publisher(Registry(mortal, keys), registry.lease(FEED, "learner", ttl_s=30))
        dying.lease.acquire()
        mortal.commands_left, mortal.after = step, after
        try:
            dying.publish(manifest_of(version), live.revision)
        except Died:
            done = registry.live(FEED).version == version
            assert registry.versions(FEED) == ([*versions, version] if done else versions)
            assert (registry.cycle_outcome(FEED, f"cycle-{version}") is not None) == done
            assert done == (step == 7 and after)
            assert done or registry.live(FEED) == live
        else:
            survived += 1
        mortal.close()
        _restart_and_publish(registry, client, keys, version, live.revision)
        dying.lease.release()
    assert survived == 4, "the steps must have covered the whole of publishing"
    assert [entry.revision for entry in registry.audit(FEED)] == list(range(1, registry.live(FEED).revision + 1))
    assert registry.versions(FEED) == list(range(1, registry.live(FEED).version + 1))


def _restart_and_publish(registry: Registry, client: Client, keys: Keys, version: int, revision: int) -> None:
    """The next life of the killed learner: its lease has run out, and it publishes the same cycle again."""
    client.delete(keys.lease(FEED, "learner"))
    with registry.lease(FEED, "learner", ttl_s=30) as lease:
        assert lease.acquire()
        outcome = Publisher(registry, lease).publish(manifest_of(version), revision)
        assert outcome.recorded == "promoted" or outcome.status == "promoted"
    assert (registry.live(FEED).version, registry.live(FEED).revision) == (version, revision + 1)


def wait_until(happened: Callable[[], Any], seconds: float = 10.0) -> None:
    """Poll Redis (each call a round trip) until it happened; fails after the time."""
    deadline = threading.Event()
    timer = threading.Timer(seconds, deadline.set)
    timer.start()
    try:
        while not happened():
            assert not deadline.is_set(), "it did not happen in time"
    finally:
        timer.cancel()


@pytest.fixture
def impatient(redis_process: RedisProcess) -> Iterator[Registry]:
    """A registry on a server of the test's own, whose client gives up after 0.3 s."""
    client = connect(redis_process.url, "own", timeout_s=0.3)
    yield Registry(client, Keys("own"))
    client.close()


def test_publishing_through_a_frozen_server_happens_once(redis_process: RedisProcess, impatient: Registry) -> None:
    with impatient.lease(FEED, "learner", ttl_s=60) as lease:
        assert lease.acquire()
        publisher = Publisher(impatient, lease)
        for version in (1, 2, 3):
            for data in blobs_for(version):
                impatient.put_blob(FEED, data)
            redis_process.pause()
            for _ in range(3):
                with pytest.raises(RegistryUnavailable, match="does not answer"):
                    impatient.publish(
                        SIGNER.sign(manifest_of(version)), lease=lease, expected_revision=version - 1, at=NOW
                    )
            redis_process.resume()
            outcome = publisher.publish(manifest_of(version), version - 1)
            assert "promoted" in (outcome.status, outcome.recorded)
        assert impatient.versions(FEED) == [1, 2, 3]
        assert [entry.entry_id for entry in impatient.audit(FEED)] == ["1-0", "2-0", "3-0"]


class ThawingClient(Client):
    """Resumes the frozen server when the first command has failed."""

    server: RedisProcess | None = None

    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)
        except RegistryUnavailable:
            if self.server is not None and args[0] == "EVAL":
                self.server.resume()
            raise


@pytest.mark.parametrize("verb", ["rollback", "promote", "pause", "resume"])
def test_an_admin_verb_that_was_sent_twice_is_done_once(
    redis_process: RedisProcess, impatient: Registry, verb: str
) -> None:
    with impatient.lease(FEED, "learner", ttl_s=60) as lease:
        assert lease.acquire()
        Publisher(impatient, lease).promote_up_to(2)
    client = ThawingClient.from_url(redis_process.url, socket_timeout=1.0, retry=None, protocol=2)
    registry = Registry(client, Keys("own"))
    calls: dict[str, Callable[[], LiveRecord]] = {
        "rollback": lambda: registry.rollback(FEED, 1, expected_revision=2, **WHO),
        "promote": lambda: registry.promote(FEED, 1, expected_revision=2, **WHO),
        "pause": lambda: registry.pause(FEED, **WHO),
        "resume": lambda: registry.resume(FEED, **WHO),
    }
    freeze_before_script(redis_process, client)
    live = calls[verb]()
    assert live == impatient.live(FEED)
    assert len(impatient.audit(FEED)) == 3
    client.close()


def freeze_before_script(server: RedisProcess, client: ThawingClient) -> None:
    """Freeze the server just before the first script, after the reads that lead up to it."""
    client.server = server
    original = client.execute_command

    def execute(*args: Any, **options: Any) -> Any:
        if args[0] == "EVAL":
            client.execute_command = original  # type: ignore[method-assign]
            server.pause()
        return original(*args, **options)

    client.execute_command = execute  # type: ignore[method-assign]


def test_every_verb_is_retriable_while_the_server_is_gone(redis_process: RedisProcess, impatient: Registry) -> None:
    with impatient.lease(FEED, "learner", ttl_s=60) as lease:
        assert lease.acquire()
        Publisher(impatient, lease).promote_up_to(1)
        redis_process.stop()
        calls: list[Callable[[], object]] = [
            lambda: impatient.live(FEED),
            lambda: impatient.next_version(FEED),
            lambda: impatient.put_blob(FEED, b"x"),
            lambda: impatient.manifest(FEED, 1),
            lambda: impatient.pause(FEED, **WHO),
            lambda: impatient.wait_for_change({FEED: "1-0"}, 0.1),
            lambda: impatient.lease(FEED, "other", ttl_s=1).acquire(),
            lambda: impatient.collect_garbage(FEED),
            impatient.check_server,
            impatient.replicas,
        ]
        for call in calls:
            with pytest.raises(RegistryUnavailable) as caught:
                call()
            assert caught.value.retriable
        redis_process.start()
        assert impatient.live(FEED).version == 1
        assert Publisher(impatient, lease).publish(manifest_of(2)).status == "promoted"


def test_a_lease_survives_an_outage_that_nobody_used(redis_process: RedisProcess, impatient: Registry) -> None:
    with impatient.lease(FEED, "learner", ttl_s=0.6) as lease:
        assert lease.acquire()
        fence = lease.fence
        redis_process.stop()
        wait_until(lambda: not lease.held)
        redis_process.start()
        wait_until(lambda: lease.held)
        assert lease.fence == fence


def test_a_lease_taken_during_an_outage_of_its_holder_is_lost(redis_process: RedisProcess, impatient: Registry) -> None:
    client = connect(redis_process.url)
    with impatient.lease(FEED, "learner", ttl_s=0.6) as lease, impatient.lease(FEED, "learner", ttl_s=60) as newer:
        assert lease.acquire()
        client.delete(Keys("own").lease(FEED, "learner"))
        assert newer.acquire()
        wait_until(lambda: not lease.held)
        assert newer.held
        newer.release()
        assert lease.acquire()
        wait_until(lambda: client.pttl(Keys("own").lease(FEED, "learner")) < 500)
        wait_until(lambda: client.pttl(Keys("own").lease(FEED, "learner")) > 500)  # it is renewed again
    client.close()


def test_out_of_memory_is_retriable_writes_nothing_and_quotes_nothing(
    redis_process: RedisProcess, impatient: Registry
) -> None:
    client = connect(redis_process.url)
    secret = b"the text of a command " * 1000
    with impatient.lease(FEED, "learner", ttl_s=60) as lease:
        assert lease.acquire()
        publisher = Publisher(impatient, lease)
        publisher.promote_up_to(1)
        for data in blobs_for(2):
            impatient.put_blob(FEED, data)
        client.config_set("maxmemory", "100kb")
        before = everything(client, Keys("own"))
        calls: list[Callable[[], object]] = [
            lambda: impatient.put_blob(FEED, secret),
            lambda: impatient.publish(SIGNER.sign(manifest_of(2)), lease=lease, expected_revision=1, at=NOW),
            lambda: impatient.rollback(FEED, None, expected_revision=1, **WHO),
            lambda: impatient.request_update(FEED, secret.decode()),
        ]
        for call in calls:
            with pytest.raises(RegistryUnavailable, match="out of memory") as caught:
                call()
            printed = "".join(traceback.format_exception(caught.value))
            assert "the text of a command" not in printed
            assert "cycle" not in str(caught.value)
        assert everything(client, Keys("own")) == before
        client.config_set("maxmemory", "0")
        assert publisher.publish(manifest_of(2)).status == "promoted"
    client.close()


def test_a_killed_server_keeps_every_acknowledged_version(redis_process: RedisProcess, impatient: Registry) -> None:
    for version in range(1, 6):
        with impatient.lease(FEED, "learner", ttl_s=60) as lease:
            assert lease.acquire()
            assert Publisher(impatient, lease).publish(manifest_of(version)).status == "promoted"
        redis_process.kill()
        redis_process.start()
        assert impatient.live(FEED).version == version
        assert impatient.get_blob(FEED, manifest_of(version).body_sha256) == blobs_for(version)[0]
    assert [entry.revision for entry in impatient.audit(FEED)] == [1, 2, 3, 4, 5]


# --- retention


def test_kept_versions_by_hand() -> None:
    live = LiveRecord(feed=FEED, version=3, anchor=2, revision=9)
    assert kept_versions([1, 2, 3, 4, 5, 6, 7, 8], live, 1, {5}, 2) == {7, 8, 3, 2, 1, 5}
    assert kept_versions([1, 2, 3], LiveRecord(feed=FEED), None, (), 0) == set()
    assert kept_versions([], LiveRecord(feed=FEED), None, (), 50) == set()


def test_collecting_keeps_what_the_design_names(publisher: Publisher, registry: Registry) -> None:
    """Anchor 2, incumbent 4 (before it: 3), pinned 1; 5 to 9 rejected; the newest two are kept."""
    for version, anchor in ((1, True), (2, True), (3, False), (4, False)):
        publisher.publish(manifest_of(version, anchor=anchor))
    for version in range(5, 10):
        publisher.publish(manifest_of(version, promote=False))
    registry.pin(FEED, 1)
    assert registry.collect_garbage(FEED, 2) == 0, "all are younger than the grace"
    assert registry.collect_garbage(FEED, 2, grace_s=-1) == 3 * 3
    assert blobs_left(registry) == {1, 2, 3, 4, 8, 9}
    assert registry.versions(FEED) == list(range(1, 10)), "manifests stay for ever"
    with pytest.raises(UnknownVersion, match="no longer kept"):
        registry.promote(FEED, 6, expected_revision=4, **WHO)
    with pytest.raises(UnknownVersion, match="cannot be pinned"):
        registry.pin(FEED, 6)
    assert registry.rollback(FEED, None, expected_revision=4, **WHO).version == 3
    registry.unpin(FEED, 1)
    registry.collect_garbage(FEED, 2, grace_s=-1)
    assert 1 not in blobs_left(registry)


def blobs_left(registry: Registry) -> set[int]:
    """Versions all of whose blobs can be read; a version with only some of them fails the test."""
    left = set()
    for version in registry.versions(FEED):
        readable = [_readable(registry, data) for data in blobs_for(version)]
        assert len(set(readable)) == 1
        left |= {version} if readable[0] else set()
    return left


def _readable(registry: Registry, data: bytes) -> bool:
    try:
        return registry.get_blob(FEED, sha256(data).hexdigest()) == data
    except ArtefactError:
        return False


def test_blobs_in_flight_are_safe_and_orphans_go(
    publisher: Publisher, registry: Registry, client: Client, keys: Keys
) -> None:
    """A learner between its blobs and its manifest; and one that died there long ago."""
    publisher.promote_up_to(1)
    in_flight = registry.put_blob(FEED, b"in flight")
    orphan = registry.put_blob(FEED, b"orphan")
    half = registry.put_blob(FEED, b"half of one")
    client.hdel(keys.blob(FEED, half), "chunks")
    for name in (orphan, half):
        client.zadd(keys.blobs(FEED), {name: 0})
    assert registry.collect_garbage(FEED) == 2
    assert registry.get_blob(FEED, in_flight) == b"in flight"
    assert client.exists(keys.blob(FEED, orphan), keys.blob(FEED, half)) == 0


def test_a_blob_that_comes_into_use_while_collecting_stays(
    publisher: Publisher, registry: Registry, client: Client, keys: Keys
) -> None:
    """The collector has read what is kept; before it removes, an old version is rolled back to."""
    publisher.promote_up_to(4)
    for name in client.zrange(keys.blobs(FEED), 0, -1):
        client.zadd(keys.blobs(FEED), {name: 0})
    kept = {name for version in (4,) for name in _names(version)}
    registry.rollback(FEED, 1, expected_revision=4, **WHO)
    removed = registry._blobs.collect(FEED, kept, 900)
    assert removed == 2 * 3
    assert blobs_left(registry) == {1, 4}


def _names(version: int) -> list[str]:
    return [sha256(data).hexdigest() for data in blobs_for(version)]


def test_a_damaged_manifest_stops_the_collector(
    publisher: Publisher, registry: Registry, client: Client, keys: Keys
) -> None:
    """Not knowing what a kept version names, it must remove nothing."""
    publisher.promote_up_to(3)
    client.hset(keys.manifests(FEED), "3", b"garbage")
    with pytest.raises(ArtefactError):
        registry.collect_garbage(FEED, 1, grace_s=-1)
    assert all(_readable(registry, data) for version in (1, 2, 3) for data in blobs_for(version))


# --- heartbeats, requests, journal


def replica(name: str, version: int = 1) -> ReplicaStatus:
    return ReplicaStatus(
        replica=name,
        role="serve",
        url="http://127.0.0.1:8080",
        serving={FEED: version},
        revisions={FEED: version},
        refused={FEED: "probe_mismatch: …"},
        seen_at=datetime(2011, 1, 1, tzinfo=UTC),
        pid=7,
    )


def test_replicas_are_known_while_they_beat(registry: Registry, client: Client, keys: Keys) -> None:
    registry.heartbeat(replica("b"))
    registry.heartbeat(replica("a", 1))
    registry.heartbeat(replica("a", 2))
    assert registry.replicas() == [replica("a", 2), replica("b")], "by the server's clock, whatever the replica's says"
    _age(client, keys, b"serve:b", seconds=6)
    assert [status.replica for status in registry.replicas()] == ["a"]
    _age(client, keys, b"serve:b", seconds=3601)
    registry.heartbeat(replica("a"))
    assert client.hkeys(keys.replicas()) == [b"serve:a"]


def _age(client: Client, keys: Keys, name: bytes, seconds: int) -> None:
    _, _, document = client.hget(keys.replicas(), name).partition(b" ")
    client.hset(keys.replicas(), name, b"%d %b" % ((client.time()[0] - seconds) * 1000, document))


def test_an_update_is_asked_for_and_taken_once(registry: Registry) -> None:
    assert registry.take_update_request(FEED) is False
    registry.request_update(FEED, "ana")
    registry.request_update(FEED, "bo")
    assert registry.take_update_request(FEED) is True
    assert registry.take_update_request(FEED) is False


def test_the_journal_keeps_the_newest(client: Client, keys: Keys) -> None:
    journal = Journal(client, keys)
    for number in range(5):
        assert journal.append("cycle", feed=FEED, version=number, at_stream_time=NOW)
    entries = journal.read(2)
    assert [entry.fields["version"] for entry in entries] == [3, 4]
    assert entries[0].kind == "cycle"
    assert entries[0].fields["at_stream_time"] == "2026-11-22T08:00:00Z"
    assert journal.read(100)[0].entry_id < entries[0].entry_id


def test_the_journal_never_stops_the_work(redis_process: RedisProcess) -> None:
    client = connect(redis_process.url, timeout_s=0.3)
    journal = Journal(client, Keys("own"))
    redis_process.stop()
    assert journal.append("cycle", version=1) is False
    client.close()


# --- the server, the URL


def test_our_own_server_has_no_problems(registry: Registry) -> None:
    assert registry.check_server() == []


def test_wrong_settings_are_told_with_the_remedy(redis_process: RedisProcess, impatient: Registry) -> None:
    client = connect(redis_process.url)
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("appendonly", "no")
    problems = impatient.check_server()
    assert any("allkeys-lru" in problem and "CONFIG SET maxmemory-policy noeviction" in problem for problem in problems)
    assert any("CONFIG SET appendonly yes" in problem for problem in problems)
    assert any("too old" in problem for problem in server_problems({"redis_version": "4.0.9", "aof_enabled": "1"}))
    client.close()


@pytest.mark.parametrize("url", ["embedded", "localhost:6379", "http://localhost"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="use redis://HOST:PORT"):
        connect(url)


def test_no_password_gets_into_a_message() -> None:
    with pytest.raises(ConfigError) as caught:
        connect("http://user:geheim@host/0")
    assert "geheim" not in str(caught.value)


def test_a_refused_user_is_told_what_to_check(redis_process: RedisProcess) -> None:
    admin = connect(redis_process.url)
    admin.execute_command("ACL", "SETUSER", "reader", "on", ">geheim", "~*", "+@read", "+@connection", "+info")
    address = redis_process.url.removeprefix("unix://")
    for user, refused in (("reader:geheim", False), ("reader:falsch", True)):
        client = connect(f"unix://{user}@{address}")
        registry = Registry(client, Keys("own"))
        if refused:
            with pytest.raises(RegistryError, match="check the password") as caught:
                registry.live(FEED)
            assert not caught.value.retriable
        else:
            assert registry.live(FEED).version == 0
            assert registry.wait_for_change({FEED: "0-0"}, 0.05) == {}
            with pytest.raises(RegistryError, match="refuses this user"):
                registry.next_version(FEED)
        client.close()
    admin.close()


def test_another_programs_keys_are_told_apart(registry: Registry, client: Client, keys: Keys) -> None:
    client.set(keys.live(FEED), "something else")
    with pytest.raises(RegistryError, match="does another program use") as caught:
        registry.live(FEED)
    assert not isinstance(caught.value, RegistryUnavailable)
    assert isinstance(caught.value, DriftlineError)
