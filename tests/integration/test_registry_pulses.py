"""Pulses in a real Redis: order, repetition, bounds, gaps, fences, and a feed's collector beside them."""

import threading
from collections.abc import Iterator

import pytest

from driftline.errors import ArtefactError, LeaseLost, PulseGap, RegistryError
from driftline.names import Keys
from driftline.registry import Client, Lease, Registry
from driftline.registry.pulses import Stored
from tests.fixtures.registry import FEED


@pytest.fixture
def lease(registry: Registry) -> Iterator[Lease]:
    with registry.lease(FEED, "adapt", ttl_s=30) as held:
        assert held.acquire()
        yield held


def publish(registry: Registry, lease: Lease, *numbers: int) -> None:
    for number in numbers:
        assert registry.pulses.publish(FEED, number, b"pulse %d" % number, lease=lease)


def snapshot(registry: Registry, lease: Lease, number: int, *, kept: int = 100, in_place: bool = False) -> str:
    state, sealed = registry.put_blob(FEED, b"state %d" % number), b"snapshot %d" % number
    registry.pulses.put_snapshot(FEED, number, sealed, state, kept=kept, lease=lease, in_place=in_place)
    return state


def test_nothing_is_there_at_first(registry: Registry) -> None:
    assert registry.pulses.stored(FEED) == Stored()
    assert registry.pulses.after(FEED, 0) == []
    assert registry.pulses.wait({FEED: 0}, 0.01) == set()


def test_pulses_come_back_in_order(registry: Registry, lease: Lease) -> None:
    publish(registry, lease, *range(1, 13))
    assert registry.pulses.after(FEED, 9) == [(n, b"pulse %d" % n) for n in (10, 11, 12)]
    assert registry.pulses.stored(FEED).number == 12


def test_publishing_again_changes_nothing(registry: Registry, lease: Lease) -> None:
    publish(registry, lease, 1, 2)
    assert not registry.pulses.publish(FEED, 2, b"pulse 2", lease=lease)
    assert registry.pulses.after(FEED, 0) == [(1, b"pulse 1"), (2, b"pulse 2")]


@pytest.mark.parametrize("number", [1, 2])
def test_another_pulse_in_its_place_is_told(registry: Registry, lease: Lease, number: int) -> None:
    publish(registry, lease, 1, 2)
    with pytest.raises(PulseGap, match="at pulse 2"):
        registry.pulses.publish(FEED, number, b"another", lease=lease)
    assert registry.pulses.after(FEED, 0) == [(1, b"pulse 1"), (2, b"pulse 2")]


@pytest.mark.parametrize("found", [b"999999999", b"3", b"no number", b"inf", b"nan", b"-7"])
def test_a_number_of_somebody_elses_making_is_overwritten_by_a_snapshot_in_place(
    registry: Registry, lease: Lease, redis_client: Client, keys: Keys, found: bytes
) -> None:
    publish(registry, lease, 1, 2)
    redis_client.hset(keys.fast(FEED), "number", found)
    with pytest.raises(PulseGap):
        registry.pulses.publish(FEED, 3, b"pulse 3", lease=lease)
    snapshot(registry, lease, 3, in_place=True)
    publish(registry, lease, 4)
    assert registry.pulses.stored(FEED) == Stored(number=4, snapshot=b"snapshot 3")
    assert registry.pulses.after(FEED, 0) == [(4, b"pulse 4")]


def test_a_gap_is_told_and_a_snapshot_mends_it(registry: Registry, lease: Lease) -> None:
    publish(registry, lease, 1, 2)
    with pytest.raises(PulseGap, match="at pulse 2, so 5 is not the next"):
        registry.pulses.publish(FEED, 5, b"pulse 5", lease=lease)
    snapshot(registry, lease, 5, in_place=True)
    publish(registry, lease, 6)
    assert registry.pulses.stored(FEED) == Stored(number=6, snapshot=b"snapshot 5")


