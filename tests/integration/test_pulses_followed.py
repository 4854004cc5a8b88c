"""A replica follows pulses in a real Redis: bit for bit, from any start, past every damage, losing nothing it had."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from driftline.artefact.manifest import Signer, Trust
from driftline.artefact.pulse import seal_pulse
from driftline.errors import NotReady
from driftline.experts import Cells, scoring_of
from driftline.experts.packing import pack_changes
from driftline.names import Keys
from driftline.registry import Client, Registry
from serving import follow
from serving.fast import FastReplica
from serving.follow import Follower
from serving.seen import SeenNumbers
from tests.fixtures import fast_clock
from tests.fixtures.fast_clock import LABELS, SIZE, Clock, ThisLifeOnly, blocks, mixture
from tests.fixtures.registry import FEED, SIGNER, wait_until

ASKED, _ = next(blocks(seed=7))


@pytest.fixture
def clock(registry: Registry) -> Iterator[Clock]:
    with registry.lease(FEED, "adapt", ttl_s=30) as lease:
        assert lease.acquire()
        clock = Clock(registry, lease)
        clock.begin("first")
        yield clock


def replica_of(labels: tuple[str, ...] = LABELS) -> FastReplica:
    return FastReplica(FEED, labels, mixture(), SIZE)


def follower_of(registry: Registry, replica: FastReplica, seen: SeenNumbers | None = None) -> Follower:
    return fast_clock.follower_of(registry, Trust.of(SIGNER.public_key), replica, seen)


def assert_same(replica: FastReplica, clock: Clock) -> None:
    """The replica answers with exactly the clock's numbers."""
    expected = mixture().score(scoring_of(clock.states), ASKED)
    assert replica.number == clock.pulse.number
    assert replica.mix(ASKED).logits.tobytes() == expected.logits.tobytes()


def learn(clock: Clock, n: int, seed: int = 0, *, publish: bool = True) -> None:
    for block, targets in islice(blocks(seed), n):
        clock.learn(block, targets)
        if publish:
            clock.publish()


def test_every_pulse_arrives_bit_for_bit(registry: Registry, clock: Clock) -> None:
    replica = replica_of()
    follower = follower_of(registry, replica)
    for block, targets in islice(blocks(), 20):
        clock.learn(block, targets)
        clock.publish()
        assert follower.sync(FEED) == clock.pulse.number
        assert_same(replica, clock)
    assert replica.has_learned
    assert follower.refused == {}


def test_nothing_was_published_yet(registry: Registry) -> None:
    replica = replica_of()
    follower = follower_of(registry, replica)
    assert (follower.sync(FEED), follower.refused, replica.has_learned) == (0, {}, False)


def test_who_starts_late_starts_from_the_snapshot(registry: Registry, clock: Clock) -> None:
    learn(clock, 10)
    clock.snapshot(kept=2)
    learn(clock, 3, seed=1)
    replica = replica_of()
    follower_of(registry, replica).sync(FEED)
    assert_same(replica, clock)


def test_who_missed_trimmed_pulses_goes_on_from_the_snapshot(registry: Registry, clock: Clock) -> None:
    replica = replica_of()
    follower = follower_of(registry, replica)
    learn(clock, 2)
    follower.sync(FEED)
    learn(clock, 30, seed=1)
    clock.snapshot(kept=3)
    learn(clock, 1, seed=2)
    follower.sync(FEED)
    assert_same(replica, clock)


def test_a_snapshot_alone_is_followed_too(registry: Registry, clock: Clock) -> None:
    """After Redis was away for several pulses a snapshot goes in their place, and the next label may be hours off."""
    replica = replica_of()
    follower = follower_of(registry, replica)
    follower.sync(FEED)
    learn(clock, 5, publish=False)
    clock.snapshot()
    follower.sync(FEED)
    assert_same(replica, clock)


def test_a_new_epoch_takes_over(registry: Registry, clock: Clock) -> None:
    replica = replica_of()
    follower = follower_of(registry, replica)
    learn(clock, 3)
    follower.sync(FEED)
    clock.states = mixture().start(3, SIZE)
    clock.begin("second")
    learn(clock, 2, seed=5)
    follower.sync(FEED)
    assert_same(replica, clock)


