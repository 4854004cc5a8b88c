"""What is left after every fault: killed publishers, frozen, killed and full servers."""

import itertools
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from driftline.errors import (
    RegistryUnavailable,
)
from driftline.names import Keys
from driftline.records import (
    LiveRecord,
)
from driftline.registry import Client, Registry, connect
from tests.fixtures.redis import RedisProcess
from tests.fixtures.registry import FEED, NOW, SIGNER, WHO, Publisher, everything, manifest_of, parts_for


class Died(BaseException):
    """The process ended here."""


class MortalClient(Client):
    """A redis_client whose process dies at its n-th command: before the command is sent, or after it was executed."""

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
    redis_url: str, registry: Registry, redis_client: Client, keys: Keys
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
        _restart_and_publish(registry, redis_client, keys, version, live.revision)
        dying.lease.release()
    assert survived == 4, "the steps must have covered the whole of publishing"
    assert [entry.revision for entry in registry.audit(FEED)] == list(range(1, registry.live(FEED).revision + 1))
    assert registry.versions(FEED) == list(range(1, registry.live(FEED).version + 1))


def _restart_and_publish(registry: Registry, redis_client: Client, keys: Keys, version: int, revision: int) -> None:
    """The next life of the killed learner: its lease has run out, and it publishes the same cycle again."""
    redis_client.delete(keys.lease(FEED, "learner"))
    with registry.lease(FEED, "learner", ttl_s=30) as lease:
        assert lease.acquire()
        outcome = Publisher(registry, lease).publish(manifest_of(version), revision)
        assert outcome.recorded == "promoted" or outcome.status == "promoted"
    assert (registry.live(FEED).version, registry.live(FEED).revision) == (version, revision + 1)


@pytest.fixture
def impatient(redis_process: RedisProcess) -> Iterator[Registry]:
    """The same registry through a redis_client that gives up after 0.3 s."""
    redis_client = connect(redis_process.url, "own", timeout_s=0.3)
    yield Registry(redis_client, Keys("own"))
    redis_client.close()


def test_publishing_through_a_frozen_server_happens_once(
    redis_process: RedisProcess, own: Registry, impatient: Registry
) -> None:
    with own.lease(FEED, "learner", ttl_s=60) as lease:
        assert lease.acquire()
        for version in (1, 2, 3):
            for data in parts_for(version).values():
                own.put_blob(FEED, data)
            signed = SIGNER.sign(manifest_of(version))
            redis_process.pause()
            for _ in range(3):
                with pytest.raises(RegistryUnavailable, match="does not answer"):
                    impatient.publish(signed, lease=lease, expected_revision=version - 1, at=NOW)
            redis_process.resume()
            outcome = own.publish(signed, lease=lease, expected_revision=version - 1, at=NOW)
            assert "promoted" in (outcome.status, outcome.recorded)
        assert own.versions(FEED) == [1, 2, 3]
        assert [entry.entry_id for entry in own.audit(FEED)] == ["1-0", "2-0", "3-0"]


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
def test_an_admin_verb_that_was_sent_twice_is_done_once(redis_process: RedisProcess, own: Registry, verb: str) -> None:
    with own.lease(FEED, "learner", ttl_s=60) as lease:
        assert lease.acquire()
        Publisher(own, lease).promote_up_to(2)
    redis_client = ThawingClient.from_url(redis_process.url, socket_timeout=5.0, retry=None, protocol=2)
    registry = Registry(redis_client, Keys("own"))
    calls: dict[str, Callable[[], LiveRecord]] = {
        "rollback": lambda: registry.rollback(FEED, 1, expected_revision=2, **WHO),
        "promote": lambda: registry.promote(FEED, 1, expected_revision=2, **WHO),
        "pause": lambda: registry.pause(FEED, **WHO),
        "resume": lambda: registry.resume(FEED, **WHO),
    }
    freeze_before_script(redis_process, redis_client)
    live = calls[verb]()
    assert live == own.live(FEED)
    assert len(own.audit(FEED)) == 3
    redis_client.close()


def freeze_before_script(server: RedisProcess, redis_client: ThawingClient) -> None:
    """Freeze the server just before the first script, after the reads that lead up to it."""
    redis_client.server = server
    original = redis_client.execute_command

    def execute(*args: Any, **options: Any) -> Any:
        if args[0] == "EVAL":
            redis_client.execute_command = original  # type: ignore[method-assign]
            server.pause()
        return original(*args, **options)

    redis_client.execute_command = execute  # type: ignore[method-assign]


def test_every_verb_is_retriable_while_the_server_is_gone(redis_process: RedisProcess, own: Registry) -> None:
    with own.lease(FEED, "learner", ttl_s=60) as lease:
        assert lease.acquire()
        Publisher(own, lease).promote_up_to(1)
        redis_process.stop()
        calls: list[Callable[[], object]] = [
            lambda: own.live(FEED),
            lambda: own.next_version(FEED),
            lambda: own.put_blob(FEED, b"x"),
            lambda: own.manifest(FEED, 1),
            lambda: own.pause(FEED, **WHO),
            lambda: own.wait_for_change({FEED: "1-0"}, 0.1),
            lambda: own.lease(FEED, "other", ttl_s=1).acquire(),
            lambda: own.collect_garbage(FEED),
            own.check_server,
            own.replicas,
        ]
        for call in calls:
            with pytest.raises(RegistryUnavailable) as caught:
                call()
            assert caught.value.retriable
        redis_process.start()
        assert own.live(FEED).version == 1
        assert Publisher(own, lease).publish(manifest_of(2)).status == "promoted"


def test_out_of_memory_is_retriable_writes_nothing_and_quotes_nothing(
    redis_process: RedisProcess, own: Registry
) -> None:
    redis_client = connect(redis_process.url)
    secret = b"the text of a command " * 1000
    with own.lease(FEED, "learner", ttl_s=60) as lease:
        assert lease.acquire()
        publisher = Publisher(own, lease)
        publisher.promote_up_to(1)
        for data in parts_for(2).values():
            own.put_blob(FEED, data)
        redis_client.config_set("maxmemory", "100kb")
        before = everything(redis_client, Keys("own"))
        calls: list[Callable[[], object]] = [
            lambda: own.put_blob(FEED, secret),
            lambda: own.publish(SIGNER.sign(manifest_of(2)), lease=lease, expected_revision=1, at=NOW),
            lambda: own.rollback(FEED, None, expected_revision=1, **WHO),
            lambda: own.request_update(FEED, secret.decode()),
        ]
        for call in calls:
            with pytest.raises(RegistryUnavailable, match="out of memory") as caught:
                call()
            printed = "".join(traceback.format_exception(caught.value))
            assert "the text of a command" not in printed
            assert "cycle" not in str(caught.value)
        assert everything(redis_client, Keys("own")) == before
        redis_client.config_set("maxmemory", "0")
        assert publisher.publish(manifest_of(2)).status == "promoted"
    redis_client.close()


def test_a_killed_server_keeps_every_acknowledged_version(redis_process: RedisProcess, own: Registry) -> None:
    for version in range(1, 6):
        with own.lease(FEED, "learner", ttl_s=60) as lease:
            assert lease.acquire()
            assert Publisher(own, lease).publish(manifest_of(version)).status == "promoted"
        redis_process.kill()
        redis_process.start()
        assert own.live(FEED).version == version
        assert own.get_blob(FEED, manifest_of(version).parts["body"]) == parts_for(version)["body"]
    assert [entry.revision for entry in own.audit(FEED)] == [1, 2, 3, 4, 5]