def test_an_epoch_begins_also_where_the_pulses_before_it_were_lost(registry: Registry, lease: Lease) -> None:
    publish(registry, lease, 1, 2)
    snapshot(registry, lease, 9)
    publish(registry, lease, 9, 10)
    assert [number for number, _ in registry.pulses.after(FEED, 2)] == [9, 10]


def test_whatever_stands_as_a_pulse_can_be_read_from_the_newest_on(
    registry: Registry, lease: Lease, redis_client: Client, keys: Keys
) -> None:
    publish(registry, lease, *range(1, 41))
    redis_client.xadd(keys.pulses(FEED), {"nonsense": "1"}, id="100-0")
    redis_client.xadd(keys.pulses(FEED), {"pulse": "junk"}, id="100-7")
    found = list(registry.pulses.newest_first(FEED))
    assert found == [b"junk", *(b"pulse %d" % number for number in range(40, 0, -1))]


def test_an_epoch_begins_with_a_snapshot_and_the_pulse_of_its_number(registry: Registry, lease: Lease) -> None:
    publish(registry, lease, 1, 2)
    snapshot(registry, lease, 3)
    publish(registry, lease, 3, 4)
    assert [number for number, _ in registry.pulses.after(FEED, 2)] == [3, 4]


def test_a_snapshot_bounds_the_stream(registry: Registry, lease: Lease) -> None:
    publish(registry, lease, *range(1, 21))
    snapshot(registry, lease, 20, kept=5)
    assert [number for number, _ in registry.pulses.after(FEED, 0)] == [16, 17, 18, 19, 20]


def test_a_snapshot_without_its_blob_is_refused(registry: Registry, lease: Lease) -> None:
    with pytest.raises(ArtefactError) as caught:
        registry.pulses.put_snapshot(FEED, 1, b"snapshot", "0" * 64, kept=9, lease=lease)
    assert caught.value.code == "missing_blob"
    assert registry.pulses.stored(FEED) == Stored()


def test_the_collector_leaves_the_snapshot(registry: Registry, lease: Lease) -> None:
    first, second = snapshot(registry, lease, 1), snapshot(registry, lease, 2)
    registry.collect_garbage(FEED, grace_s=-1)
    assert registry.get_blob(FEED, second) == b"state 2"
    with pytest.raises(ArtefactError):
        registry.get_blob(FEED, first)


def test_who_lost_the_lease_publishes_nothing(registry: Registry, lease: Lease) -> None:
    publish(registry, lease, 1)
    state = registry.put_blob(FEED, b"state")
    lease.release()
    with registry.lease(FEED, "adapt", ttl_s=30) as other:
        assert other.acquire()
        with pytest.raises(LeaseLost):
            registry.pulses.publish(FEED, 2, b"pulse 2", lease=lease)
        with pytest.raises(LeaseLost):
            registry.pulses.put_snapshot(FEED, 2, b"snapshot", state, kept=9, lease=lease)
        publish(registry, other, 2)


def test_a_waiter_wakes_up(registry: Registry, lease: Lease) -> None:
    publish(registry, lease, 1)
    timer = threading.Timer(0.2, publish, (registry, lease, 2))
    timer.start()
    assert registry.pulses.wait({FEED: 1, "other": 0}, 4.0) == {FEED}
    timer.join()


@pytest.mark.parametrize("value", [b"abc", b"-1", b"9999999999999", b"1.5"])
def test_a_damaged_number_is_told_with_its_key(
    registry: Registry, redis_client: Client, keys: Keys, value: bytes
) -> None:
    redis_client.hset(keys.fast(FEED), "number", value)
    with pytest.raises(RegistryError, match=r"fast.* cannot be read"):
        registry.pulses.stored(FEED)


def test_a_damaged_stream_is_told_with_its_key(registry: Registry, redis_client: Client, keys: Keys) -> None:
    redis_client.xadd(keys.pulses(FEED), {"nonsense": "1"}, id="7-0")
    with pytest.raises(RegistryError, match=r"pulses.* cannot be read"):
        registry.pulses.after(FEED, 0)