def test_falling_back_and_coming_again_is_told(registry: Registry, clock: Clock) -> None:
    replica = replica_of()
    follower = follower_of(registry, replica)
    for fell_back, (block, targets) in zip((True, True, False), blocks(), strict=False):
        clock.learn(block, targets, fell_back=fell_back)
        clock.publish()
        follower.sync(FEED)
        assert replica.fell_back == fell_back


def test_a_pulse_is_seen_whole_once_it_is_taken_and_not_before(registry: Registry, clock: Clock) -> None:
    replica = replica_of()
    follower_of(registry, replica).sync(FEED)
    block, targets = next(blocks(seed=3))
    wrong = Clock(registry, clock.lease, mixture().start(3, SIZE), clock.pulse).learn(block, targets[::-1])
    before = replica.mix(ASKED).logits.tobytes()
    replica.stage(replica.read(wrong))
    assert (replica.mix(ASKED).logits.tobytes(), replica.number) == (before, 1)
    replica.stage(replica.read(clock.learn(block, targets)))
    replica.take()
    assert_same(replica, clock)


def test_where_mixing_could_not_be_held_nothing_happened(registry: Registry, clock: Clock) -> None:
    replica, refusals = replica_of(), iter([NotReady("not now")])

    def exclusively(work: Callable[[], None]) -> None:
        if replica.number and (refusal := next(refusals, None)) is not None:
            raise refusal
        work()

    follower = Follower(registry, Trust.of(SIGNER.public_key), {FEED: replica}, exclusively, ThisLifeOnly())
    follower.sync(FEED)
    before = replica.mix(ASKED).logits.tobytes()
    learn(clock, 2)
    assert (follower.sync(FEED), replica.mix(ASKED).logits.tobytes()) == (1, before)
    assert "not now" in follower.refused[FEED]
    follower.sync(FEED)
    assert_same(replica, clock)
    assert follower.refused == {}


def put_in_place(registry: Registry, clock: Clock, sealed: bytes) -> None:
    """Another hand's bytes where the next pulse will stand."""
    number = clock.pulse.number + 1
    assert registry.pulses.publish(FEED, number, sealed, lease=clock.lease)


def bad_pulses(clock: Clock) -> dict[str, bytes]:
    block, targets = next(blocks(seed=3))
    good = Clock(clock.registry, clock.lease, mixture().start(3, SIZE), clock.pulse).learn(block, targets)
    nan = {"mixer": {"bias": np.full(3, np.nan)}}
    outside = {"words": {"weight": Cells(places=np.array([10**9]), values=np.ones(1, np.float32))}}
    return {
        "bad_signature": _flipped(seal_pulse(good, SIGNER)),
        "unreadable": b"\xc1 nothing",
        "untrusted_key": seal_pulse(good, Signer(Ed25519PrivateKey.generate())),
        "out_of_place": seal_pulse(replace(good, before=b"another"), SIGNER),
        "another feed": seal_pulse(replace(good, feed="other"), SIGNER),
        "another number": seal_pulse(replace(good, number=good.number + 1), SIGNER),
        "not_finite": seal_pulse(replace(good, change=pack_changes(nan)), SIGNER),
        "wrong_shape": seal_pulse(replace(good, change=pack_changes(outside)), SIGNER),
        "no safetensors": seal_pulse(replace(good, change=b"nonsense"), SIGNER),
    }


def _flipped(sealed: bytes) -> bytes:
    """One bit of the signature, which stands before the key's id."""
    return sealed[:-40] + bytes([sealed[-40] ^ 1]) + sealed[-39:]


