"""The learner's service: ticks, requests, pauses, outages, a second process, and the watchdog."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from driftline import metrics
from driftline.base import Base, load_base
from driftline.cli.status import collect
from driftline.config import BaseModelConfig, parse_config
from driftline.errors import ConfigError
from driftline.journal import Journal
from driftline.names import Keys
from driftline.registry import Registry, connect
from learner import service
from learner.cycle import Learner
from learner.service import FeedLearner, LearnerService
from tests.fixtures.learner_process import Nursery
from tests.fixtures.learning import FEED, LABELS, START, Interposed, School, section
from tests.fixtures.redis import RedisProcess
from tests.fixtures.replicas import eventually

WHO: dict[str, Any] = {"actor": "ana", "reason": "test", "at": START}
OFTEN: dict[str, Any] = {"schedule": {"every_s": 0.2}}
NEVER: dict[str, Any] = {"schedule": {"every_s": 86400}}


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu", max_tokens=64))


@pytest.fixture(scope="module")
def nursery(tiny_base_dir: Path) -> Iterator[Nursery]:
    nursery = Nursery(tiny_base_dir)
    yield nursery
    nursery.close()


class Running:
    """A service in a thread of this process. `error`: what `run` raised."""

    def __init__(
        self,
        school: School,
        journal: Journal,
        beside: dict[str, FeedLearner] | None = None,
        before_it_starts: Callable[[], Any] = lambda: None,
        **learner: Any,
    ) -> None:
        made = school.learner(**learner)
        made.lease.release()  # the service takes it itself
        before_it_starts()
        feeds = {FEED: FeedLearner(section=school.section, learner=made, lease=made.lease)} | (beside or {})
        self.service = LearnerService(feeds, school.registry, journal)
        self.stop, self.error = threading.Event(), None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.service.run(self.stop)
        except BaseException as error:  # noqa: BLE001
            self.error = error

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        self.stop.set()
        self._thread.join()


@contextmanager
def running(school: School, journal: Journal, **learner: Any) -> Iterator[Running]:
    made = Running(school, journal, **learner)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def journal(redis_url: str, unique: str) -> Iterator[Journal]:
    client = connect(redis_url, unique)
    yield Journal(client, Keys(unique))
    client.close()


@pytest.fixture
def make(registry: Registry, base: Base, tmp_path: Path) -> Iterator[Any]:
    schools: list[School] = []

    def made(**changes: Any) -> School:
        schools.append(School(folder=tmp_path / "school", registry=registry, base=base, section=section(**changes)))
        return schools[-1]

    yield made
    for school in schools:
        school.close()


def test_ticks_start_cycles_and_the_journal_tells(make: Any, journal: Journal) -> None:
    school = make(**OFTEN)
    before = metrics.LEARNER.get_sample_value("driftline_scheduler_jobs_total", {"outcome": "executed"}) or 0
    with running(school, journal):
        school.add(60)
        assert eventually(lambda: school.live() == 1)
        school.add(60)
        assert eventually(lambda: school.live() == 2)
        assert eventually(lambda: len(school.buffer.exams.matrix(FEED)) == 3), "full segments are closed meanwhile"
    entries = journal.read()
    assert [(entry.kind, entry.fields["version"], entry.fields["outcome"]) for entry in entries] == [
        ("cycle", 1, "promoted"),
        ("cycle", 2, "promoted"),
    ]
    assert "good" not in json.dumps([entry.fields for entry in entries])
    assert metrics.LEARNER.get_sample_value("driftline_scheduler_jobs_total", {"outcome": "executed"}) > before


def test_an_asked_update_needs_one_example_and_waits_for_no_tick(make: Any, journal: Journal) -> None:
    school = make(**NEVER)
    with running(school, journal):
        while not school.fresh():
            school.add(1)
        school.registry.request_update(FEED, "ana")
        assert eventually(lambda: school.live() == 1)
        assert eventually(lambda: school.registry.update_request(FEED) is None)


def test_an_asked_update_outlives_the_process_that_began_it(make: Any, journal: Journal) -> None:
    def crash() -> None:
        raise KeyboardInterrupt

    school = make(**NEVER)
    school.add(60)
    school.registry.request_update(FEED, "ana")
    buffer = Interposed(school.buffer)
    buffer.before("ledger.take", crash)
    with running(school, journal, buffer=buffer) as service:
        assert eventually(lambda: not service.alive)
    assert isinstance(service.error, KeyboardInterrupt)
    with running(school, journal):
        assert eventually(lambda: school.live() > 0)


def test_an_open_cycle_is_resumed_without_a_tick(make: Any, journal: Journal) -> None:
    school = make(**NEVER)
    school.add(60)
    learner = school.learner()
    learner._publisher.publish = None  # type: ignore[method-assign,assignment]
    with pytest.raises(TypeError):
        learner.turn()
    learner.lease.release()
    with running(school, journal):
        assert eventually(lambda: school.live() == 1)


def test_paused_it_takes_nothing_and_what_overflows_goes_to_replay(make: Any, journal: Journal) -> None:
    school = make(**OFTEN)
    school.registry.pause(FEED, **WHO)
    with running(school, journal, keep_waiting=20):
        school.add(80)
        assert eventually(lambda: len(school.fresh()) == 20)
        assert school.buffer.ledger.cycles(FEED) == []
        school.registry.resume(FEED, **WHO)
        assert eventually(lambda: school.live() == 1)
    assert school.buffer.counts(FEED).remembered > 0


def test_redis_away_for_a_while_ends_nothing_and_loses_no_tick(
    redis_process: RedisProcess, base: Base, tmp_path: Path
) -> None:
    client = connect(redis_process.url, timeout_s=0.5)
    school = School(
        folder=tmp_path / "school",
        registry=Registry(client, Keys()),
        base=base,
        section=section(schedule={"every_s": 1}),
    )
    with running(school, Journal(client, Keys())) as service:
        school.add(60)
        assert eventually(lambda: school.live() == 1)
        redis_process.stop()
        school.add(60)
        assert eventually(lambda: service.service._ticks[FEED] > service.service._ticks_served[FEED] + 1)
        assert service.alive
        redis_process.start()
        assert eventually(lambda: school.live() == 2)
    assert service.error is None
    school.close()
    client.close()


def test_a_lost_live_record_stops_the_feed_not_the_process_and_it_goes_on_once_it_is_back(
    redis_process: RedisProcess, base: Base, tmp_path: Path
) -> None:
    client = connect(redis_process.url)
    school = School(folder=tmp_path / "school", registry=Registry(client, Keys()), base=base, section=section(**OFTEN))
    with running(school, Journal(client, Keys())) as service:
        school.add(60)
        assert eventually(lambda: school.live() == 1)
        kept = client.dump(Keys().live(FEED))
        client.delete(Keys().live(FEED))
        assert eventually(lambda: "registry_lost" in school.registry.stopped_feeds().get(FEED, ""))
        assert service.alive
        client.restore(Keys().live(FEED), 0, kept)
        school.add(60)
        assert eventually(lambda: school.live() == 2)
        assert eventually(lambda: school.registry.stopped_feeds() == {})
    assert service.error is None
    school.close()
    client.close()


def test_a_config_that_fits_no_feed_ends_the_process(make: Any, journal: Journal) -> None:
    """It is read at the start only, so that nothing can be mended before the next one."""
    school = make(**NEVER)
    school.add(60)
    learner = Interposed(school.learner())
    learner._inner.lease.release()

    def refuse() -> None:
        raise ConfigError("labels: no")

    learner.before("keep_house", refuse)
    feed = FeedLearner(section=school.section, learner=cast(Learner, learner), lease=learner._inner.lease)
    made = LearnerService({FEED: feed}, school.registry, journal)
    with pytest.raises(ConfigError, match="labels: no"):
        made.run(threading.Event())


def set_to(name: str, value: bytes) -> Any:
    return lambda client, keys: client.set(getattr(keys, name)(*LEASED.get(name, (FEED,))), value)


LEASED = {"fence": (FEED, "learner"), "lease": (FEED, "learner")}
DAMAGES = {
    "update request no UTF-8": ("update_request", set_to("update_request", b"\xff\xfe ana"), "update-now"),
    "update request of another type": ("update_request", lambda c, k: c.hset(k.update_request(FEED), "a", 1), "TYPE"),
    "counter no number": ("version_counter", set_to("version_counter", b"abc"), "SET"),
    "counter beyond all": ("version_counter", set_to("version_counter", b"9223372036854775807"), "SET"),
    "counter of another type": ("version_counter", lambda c, k: c.hset(k.version_counter(FEED), "a", 1), "WRONGTYPE"),
    "fence at its end": ("fence", set_to("fence", b"9223372036854775807"), "SET"),
    "fence no number": ("fence", set_to("fence", b"abc"), "SET"),
    "lease of another type": ("lease", set_to("lease", b"abc"), "WRONGTYPE"),
    "revision no number": ("live", lambda c, k: c.hset(k.live(FEED), "revision", "abc"), "restore"),
    "revision beyond all": ("live", lambda c, k: c.hset(k.live(FEED), "revision", "9000000000000000"), "restore"),
    "live of another type": ("live", set_to("live", b"abc"), "WRONGTYPE"),
    "manifests of another type": ("manifests", set_to("manifests", b"abc"), "WRONGTYPE"),
    "cycles of another type": ("cycles", set_to("cycles", b"abc"), "WRONGTYPE"),
    "audit of another type": ("audit", set_to("audit", b"abc"), "WRONGTYPE"),
    "blobs of another type": ("blobs", set_to("blobs", b"abc"), "WRONGTYPE"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_damaged_in_redis_is_told_stops_its_feed_and_goes_on_once_mended(
    damage: str, make: Any, journal: Journal, redis_url: str, unique: str
) -> None:
    """Every feed there is was hit, the process lives on, and nobody restarts it."""
    name, spoil, remedy = DAMAGES[damage]
    school, keys, client = make(**NEVER), Keys(unique), connect(redis_url, unique)
    school.add(60)
    learner = school.learner()
    assert learner.turn() is not None
    learner.lease.release()
    key = getattr(keys, name)(*LEASED.get(name, (FEED,)))
    kept = client.dump(key)

    def hit() -> None:
        if "another type" in damage:
            client.delete(key)
        spoil(client, keys)

    with running(school, journal, before_it_starts=hit) as service:
        school.add(60)
        if name != "update_request":
            school.registry.request_update(FEED, "ana")
        assert eventually(lambda: key in school.registry.stopped_feeds().get(FEED, ""))
        assert remedy in school.registry.stopped_feeds()[FEED]
        assert service.alive
        client.delete(key)
        if kept is not None:
            client.restore(key, 0, kept)
        school.registry.request_update(FEED, "ana")
        assert eventually(lambda: school.live() >= 2)
        assert eventually(lambda: school.registry.stopped_feeds() == {})
    assert service.error is None
    client.close()


@pytest.mark.parametrize("fence", [b"1000", b"0"])
def test_a_fence_that_jumps_costs_a_lease_and_no_more(
    fence: bytes, make: Any, journal: Journal, redis_url: str, unique: str
) -> None:
    school, client = make(**OFTEN), connect(redis_url, unique)
    with running(school, journal) as service:
        school.add(60)
        assert eventually(lambda: school.live() == 1)
        client.set(Keys(unique).fence(FEED, "learner"), fence)
        school.add(60)
        assert eventually(lambda: school.live() >= 2)
    assert service.error is None
    client.close()


def test_a_version_counter_that_was_set_back_skips_what_is_registered(
    make: Any, journal: Journal, redis_url: str, unique: str
) -> None:
    """By an import say, of which the buffer knows nothing."""
    school, client = make(**OFTEN), connect(redis_url, unique)
    learner = school.learner()
    for _ in range(2):
        school.add(60)
        assert learner.turn() is not None
    learner.lease.release()
    client.hset(Keys(unique).manifests(FEED), "3", client.hget(Keys(unique).manifests(FEED), "2"))
    client.set(Keys(unique).version_counter(FEED), 1)
    with running(school, journal) as service:
        school.add(60)
        assert eventually(lambda: school.live() == 4)
    assert service.error is None
    client.close()


class Idle:
    """Another feed's learner that never has anything to do."""

    def missed_tick(self) -> bool:
        return False

    def has_open_cycle(self) -> bool:
        return False

    def keep_house(self) -> None: ...

    def turn(self, **_: Any) -> None: ...


