"""The fast clock on a real buffer and a real Redis: what it learns, what it leaves, and where it may be killed."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from driftline.artefact.pulse import open_pulse, open_snapshot, seal_pulse
from driftline.buffer import Buffer
from driftline.config import FastConfig
from driftline.errors import BufferFull, BufferStoreError, RegistryUnavailable
from driftline.experts import Block, Partial, scoring_of
from driftline.experts.choice import mixture_of
from driftline.names import Keys
from driftline.registry import Client, Lease, Registry, connect
from learner.fast.clock import FastClock
from learner.fast.heads import Heads
from learner.fast.service import FastFeed, FastService
from learner.fast.state import pack_fast_state, unpack_fast_state
from serving.fast import FastReplica
from tests.fixtures.buffers import FEED, at, event, label
from tests.fixtures.fast_clock import follower_of
from tests.fixtures.fast_process import (
    HEAD,
    LABELS,
    NAMES,
    SECTION,
    SIGNER,
    SIZE,
    TRUST,
    Nursery,
    fill,
    open_buffer,
    shop_of,
)
from tests.fixtures.learning import Interposed
from tests.fixtures.registry import wait_until

KILLS = 50
SWITCHES = 6


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[Buffer]:
    buffer = open_buffer(tmp_path)
    yield buffer
    buffer.close()


@pytest.fixture
def lease(registry: Registry) -> Iterator[Lease]:
    with registry.lease(FEED, "adapt", ttl_s=30) as lease:
        assert lease.acquire()
        yield lease


def clock_of(buffer: Buffer, registry: Registry, lease: Lease, section: FastConfig = SECTION, **changes) -> FastClock:
    clock = FastClock(FEED, LABELS, section, replace(shop_of(buffer, registry, lease, section), **changes))
    clock.open()
    return clock


def learn_all(clock: FastClock) -> list[int]:
    return list(iter(clock.step, 0))


def replica_at(registry: Registry, labels: tuple[str, ...] = LABELS, section: FastConfig = SECTION) -> FastReplica:
    replica = FastReplica(FEED, labels, mixture_of(section), SIZE)
    follower = follower_of(registry, TRUST, replica)
    follower.sync(FEED)
    assert follower.refused == {}
    return replica


def asked() -> Block:
    features = np.random.default_rng(3).normal(size=(4, SIZE))
    texts = ("awful refund", "great lovely", "broken number 7", "nothing of it")
    return Block(texts=texts, features=Partial.full(features), head=Partial.none(4, 2), names=NAMES)


def assert_same(replica: FastReplica, clock: FastClock) -> None:
    assert replica.number == clock.state.number
    expected = mixture_of(SECTION).score(scoring_of(clock.state.experts), asked())
    assert replica.mix(asked()).logits.tobytes() == expected.logits.tobytes()


def test_what_is_due_is_learned_in_blocks_and_replicas_answer_with_it(
    buffer: Buffer, registry: Registry, lease: Lease
) -> None:
    clock = clock_of(buffer, registry, lease)
    assert clock.step() == 0
    fill(buffer, 30)
    due = buffer.fast.due_count(FEED)
    assert clock.waiting() == due
    assert learn_all(clock) == [8] * (due // 8) + ([due % 8] if due % 8 else [])
    assert (clock.waiting(), buffer.counts(FEED).features) == (0, 0)
    assert_same(replica_at(registry), clock)
    answers = replica_at(registry).mix(asked()).logits.argmax(axis=1)
    assert answers[:3].tolist() == [0, 1, 0]


def test_a_hold_out_teaches_nothing(buffer: Buffer, registry: Registry, lease: Lease) -> None:
    fill(buffer, 60)
    clock = clock_of(buffer, registry, lease)
    learned = sum(learn_all(clock))
    counts = buffer.counts(FEED)
    assert counts.holdouts
    assert learned == counts.examples - counts.holdouts
    assert clock.state.experts["mixer"].scoring["seen"].sum() == learned


def test_another_life_goes_on_bit_for_bit(buffer: Buffer, registry: Registry, lease: Lease) -> None:
    fill(buffer, 100)
    clock = clock_of(buffer, registry, lease)
    for _ in range(5):
        clock.step()
    before = pack_fast_state(clock.state)
    again = clock_of(buffer, registry, lease)
    assert pack_fast_state(again.state) == before
    again.step()
    clock_of(buffer, registry, lease)
    assert_same(replica_at(registry), again)


def test_a_label_that_was_corrected_is_learned_again(buffer: Buffer, registry: Registry, lease: Lease) -> None:
    fill(buffer, 10)
    clock = clock_of(buffer, registry, lease)
    first = sum(learn_all(clock))
    (wrong,) = buffer.ledger.fresh(FEED, 1)
    other = LABELS[1 - LABELS.index(wrong.label)]
    buffer.intake.append([label(wrong.event_id, other, 0)], {}, at(0))
    assert learn_all(clock) == [1]
    assert clock.state.experts["mixer"].scoring["seen"].sum() == first + 1


def test_examples_without_a_feature_teach_what_needs_none(buffer: Buffer, registry: Registry, lease: Lease) -> None:
    buffer.intake.append([event(f"e{i}", i, text=f"great thing {i}", label="pos") for i in range(8)], {}, at(0))
    buffer.intake.expire(at(61))
    clock = clock_of(buffer, registry, lease)
    assert sum(learn_all(clock)) == buffer.counts(FEED).fresh
    experts = clock.state.experts
    assert not experts["ridge"].scoring["weight"].any()
    assert experts["words"].scoring["weight"].any()


def test_rollback_goes_back_to_what_the_version_carries(buffer: Buffer, registry: Registry, lease: Lease) -> None:
    fill(buffer, 40)
    clock = clock_of(buffer, registry, lease)
    learn_all(clock)
    clock.follow(1)
    kept = buffer.fast.kept(FEED)
    assert kept is not None
    fill(buffer, 40, first=40)
    learn_all(clock)
    clock.follow(2)
    later = clock_of(buffer, registry, lease, fast_state=lambda version: kept.state if version == 1 else None)
    assert later.state.version == 2
    number = later.state.number
    later.follow(1)
    then = unpack_fast_state(kept.state)
    assert later.state.number == number + 1
    assert pack_states_of(later) == packed(then.experts)
    assert_same(replica_at(registry), later)
    later.follow(0)
    assert not later.state.experts["mixer"].scoring["seen"].any(), "version 0 carries none: it starts anew"
    assert_same(replica_at(registry), later)


def packed(experts: dict) -> dict[str, bytes]:
    return {
        f"{name}.{key}": array.tobytes()
        for name, one in experts.items()
        for bag in (one.scoring, one.learning)
        for key, array in sorted(bag.items())
    }


def pack_states_of(clock: FastClock) -> dict[str, bytes]:
    return packed(clock.state.experts)


def test_a_rollback_while_the_clock_was_down_is_seen(buffer: Buffer, registry: Registry, lease: Lease) -> None:
    fill(buffer, 20)
    clock = clock_of(buffer, registry, lease)
    learn_all(clock)
    clock.follow(3)
    again = clock_of(buffer, registry, lease)
    again.follow(2)
    assert not again.state.experts["mixer"].scoring["seen"].any()


def test_what_redis_was_away_for_is_published_also_while_nothing_is_learned(
    buffer: Buffer, registry: Registry, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(buffer, 20)
    clock = clock_of(buffer, registry, lease)
    learn_all(clock)
    clock.follow(3)

    def away(*_: object, **__: object) -> None:
        raise RegistryUnavailable("Redis does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(registry.pulses, "put_snapshot", away)
        patched.setattr(registry.pulses, "publish", away)
        clock.follow(0)
        assert not clock.publish()
    assert replica_at(registry).has_learned, "it still has what was rolled back"
    assert clock.publish()
    assert not replica_at(registry).has_learned
    assert_same(replica_at(registry), clock)


def test_a_disk_that_is_full_leaves_the_clock_where_it_was(
    buffer: Buffer, registry: Registry, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(buffer, 20)
    clock = clock_of(buffer, registry, lease)
    learn_all(clock)
    clock.follow(3)
    before = pack_fast_state(clock.state)

    def full(*_: object) -> None:
        raise BufferFull("no room")

    with monkeypatch.context() as patched:
        patched.setattr(buffer.fast, "keep", full)
        for version in (4, 0):
            with pytest.raises(BufferFull):
                clock.follow(version)
            assert pack_fast_state(clock.state) == before
    clock.follow(0)
    assert_same(replica_at(registry), clock)


def test_snapshots_do_not_pile_up_in_redis(
    buffer: Buffer, registry: Registry, lease: Lease, redis_client: Client, keys: Keys
) -> None:
    fill(buffer, 400)
    clock = clock_of(buffer, registry, lease)
    learn_all(clock)
    assert clock.state.number > 4 * SECTION.snapshot_pulses
    assert redis_client.zcard(keys.blobs(FEED)) == 2
    assert_same(replica_at(registry), clock)


def test_redis_that_lost_pulses_gets_a_snapshot_in_their_place(
    buffer: Buffer, registry: Registry, lease: Lease, redis_client: Client, keys: Keys
) -> None:
    fill(buffer, 60)
    clock = clock_of(buffer, registry, lease)
    clock.step()
    for name in (keys.fast(FEED), keys.pulses(FEED)):
        redis_client.delete(name)
    clock.step()
    assert_same(replica_at(registry), clock)
    clock.step()
    assert_same(replica_at(registry), clock)


def test_a_stream_that_a_hostile_hand_ran_ahead_is_started_anew(
    buffer: Buffer, registry: Registry, lease: Lease, redis_client: Client, keys: Keys
) -> None:
    fill(buffer, 60)
    clock = clock_of(buffer, registry, lease)
    replica = FastReplica(FEED, LABELS, mixture_of(SECTION), SIZE)
    follower = follower_of(registry, TRUST, replica)
    clock.step()
    follower.sync(FEED)
    redis_client.xadd(keys.pulses(FEED), {"pulse": b"junk"}, id="999999-0")
    for _ in range(3):
        clock.step()
        follower.sync(FEED)
    assert_same(replica, clock)


@pytest.mark.parametrize("number", ["999999999", "next", "no number", "99999999999999999999"])
@pytest.mark.parametrize("when", ["running", "opening", "rolling back"])
def test_a_number_that_a_hostile_hand_wrote_is_not_believed(
    buffer: Buffer, registry: Registry, lease: Lease, redis_client: Client, keys: Keys, number: str, when: str
) -> None:
    fill(buffer, 100)
    clock = clock_of(buffer, registry, lease)
    clock.follow(3)
    clock.step()
    replica = FastReplica(FEED, LABELS, mixture_of(SECTION), SIZE)
    follower = follower_of(registry, TRUST, replica)
    follower.sync(FEED)
    before = clock.state.number
    redis_client.hset(keys.fast(FEED), "number", str(before + 1) if number == "next" else number)
    follower.sync(FEED)
    assert_same(replica, clock)
    if when == "opening":
        clock = clock_of(buffer, registry, lease)
    elif when == "rolling back":
        clock.follow(2)
    for _ in range(3):
        clock.step()
        follower.sync(FEED)
        assert_same(replica, clock)
        assert follower.refused == {}
    assert clock.state.number <= before + 4
    assert buffer.fast.last_number(FEED) == clock.state.number
    assert_same(replica_at(registry), clock)


@pytest.mark.parametrize("what", ["junk", "another feed's", "an older one"])
def test_what_nobody_signed_for_this_place_is_not_ahead(
    buffer: Buffer, registry: Registry, lease: Lease, redis_client: Client, keys: Keys, what: str
) -> None:
    fill(buffer, 60)
    clock = clock_of(buffer, registry, lease)
    clock.step()
    ours = open_pulse(dict(registry.pulses.after(FEED, 0))[clock.state.number], TRUST)
    sealed = {
        "junk": b"junk",
        "another feed's": seal_pulse(replace(ours, feed="other", number=500), SIGNER),
        "an older one": seal_pulse(ours, SIGNER),
    }[what]
    redis_client.xadd(keys.pulses(FEED), {"pulse": sealed}, id="500-0")
    redis_client.hset(keys.fast(FEED), "number", 500)
    again = clock_of(buffer, registry, lease)
    again.step()
    assert again.state.number == clock.state.number + 1
    assert_same(replica_at(registry), again)


def test_signed_pulses_of_another_life_are_gone_on_from_above(
    tmp_path: Path, buffer: Buffer, registry: Registry, lease: Lease
) -> None:
    """Of two buffers that take turns the one that is behind notices it while it runs."""
    fill(buffer, 60)
    clock = clock_of(buffer, registry, lease)
    clock.step()
    folder = tmp_path / "another"
    folder.mkdir()
    another = open_buffer(folder)
    fill(another, 60)
    theirs = clock_of(another, registry, lease)
    learn_all(theirs)
    another.close()
    replica = FastReplica(FEED, LABELS, mixture_of(SECTION), SIZE)
    follower = follower_of(registry, TRUST, replica)
    follower.sync(FEED)
    for _ in range(2):
        clock.step()
        follower.sync(FEED)
        assert clock.state.number > theirs.state.number
        assert_same(replica, clock)


def test_a_buffer_that_was_restored_begins_above_what_redis_has_seen(
    tmp_path: Path, buffer: Buffer, registry: Registry, lease: Lease
) -> None:
    fill(buffer, 60)
    clock = clock_of(buffer, registry, lease)
    learn_all(clock)
    replica = FastReplica(FEED, LABELS, mixture_of(SECTION), SIZE)
    follower = follower_of(registry, TRUST, replica)
    follower.sync(FEED)
    older = tmp_path / "older"
    older.mkdir()
    restored = open_buffer(older)
    fill(restored, 20)
    again = clock_of(restored, registry, lease)
    learn_all(again)
    assert again.state.number > clock.state.number
    follower.sync(FEED)
    assert_same(replica, again)
    restored.close()


def test_two_processes_cannot_both_learn(buffer: Buffer, registry: Registry, lease: Lease) -> None:
    fill(buffer, 60)
    one, other = clock_of(buffer, registry, lease), clock_of(buffer, registry, lease)
    one.step()
    with pytest.raises(BufferStoreError, match="another process keeps this fast clock"):
        other.step()
    other.open()
    assert pack_fast_state(other.state) == pack_fast_state(one.state)


def test_other_labels_and_other_experts_keep_what_both_know(buffer: Buffer, registry: Registry, lease: Lease) -> None:
    fill(buffer, 60)
    clock = clock_of(buffer, registry, lease)
    for _ in range(3):
        clock.step()
    clock.follow(1)  # which keeps the state: what was recorded since would be learned again under the new labels
    section = SECTION.model_copy(update={"experts": ("head", "ridge", "words", "names")})
    shop = replace(shop_of(buffer, registry, lease, section), names=lambda _: None)
    shop = replace(shop, current_name=lambda name: {"neg": "bad"}.get(name, name))
    changed = FastClock(FEED, ("mixed", "pos", "bad"), section, shop)
    changed.open()
    assert changed.state.epoch != clock.state.epoch
    seen, was = (one.state.experts["mixer"].scoring["seen"] for one in (changed, clock))
    assert seen.tolist() == [0, was[1], was[0]]
    weight, before = (one.state.experts["words"].scoring["weight"] for one in (changed, clock))
    half = len(before) // 2
    assert len(weight) == half, "three classes have room for half as many buckets"
    assert weight[:, 2].tobytes() == (before[:half, 0] + before[half:, 0]).tobytes()
    assert not weight[:, 0].any()


def test_a_block_that_changes_too_much_is_halved_and_one_text_goes_as_a_snapshot(
    buffer: Buffer, registry: Registry, lease: Lease
) -> None:
    fill(buffer, 16)
    tight = SECTION.model_copy(update={"max_pulse_bytes": 1 << 12})
    clock = clock_of(buffer, registry, lease, tight)
    assert max(learn_all(clock)) < 8
    long = " ".join(f"word{i}" for i in range(1500))
    while not clock.waiting():
        long += " more"
        buffer.intake.append([event(long[-40:], 0, text=long, label="pos")], {}, at(0))
        buffer.intake.expire(at(61))
    clock.step()
    sealed, snapshot = buffer.fast.last_pulse(FEED), registry.pulses.snapshot(FEED)
    assert sealed is not None
    assert snapshot is not None
    assert len(open_pulse(sealed, TRUST).change) > tight.max_pulse_bytes
    assert registry.pulses.after(FEED, 0) == [], "the pulse itself is not there"
    assert open_snapshot(snapshot, TRUST).number == clock.state.number
    assert_same(replica_at(registry), clock)
    fill(buffer, 9, first=500)
    learn_all(clock)
    assert_same(replica_at(registry), clock)


def test_a_head_that_cannot_be_had_is_missing_from_the_mixture_only(
    buffer: Buffer, registry: Registry, lease: Lease
) -> None:
    fill(buffer, 20)
    clock = clock_of(buffer, registry, lease, heads=Heads(lambda _: None))
    learn_all(clock)
    assert (clock.state.experts["mixer"].scoring["head"] == 1.0).all()
    known = clock_of(buffer, registry, lease, heads=Heads(lambda _: HEAD))
    fill(buffer, 20, first=60)
    learn_all(known)
    assert (known.state.experts["mixer"].scoring["head"] != 1.0).any()


def test_a_registry_that_lost_its_record_takes_no_state_back(buffer: Buffer, registry: Registry, lease: Lease) -> None:
    fill(buffer, 40)
    clock = clock_of(buffer, registry, lease)
    clock.follow(3)
    feed = FastFeed(
        clock=clock,
        lease=lease,
        block_examples=8,
        block_s=0.0,
        seen_revision=lambda: buffer.ledger.seen_revision(FEED),
    )
    buffer.ledger.remember_revision(FEED, 5)
    before = pack_fast_state(clock.state)
    service, stop = FastService({FEED: feed}, registry), threading.Event()
    running = threading.Thread(target=service.run, args=(stop,))
    running.start()
    wait_until(lambda: any(FEED in one.refused for one in registry.fast_clocks()))
    (told,) = [one.refused[FEED] for one in registry.fast_clocks()]
    stop.set()
    running.join()
    assert "revision" in told
    assert pack_fast_state(clock.state) == before
    assert buffer.fast.due_count(FEED) > 0, "nothing is learned until it is mended"


class Killed(BaseException):
    """Nothing of the process runs after it."""


def killed() -> None:
    raise Killed


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["keep", "put_blob", "pulses.put_snapshot", "pulses.publish"])
def test_killed_at_any_step_of_a_switch_the_next_life_makes_it_whole(
    buffer: Buffer, registry: Registry, lease: Lease, step: str, when: str, version: int
) -> None:
    """2 is live; 1 is the way back, which begins an epoch, 3 the way on."""
    fill(buffer, 40)
    first = clock_of(buffer, registry, lease)
    learn_all(first)
    first.follow(1)
    kept = buffer.fast.kept(FEED)
    assert kept is not None
    fill(buffer, 60, first=40)
    carried = {1: kept.state}
    books, places = Interposed(buffer.fast), Interposed(registry)
    shop = replace(shop_of(buffer, registry, lease), books=books, registry=places, fast_state=carried.get)
    clock = FastClock(FEED, LABELS, SECTION, shop)
    clock.open()
    clock.follow(2)
    clock.step()
    replica = FastReplica(FEED, LABELS, mixture_of(SECTION), SIZE)
    follower = follower_of(registry, TRUST, replica)
    follower.sync(FEED)
    expected = pack_states_of(clock) if version == 3 else packed(unpack_fast_state(kept.state).experts)
    number = clock.state.number

    getattr(books if step == "keep" else places, when)(step, killed)
    with suppress(Killed):
        clock.follow(version)
        clock.publish()
        pytest.fail("it was not killed")
    follower.sync(FEED)
    again = clock_of(buffer, registry, lease, fast_state=carried.get)
    again.follow(version)
    again.publish()
    assert (again.state.version, pack_states_of(again)) == (version, expected)
    assert again.state.number == number + (version == 1), "switched once"
    follower.sync(FEED)
    assert_same(replica, again)
    learn_all(again)
    follower.sync(FEED)
    assert_same(replica, again)
    assert follower.refused == {}


@pytest.mark.parametrize("seed", [0])
def test_killed_around_rollbacks_the_state_is_that_of_an_unbroken_run(
    tmp_path: Path, redis_url: str, unique: str, seed: int
) -> None:
    draw, nursery = random.Random(seed), Nursery()
    runs = {}
    for name in ("unbroken", "killed"):
        folder, keys = tmp_path / name, Keys(f"{unique}-{name}")
        folder.mkdir()
        buffer, client = open_buffer(folder), connect(redis_url, keys.prefix)
        registry = Registry(client, keys)
        life = nursery.start(folder, redis_url, keys.prefix)

        def goes_live(version: int, revision: int, client: Client = client, keys: Keys = keys) -> None:
            client.hset(keys.live(FEED), mapping={"version": version, "revision": revision})

        def is_at(version: int, buffer: Buffer = buffer) -> bool:
            kept = buffer.fast.kept(FEED)
            return kept is not None and unpack_fast_state(kept.state).version == version

        states = []
        for turn, version in enumerate([1, 2] * SWITCHES):
            fill(buffer, 24, first=24 * turn)
            wait_until(lambda buffer=buffer: buffer.fast.due_count(FEED) == 0)
            goes_live(version, turn + 1)
            if name == "killed":
                time.sleep(draw.random() * 0.15)
                nursery.kill(life)
                client.delete(keys.lease(FEED, "adapt"))
                life = nursery.start(folder, redis_url, keys.prefix)
            wait_until(lambda version=version, is_at=is_at: is_at(version))
            kept = buffer.fast.kept(FEED)
            assert kept is not None
            state = unpack_fast_state(kept.state)
            states.append((state.number, packed(state.experts)))
            if not (carried := folder / f"fast-{version}").exists():
                carried.write_bytes(kept.state)
        nursery.kill(life)
        client.delete(keys.lease(FEED, "adapt"))
        fill(buffer, 24, first=24 * len(states))
        nursery.start(folder, redis_url, keys.prefix, until=0).join(120)
        learned = replica_at(registry)
        runs[name] = (states, learned.number, learned.mix(asked()).logits.tobytes())
        buffer.close()
        client.close()
    assert len({number for number, _ in runs["unbroken"][0]}) == 2 * SWITCHES
    assert runs["killed"] == runs["unbroken"]


@pytest.mark.parametrize("seed", [0])
def test_killed_at_any_moment_the_pulses_are_those_of_an_unbroken_run(
    tmp_path: Path, redis_url: str, unique: str, seed: int
) -> None:
    draw, nursery = random.Random(seed), Nursery()
    count = 2400
    runs = {}
    for name in ("unbroken", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        buffer = open_buffer(folder)
        fill(buffer, count)
        learnable = buffer.fast.due_count(FEED)
        prefix = f"{unique}-{name}"
        client = connect(redis_url, prefix)
        registry = Registry(client, Keys(prefix))
        pulses = {}
        kills = KILLS if name == "killed" else 0
        for life in range(kills):
            process = nursery.start(folder, redis_url, prefix)
            goal = learnable - (life + 1) * learnable // (KILLS + 2)
            while buffer.fast.due_count(FEED) > goal:
                time.sleep(0.001)
            time.sleep(draw.random() * 0.03)
            nursery.kill(process)
            client.delete(Keys(prefix).lease(FEED, "adapt"))  # it has run out, which takes no time here
            pulses |= collect(registry, pulses)
        process = nursery.start(folder, redis_url, prefix, until=0)
        process.join(120)
        assert process.exitcode == 0
        pulses |= collect(registry, pulses)
        assert buffer.fast.due_count(FEED) == 0
        learned = replica_at(registry)
        assert learned._scoring["mixer"]["seen"].sum() == learnable, "every label once"
        runs[name] = (pulses, learned.number, learned.mix(asked()).logits.tobytes())
        buffer.close()
        client.close()
    (unbroken, *_), (killed, *_) = runs["unbroken"], runs["killed"]
    assert runs["killed"][1:] == runs["unbroken"][1:]
    both = unbroken.keys() & killed.keys()
    assert len(both) >= 16
    assert all(unbroken[number] == killed[number] for number in both)
    assert len(killed) > len(unbroken), "the stream is bounded; it was read at every kill"
    marks = [open_pulse(killed[number], TRUST) for number in sorted(killed)]
    assert all(one.last_seq < two.last_seq for one, two in pairwise(marks) if one.change)


def collect(registry: Registry, known: dict[int, bytes]) -> dict[int, bytes]:
    """The pulses that are in the stream now; none of them may be another one than before."""
    found: dict[int, bytes] = {}
    while more := registry.pulses.after(FEED, max(found, default=0)):
        found |= dict(more)
    assert all(known[number] == found[number] for number in known.keys() & found.keys())
    return found