@pytest.mark.parametrize(
    "kind",
    [
        "bad_signature",
        "unreadable",
        "untrusted_key",
        "out_of_place",
        "another feed",
        "another number",
        "not_finite",
        "wrong_shape",
        "no safetensors",
    ],
)
def test_a_bad_pulse_changes_nothing_and_the_next_snapshot_leads_on(
    registry: Registry, clock: Clock, kind: str
) -> None:
    replica = replica_of()
    follower = follower_of(registry, replica)
    learn(clock, 4)
    follower.sync(FEED)
    before = replica.mix(ASKED).logits.tobytes()
    put_in_place(registry, clock, bad_pulses(clock)[kind])
    for _ in range(2):
        assert follower.sync(FEED) == clock.pulse.number
        assert replica.mix(ASKED).logits.tobytes() == before
    assert kind not in ("bad_signature", "untrusted_key", "not_finite", "wrong_shape") or kind in follower.refused[FEED]
    assert follower.refused
    learn(clock, 2, seed=9, publish=False)
    clock.snapshot()
    follower.sync(FEED)
    assert_same(replica, clock)
    assert follower.refused == {}


@pytest.mark.usefixtures("clock")
def test_a_forged_snapshot_is_refused(registry: Registry, redis_client: Client, keys: Keys) -> None:
    redis_client.hset(keys.fast(FEED), "snapshot", b"forged")
    replica = replica_of()
    follower = follower_of(registry, replica)
    assert follower.sync(FEED) == 0
    assert "unreadable" in follower.refused[FEED]


def test_a_state_of_other_labels_is_refused_with_the_remedy(registry: Registry, clock: Clock) -> None:
    learn(clock, 1)
    replica = replica_of(("no", "yes"))
    follower = follower_of(registry, replica)
    assert follower.sync(FEED) == 0
    assert "adapt and serve need the same config" in follower.refused[FEED]


def test_an_older_redis_takes_nothing_away(registry: Registry, clock: Clock, redis_client: Client, keys: Keys) -> None:
    replica = replica_of()
    follower = follower_of(registry, replica)
    learn(clock, 6)
    follower.sync(FEED)
    redis_client.delete(keys.pulses(FEED))
    redis_client.hset(keys.fast(FEED), "number", 2)
    follower.sync(FEED)
    assert_same(replica, clock)
    assert "registry_lost" in follower.refused[FEED]


