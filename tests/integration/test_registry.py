"""The registry on a real Redis: publishing, manifests, what was seen before, and waiting for changes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from driftline.artefact.manifest import Trust, decode_manifest, encode_signed
from driftline.errors import (
    ArtefactError,
    RegistryConflict,
    RegistryLost,
    UnknownVersion,
)
from driftline.names import Keys
from driftline.records import (
    LiveRecord,
    PublishOutcome,
)
from driftline.registry import Client, Registry, check_not_lost
from tests.fixtures.registry import FEED, NOW, SIGNER, WHO, Publisher, everything, manifest_of, parts_for


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
    assert registry.get_blob(FEED, manifest_of(1).parts["body"]) == b"body 1"
    assert registry.promoted_before(FEED, 1) == 0
    assert registry.cycle_outcome(FEED, "cycle-1") == outcome
    (entry,) = registry.audit(FEED)
    assert (entry.entry_id, entry.action, entry.version, entry.from_version) == ("1-0", "promoted", 1, 0)
    assert (entry.revision, entry.actor, entry.reason, entry.at) == (1, "learner", "not_worse", NOW)


def test_versions_count_up_and_feeds_are_apart(registry: Registry) -> None:
    assert [registry.next_version(FEED) for _ in range(3)] == [1, 2, 3]
    assert registry.next_version("other") == 1
    assert registry.feeds() == ["other", FEED]


def test_numbers_go_on_above_one_that_is_known(registry: Registry) -> None:
    assert registry.next_version(FEED, above=0) == 1
    assert registry.next_version(FEED, above=7) == 8
    assert registry.next_version(FEED, above=3) == 9
    assert registry.feeds() == [FEED]


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


def test_publishing_twice_is_once(publisher: Publisher, redis_client: Client, keys: Keys) -> None:
    publisher.publish(manifest_of(1))
    publisher.publish(manifest_of(2, promote=False))
    before = everything(redis_client, keys)
    for version, recorded in ((1, "promoted"), (2, "rejected")):
        again = publisher.publish(manifest_of(version))
        assert again == PublishOutcome(status="duplicate", version=version, revision=1, recorded=recorded)
    assert everything(redis_client, keys) == before


def test_a_known_cycle_with_another_decision_is_still_a_duplicate(publisher: Publisher, registry: Registry) -> None:
    """The learner that crashed after publishing sees its own promotion as a changed incumbent, and tries to reject."""
    publisher.publish(manifest_of(1))
    again = publisher.publish(manifest_of(1, promote=False))
    assert (again.status, again.recorded) == ("duplicate", "promoted")
    assert decode_manifest(registry.manifest(FEED, 1).document).decision.promote


def test_a_conflict_writes_nothing(publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys) -> None:
    publisher.promote_up_to(2)
    for data in parts_for(3).values():
        registry.put_blob(FEED, data)
    before = everything(redis_client, keys)
    outcome = publisher.publish(manifest_of(3), expected_revision=1)
    assert outcome == PublishOutcome(status="conflict", version=3, revision=2)
    assert everything(redis_client, keys) == before
    rejected = publisher.publish(manifest_of(3, promote=False), expected_revision=1)
    assert rejected.status == "rejected", "a rejection is registered whatever is live"


def test_a_pause_writes_nothing_and_lets_rejections_through(
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys
) -> None:
    publisher.promote_up_to(1)
    registry.pause(FEED, **WHO)
    for data in parts_for(2).values():
        registry.put_blob(FEED, data)
    before = everything(redis_client, keys)
    assert publisher.publish(manifest_of(2)) == PublishOutcome(status="paused", version=2, revision=1)
    assert everything(redis_client, keys) == before
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
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys, missing: int, promote: bool
) -> None:
    manifest = manifest_of(1, promote=promote)
    for data in (data for number, data in enumerate(parts_for(1).values()) if number != missing):
        registry.put_blob(FEED, data)
    before = everything(redis_client, keys)
    with pytest.raises(ArtefactError) as caught:
        registry.publish(SIGNER.sign(manifest), lease=publisher.lease, expected_revision=0, at=NOW)
    assert caught.value.code == "missing_blob"
    assert everything(redis_client, keys) == before


def test_an_audit_that_is_ahead_means_lost_and_nothing_is_written(
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys
) -> None:
    publisher.promote_up_to(3)
    redis_client.delete(keys.live(FEED))
    for data in parts_for(4).values():
        registry.put_blob(FEED, data)
    before = everything(redis_client, keys)
    with pytest.raises(RegistryLost, match="ahead of the live record"):
        publisher.publish(manifest_of(4))
    with pytest.raises(RegistryLost):
        registry.promote(FEED, 2, expected_revision=0, **WHO)
    with pytest.raises(RegistryLost):
        registry.pause(FEED, **WHO)
    assert everything(redis_client, keys) == before


def test_an_unknown_version_is_named(publisher: Publisher, registry: Registry) -> None:
    with pytest.raises(UnknownVersion, match=r"no version 9; it has none yet"):
        registry.manifest(FEED, 9)
    publisher.promote_up_to(3)
    with pytest.raises(UnknownVersion, match=r"no version 9; it has 3, from 1 to 3"):
        registry.manifest(FEED, 9)


def test_another_versions_manifest_is_not_taken_for_the_one_asked(
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys
) -> None:
    """A validly signed older manifest replayed under a newer number would roll a feed back without a trace."""
    publisher.promote_up_to(2)
    redis_client.hset(keys.manifests(FEED), "2", encode_signed(registry.manifest(FEED, 1)))
    with pytest.raises(ArtefactError, match="another manifest stands under version 2"):
        registry.manifest(FEED, 2)


def test_a_manifest_changed_in_redis_fails_its_signature(
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys
) -> None:
    publisher.promote_up_to(1)
    signed = registry.manifest(FEED, 1)
    forged = replace(signed, document=signed.document.replace(b'"seed":0', b'"seed":1'))
    redis_client.hset(keys.manifests(FEED), "1", encode_signed(forged))
    with pytest.raises(ArtefactError) as caught:
        Trust.of(SIGNER.public_key).verify(registry.manifest(FEED, 1))
    assert caught.value.code == "bad_signature"


def test_a_live_record_that_went_back_is_lost(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(2)
    check_not_lost(registry.live(FEED), 2)
    check_not_lost(registry.live(FEED), 0)
    with pytest.raises(RegistryLost, match=r"revision 2, but revision 3 was seen.*Restore Redis"):
        check_not_lost(registry.live(FEED), 3)
    with pytest.raises(RegistryLost, match="registry_lost"):
        check_not_lost(LiveRecord(feed=FEED), 1)


def test_waiting_ends_when_something_changes(publisher: Publisher, registry: Registry) -> None:
    seen = {FEED: registry.last_change(FEED), "other": "0-0"}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(registry.wait_for_change, seen, 4)
        publisher.promote_up_to(1)
        assert waiting.result(timeout=60) == {FEED: "1-0"}
    registry.pause("other", **WHO)
    assert registry.wait_for_change(seen, 4) == {FEED: "1-0", "other": "0-1"}
    assert registry.wait_for_change({FEED: "1-0", "other": "0-1"}, 0.05) == {}
    assert registry.wait_for_change({}, 4) == {}


def test_a_late_watcher_gets_the_newest_id(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(5)
    assert registry.wait_for_change({FEED: "0-0"}, 1) == {FEED: "5-0"}
    assert registry.last_change(FEED) == "5-0"