def idle(school: School) -> FeedLearner:
    lease = school.registry.lease("other", "learner", ttl_s=60)
    return FeedLearner(section=school.section, learner=cast(Learner, Idle()), lease=lease)


def learned_and_lost(school: School, versions: int, redis_url: str, prefix: str) -> None:
    """So many versions were learned, and Redis lost the body of the last one."""
    learner = school.learner()
    for _ in range(versions):
        school.add(60)
        assert learner.turn() is not None
    learner.lease.release()
    client = connect(redis_url, prefix)
    client.delete(Keys(prefix).blob(FEED, school.parts(versions)["body"]))
    client.close()


def test_a_stopped_feed_is_told_and_tried_again_after_a_rollback(
    make: Any, journal: Journal, redis_url: str, unique: str, tmp_path: Path
) -> None:
    school = make(**OFTEN)
    learned_and_lost(school, 2, redis_url, unique)
    school.add(60)
    document = {"redis": {"url": redis_url, "prefix": unique}, "feed": {FEED: {"labels": list(LABELS)}}}
    config = parse_config(document, root=tmp_path / "elsewhere")
    with running(school, journal, beside={"other": idle(school)}) as service:
        assert eventually(lambda: FEED in school.registry.stopped_feeds())
        found = collect(config, [FEED])
        assert "is not (wholly) in the registry" in found["feeds"][FEED]["stopped"]
        assert "the learner stopped this feed" in found["feeds"][FEED]["awaited"]
        assert found["replicas"] == [], "a learner is none"
        school.registry.rollback(FEED, 1, expected_revision=2, **WHO)
        school.registry.resume(FEED, **WHO)
        assert eventually(lambda: school.live() > 2)
        assert service.alive
        assert eventually(lambda: collect(config, [FEED])["feeds"][FEED]["stopped"] is None)