@pytest.fixture
def fetched(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The blobs that were asked for."""
    names: list[str] = []
    get_blob = registry.get_blob

    def counted(feed: str, sha256: str) -> bytes:
        names.append(sha256)
        return get_blob(feed, sha256)

    monkeypatch.setattr(registry, "get_blob", counted)
    return names


class Life:
    """One of several lives of the same replica."""

    def __init__(self, registry: Registry, folder: Path) -> None:
        self.replica = replica_of()
        self.follower = follower_of(registry, self.replica, SeenNumbers(folder / "serve-a.pulses.json"))
        self.follower.sync(FEED)


def test_a_replica_that_starts_again_takes_nothing_older_and_says_the_way_out(
    registry: Registry, clock: Clock, redis_client: Client, keys: Keys, tmp_path: Path, fetched: list[str]
) -> None:
    """A hand that can write to Redis plays an older snapshot and its pulses again, all of them signed."""
    learn(clock, 2)
    clock.snapshot()
    learn(clock, 2, seed=1)
    fast, pulses = redis_client.hgetall(keys.fast(FEED)), redis_client.xrange(keys.pulses(FEED))
    learn(clock, 3, seed=2)
    first = Life(registry, tmp_path)
    assert_same(first.replica, clock)
    again = Life(registry, tmp_path)
    assert_same(again.replica, clock)
    redis_client.hset(keys.fast(FEED), mapping=fast)
    redis_client.delete(keys.pulses(FEED))
    for number, entry in pulses:
        redis_client.xadd(keys.pulses(FEED), entry, id=number)

    fetched.clear()
    later = Life(registry, tmp_path)
    later.follower.sync(FEED)
    assert (later.replica.number, later.replica.has_learned) == (0, False)
    assert len(fetched) == 1, "not twice a second"
    refused = later.follower.refused[FEED]
    assert refused.startswith("registry_lost: feed reviews is at pulse 5, but pulse 8 was seen before")
    assert f"remove {tmp_path / 'serve-a.pulses.json'}" in refused
    assert "registry_lost" not in first.follower.refused
    assert (first.follower.sync(FEED), "registry_lost" in first.follower.refused[FEED]) == (8, True)

    learn(clock, 1, seed=3, publish=False)
    clock.snapshot()
    clock.publish()
    for life in (first, later):
        life.follower.sync(FEED)
        assert_same(life.replica, clock)
        assert life.follower.refused == {}


def test_a_registry_that_began_anew_is_followed_once_the_file_is_removed(
    registry: Registry, clock: Clock, redis_client: Client, keys: Keys, tmp_path: Path
) -> None:
    learn(clock, 5)
    Life(registry, tmp_path)
    redis_client.delete(keys.pulses(FEED), keys.fast(FEED))
    clock.begin("another")
    assert Life(registry, tmp_path).replica.number == 0
    (tmp_path / "serve-a.pulses.json").unlink()
    assert_same(Life(registry, tmp_path).replica, clock)


def test_who_starts_again_stays_silent_until_it_is_where_it_was(
    registry: Registry, clock: Clock, redis_client: Client, keys: Keys, tmp_path: Path
) -> None:
    """A snapshot is always older than the last pulse; alone it is an older state."""
    learn(clock, 5)
    Life(registry, tmp_path)
    whole = redis_client.xrange(keys.pulses(FEED))
    redis_client.xdel(keys.pulses(FEED), whole[-2][0])
    later = Life(registry, tmp_path)
    assert later.replica.number == 0
    assert "out_of_place" in later.follower.refused[FEED]
    redis_client.delete(keys.pulses(FEED))
    for number, entry in whole:
        redis_client.xadd(keys.pulses(FEED), entry, id=number)
    later.follower.sync(FEED)
    assert_same(later.replica, clock)


@pytest.mark.usefixtures("clock")
def test_a_snapshot_of_other_labels_is_not_even_fetched(registry: Registry, fetched: list[str]) -> None:
    follower = follower_of(registry, replica_of(("no", "yes")))
    follower.sync(FEED)
    assert "wrong_task" in follower.refused[FEED]
    assert fetched == []


def test_a_snapshot_that_was_refused_is_fetched_once(registry: Registry, clock: Clock, fetched: list[str]) -> None:
    replica = replica_of()
    follower = follower_of(registry, replica)
    good, clock.states = clock.states, mixture().start(4, SIZE)
    clock.pulse = replace(clock.pulse, number=2)
    clock.snapshot()
    for _ in range(3):
        follower.sync(FEED)
        assert "wrong_shape" in follower.refused[FEED]
    assert len(fetched) == 1
    clock.states = good
    clock.snapshot()
    follower.sync(FEED)
    assert_same(replica, clock)
    assert len(fetched) == 2


def test_a_damaged_snapshot_is_fetched_again_after_a_while(
    registry: Registry,
    clock: Clock,
    fetched: list[str],
    redis_client: Client,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replica = replica_of()
    follower = follower_of(registry, replica)
    blob = registry.pulses.snapshot_blob(FEED)
    assert blob is not None
    whole = redis_client.hget(keys.blob(FEED, blob), "0")
    redis_client.hset(keys.blob(FEED, blob), "0", whole[:-1] + b"?")
    for _ in range(3):
        follower.sync(FEED)
        assert "hash_mismatch" in follower.refused[FEED]
    redis_client.hset(keys.blob(FEED, blob), "0", whole)
    follower.sync(FEED)
    assert (len(fetched), replica.number) == (1, 0)
    later = time.monotonic() + follow.MENDED_S
    monkeypatch.setattr(follow.time, "monotonic", lambda: later)
    follower.sync(FEED)
    assert_same(replica, clock)


def test_the_thread_follows_within_a_moment_and_stops(registry: Registry, clock: Clock) -> None:
    replica = replica_of()
    follower, stop = follower_of(registry, replica), threading.Event()
    thread = threading.Thread(target=follower.run, args=(stop,))
    thread.start()
    learn(clock, 5)
    wait_until(lambda: replica.number == clock.pulse.number or registry.pulses.stored(FEED) is None, 30)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert_same(replica, clock)
