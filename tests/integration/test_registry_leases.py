"""Leases: one holder, a rising fence, renewal, outages, and two learners at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from driftline.errors import (
    LeaseLost,
)
from driftline.names import Keys
from driftline.registry import Client, Lease, Registry, connect
from tests.fixtures.redis import RedisProcess
from tests.fixtures.registry import FEED, Publisher, everything, manifest_of, parts_for, wait_until


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


def test_a_killed_holders_lease_runs_out(registry: Registry, redis_client: Client, keys: Keys) -> None:
    held = registry.lease(FEED, "learner", ttl_s=0.3)
    assert held.acquire()
    held._stop.set()  # what a kill does to the renewing thread
    wait_until(lambda: redis_client.exists(keys.lease(FEED, "learner")) == 0)
    assert registry.lease(FEED, "learner", ttl_s=30).acquire()
    assert not held.held
    held.release()
    assert redis_client.exists(keys.lease(FEED, "learner")) == 1, "a late release does not end the new holder's lease"


def test_a_lease_is_renewed_for_as_long_as_it_is_held(registry: Registry, redis_client: Client, keys: Keys) -> None:
    with registry.lease(FEED, "learner", ttl_s=3) as lease:
        assert lease.acquire()
        for _ in range(2):
            wait_until(lambda: redis_client.pttl(keys.lease(FEED, "learner")) < 2500)
            wait_until(lambda: redis_client.pttl(keys.lease(FEED, "learner")) > 2500)
        assert lease.held
        assert not registry.lease(FEED, "learner", ttl_s=1).acquire()


def test_an_old_fence_is_refused(publisher: Publisher, registry: Registry, redis_client: Client, keys: Keys) -> None:
    """A learner that slept through its lease wakes up and publishes, believing that it still holds it."""
    publisher.promote_up_to(1)
    redis_client.delete(keys.lease(FEED, "learner"))
    with registry.lease(FEED, "learner", ttl_s=30) as newer:
        assert newer.acquire()
        for data in parts_for(2).values():
            registry.put_blob(FEED, data)
        before = everything(redis_client, keys)
        for promote in (True, False):
            with pytest.raises(LeaseLost, match="another learner"):
                publisher.publish(manifest_of(2, promote=promote))
        assert everything(redis_client, keys) == before
        assert Publisher(registry, newer).publish(manifest_of(2)).status == "promoted"


def test_an_expired_lease_that_nobody_took_still_publishes(
    publisher: Publisher, redis_client: Client, keys: Keys
) -> None:
    """The fence has not moved, so nobody can have acted in between."""
    redis_client.delete(keys.lease(FEED, "learner"))
    assert publisher.publish(manifest_of(1)).status == "promoted"


def test_two_learners_at_once_publish_one_version_each_revision(
    registry: Registry, redis_client: Client, keys: Keys
) -> None:
    """Both believe that they may; the newer fence or the first to arrive wins, and nothing is half done."""
    for round_number in range(10):
        revision = registry.live(FEED).revision
        older, newer = (registry.lease(FEED, "learner", ttl_s=30) for _ in range(2))
        older.acquire()
        if round_number % 2:
            redis_client.delete(keys.lease(FEED, "learner"))
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


def test_a_lease_survives_an_outage_that_nobody_used(redis_process: RedisProcess, own: Registry) -> None:
    with own.lease(FEED, "learner", ttl_s=0.6) as lease:
        assert lease.acquire()
        fence = lease.fence
        redis_process.stop()
        wait_until(lambda: not lease.held)
        redis_process.start()
        wait_until(lambda: lease.held)
        assert lease.fence == fence


def test_a_lease_taken_during_an_outage_of_its_holder_is_lost(redis_process: RedisProcess, own: Registry) -> None:
    redis_client = connect(redis_process.url)
    with own.lease(FEED, "learner", ttl_s=0.6) as lease, own.lease(FEED, "learner", ttl_s=60) as newer:
        assert lease.acquire()
        # Again if the holder was quicker: it takes its lease back as long as nobody else used it.
        wait_until(lambda: redis_client.delete(Keys("own").lease(FEED, "learner")) and newer.acquire())
        wait_until(lambda: not lease.held)
        assert newer.held
        newer.release()
        assert lease.acquire()
        wait_until(lambda: redis_client.pttl(Keys("own").lease(FEED, "learner")) < 500)
        wait_until(lambda: redis_client.pttl(Keys("own").lease(FEED, "learner")) > 500)  # it is renewed again
    redis_client.close()