def test_a_stopped_feed_keeps_its_share_waiting_and_the_rest_goes_to_replay(
    make: Any, journal: Journal, redis_url: str, unique: str
) -> None:
    school = make(**NEVER)
    learned_and_lost(school, 1, redis_url, unique)
    other = school.registry.lease(FEED, "learner", ttl_s=60)
    with running(school, journal, beside={"other": idle(school)}, keep_waiting=20) as service:
        school.registry.request_update(FEED, "ana")
        school.add(20)
        assert eventually(lambda: FEED in school.registry.stopped_feeds())
        assert eventually(other.acquire), "a stopped feed's lease is free"
        school.add(80)
        waiting = school.fresh()
        assert len(waiting) > 20
        assert school.fresh() == waiting, "whoever holds the lease may be learning them"
        other.release()
        assert eventually(lambda: len(school.fresh()) == 20)
        assert school.fresh() == waiting[-20:]
        assert eventually(other.acquire)
        assert service.alive
        assert FEED in school.registry.stopped_feeds()
    other.release()
    assert school.buffer.counts(FEED).retired == len(waiting) - 20


def test_a_rollback_while_the_turn_fails_is_no_change_missed(
    make: Any, journal: Journal, redis_url: str, unique: str
) -> None:
    school = make(**OFTEN)
    learned_and_lost(school, 2, redis_url, unique)
    registry = Interposed(school.registry)

    def roll_back() -> None:
        school.registry.rollback(FEED, 1, expected_revision=2, **WHO)
        school.registry.resume(FEED, **WHO)

    registry.before("get_part", roll_back)
    school.add(60)
    with running(school, journal, beside={"other": idle(school)}, registry=registry):
        assert eventually(lambda: school.live() > 2)


