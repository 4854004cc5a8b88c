"""Admin verbs: rollback, promote, pause and resume compare and set, and every one stands in the audit."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from driftline.errors import (
    RegistryConflict,
    UnknownVersion,
)
from driftline.names import Keys
from driftline.registry import Client, Registry
from tests.fixtures.registry import FEED, NOW, WHO, Publisher, everything, manifest_of


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
    with pytest.raises(UnknownVersion, match="the base, is live: there is nothing to roll back"):
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
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys, version: int
) -> None:
    publisher.promote_up_to(5)
    redis_client.delete(keys.blob(FEED, manifest_of(4).parts["body"]))
    before = everything(redis_client, keys)
    for verb in (registry.promote, registry.rollback):
        with pytest.raises(UnknownVersion):
            verb(FEED, version, expected_revision=5, **WHO)
    assert everything(redis_client, keys) == before


def test_there_is_no_version_below_0(publisher: Publisher, registry: Registry) -> None:
    publisher.promote_up_to(2)
    for verb in (registry.promote, registry.rollback):
        with pytest.raises(UnknownVersion, match="no version -1"):
            verb(FEED, -1, expected_revision=2, **WHO)
    assert registry.live(FEED).revision == 2


def test_admin_verbs_compare_and_set(
    publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys
) -> None:
    publisher.promote_up_to(2)
    before = everything(redis_client, keys)
    for verb in (registry.promote, registry.rollback):
        with pytest.raises(RegistryConflict, match="revision 2, not 1"):
            verb(FEED, 1, expected_revision=1, **WHO)
    assert everything(redis_client, keys) == before


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


def test_a_second_pause_keeps_the_first_reason_and_stands_in_the_audit(registry: Registry) -> None:
    registry.pause(FEED, actor="ana", reason="freeze", at=NOW)
    live = registry.pause(FEED, actor="bo", reason="holiday", at=NOW + timedelta(hours=1))
    assert (live.paused, live.pause_reason) == (True, "freeze")
    assert [(entry.actor, entry.reason) for entry in registry.audit(FEED)] == [("ana", "freeze"), ("bo", "holiday")]
    registry.resume(FEED, **WHO)
    assert registry.pause(FEED, actor="bo", reason="holiday", at=NOW).pause_reason == "holiday"


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
