"""The server and its users: settings, URLs, heartbeats, update requests, and the journal."""

from datetime import UTC, datetime

import pytest

from driftline.errors import (
    ConfigError,
    DriftlineError,
    RegistryError,
    RegistryUnavailable,
)
from driftline.journal import Journal
from driftline.names import Keys
from driftline.records import (
    ReplicaStatus,
)
from driftline.registry import Client, Registry, connect
from driftline.registry.replies import server_problems
from tests.fixtures.redis import RedisProcess
from tests.fixtures.registry import FEED, NOW


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


def test_replicas_are_known_while_they_beat(registry: Registry, redis_client: Client, keys: Keys) -> None:
    registry.heartbeat(replica("b"))
    registry.heartbeat(replica("a", 1))
    registry.heartbeat(replica("a", 2))
    assert registry.replicas() == [replica("a", 2), replica("b")], "by the server's clock, whatever the replica's says"
    _age(redis_client, keys, b"serve:b", seconds=6)
    assert [status.replica for status in registry.replicas()] == ["a"]
    _age(redis_client, keys, b"serve:b", seconds=3601)
    registry.heartbeat(replica("a"))
    assert redis_client.hkeys(keys.replicas()) == [b"serve:a"]


def _age(redis_client: Client, keys: Keys, name: bytes, seconds: int) -> None:
    _, _, document = redis_client.hget(keys.replicas(), name).partition(b" ")
    redis_client.hset(keys.replicas(), name, b"%d %b" % ((redis_client.time()[0] - seconds) * 1000, document))


def test_a_request_for_an_update_stays_until_it_is_met(registry: Registry) -> None:
    assert registry.update_request(FEED) is None
    registry.request_update(FEED, "ana")
    first = registry.update_request(FEED)
    assert first == registry.update_request(FEED)
    assert first is not None
    registry.request_update(FEED, "ana")
    registry.clear_update_request(FEED, first)
    second = registry.update_request(FEED)
    assert second is not None, "asked for while the first was being met"
    registry.clear_update_request(FEED, second)
    registry.clear_update_request(FEED, second)
    assert registry.update_request(FEED) is None


def test_the_journal_keeps_the_newest(redis_client: Client, keys: Keys) -> None:
    journal = Journal(redis_client, keys)
    for number in range(5):
        assert journal.append("cycle", feed=FEED, version=number, at_stream_time=NOW)
    entries = journal.read(2)
    assert [entry.fields["version"] for entry in entries] == [3, 4]
    assert entries[0].kind == "cycle"
    assert entries[0].fields["at_stream_time"] == "2026-11-22T08:00:00Z"
    assert journal.read(100)[0].entry_id < entries[0].entry_id


def test_the_journal_never_stops_the_work(redis_process: RedisProcess) -> None:
    redis_client = connect(redis_process.url, timeout_s=0.3)
    journal = Journal(redis_client, Keys("own"))
    redis_process.stop()
    assert journal.append("cycle", version=1) is False
    redis_client.close()


def test_our_own_server_has_no_problems(registry: Registry) -> None:
    assert registry.check_server() == []


def test_wrong_settings_are_told_with_the_remedy(redis_process: RedisProcess, own: Registry) -> None:
    redis_client = connect(redis_process.url)
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    redis_client.config_set("appendonly", "no")
    problems = own.check_server()
    assert any("allkeys-lru" in problem and "CONFIG SET maxmemory-policy noeviction" in problem for problem in problems)
    assert any("CONFIG SET appendonly yes" in problem for problem in problems)
    assert any("too old" in problem for problem in server_problems({"redis_version": "4.0.9", "aof_enabled": "1"}))
    redis_client.close()


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
        redis_client = connect(f"unix://{user}@{address}")
        registry = Registry(redis_client, Keys("own"))
        if refused:
            with pytest.raises(RegistryError, match="check the password") as caught:
                registry.live(FEED)
            assert not caught.value.retriable
        else:
            assert registry.live(FEED).version == 0
            assert registry.wait_for_change({FEED: "0-0"}, 0.05) == {}
            with pytest.raises(RegistryError, match="refuses this user"):
                registry.next_version(FEED)
        redis_client.close()
    admin.close()


def test_another_programs_keys_are_told_apart(registry: Registry, redis_client: Client, keys: Keys) -> None:
    redis_client.set(keys.live(FEED), "something else")
    with pytest.raises(RegistryError, match="does another program use") as caught:
        registry.live(FEED)
    assert not isinstance(caught.value, RegistryUnavailable)
    assert isinstance(caught.value, DriftlineError)