def test_stopped_it_gives_its_lease_back(make: Any, journal: Journal) -> None:
    school = make(**NEVER)
    other = school.registry.lease(FEED, "learner", ttl_s=60)
    with running(school, journal) as service:
        lease = service.service._feeds[FEED].lease
        assert eventually(lambda: lease.held)
        assert not other.acquire()
    assert other.acquire()
    other.release()


def test_a_learner_says_once_that_it_stands_by_and_once_that_it_takes_over(
    make: Any, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "POLL_S", 0.01)
    school, refused = make(**NEVER), []
    other = school.registry.lease(FEED, "learner", ttl_s=60)
    assert other.acquire()

    def told() -> list[str]:
        return [log["event"] for log in logs if log["event"] in ("standing_by", "took_over") and log["feed"] == FEED]

    with capture_logs() as logs, running(school, journal) as learner:
        lease = learner.service._feeds[FEED].lease
        acquire = lease.acquire
        monkeypatch.setattr(lease, "acquire", lambda: acquire() or bool(refused.append(1)))
        assert eventually(lambda: len(refused) > 3)
        assert told() == ["standing_by"]
        other.release()
        assert eventually(lambda: lease.held)
    assert told() == ["standing_by", "took_over"]


def test_of_two_processes_one_stands_by_and_takes_over(
    make: Any, nursery: Nursery, redis_url: str, unique: str
) -> None:
    school = make(**OFTEN)
    order = {"folder": str(school.folder), "redis": redis_url, "prefix": unique, "service": True, "section": OFTEN}
    first = nursery.start(**order)
    assert first.hears("ready")
    second = nursery.start(**order)
    assert second.hears("ready")
    school.add(60)
    assert eventually(lambda: school.live() == 1)
    first.kill()
    school.add(60)
    assert eventually(lambda: school.live() == 2)
    third = nursery.start(**order)
    school.add(60)
    assert eventually(lambda: school.live() == 3)
    assert second.stop() == 0
    school.add(60)
    assert eventually(lambda: school.live() == 4)
    assert third.stop() == 0
    assert [entry.version for entry in school.registry.audit(FEED)] == [1, 2, 3, 4]
    assert [row.outcome for row in school.buffer.ledger.cycles(FEED)] == ["promoted"] * 4


def test_a_hung_cycle_ends_the_process_with_its_own_code(
    make: Any, nursery: Nursery, redis_url: str, unique: str
) -> None:
    school = make()
    changes = {"schedule": {"every_s": 0.2}, "learner": {"max_cycle_s": 1.0}}
    child = nursery.start(
        folder=str(school.folder), redis=redis_url, prefix=unique, service=True, section=changes, hang_s=600
    )
    assert child.wait() == 70
