"""The folder of an embedded Redis: where its files are, whether its server lives, and which process that is.

Whether a server lives is told by a lock that the server itself inherits and holds until it ends, however it ends. A pid
file alone would not do: it appears after the fork, and its number may be another process's by now.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote

from driftline.errors import RegistryError
from driftline.registry.client import connect

__all__ = ["Home", "answering_pid", "connections"]

PING_TIMEOUT_S = 2.0
MAX_SOCKET_PATH_BYTES = 100
PRIVATE_FOLDER = 0o040700


class Home:
    """Paths and locks of one embedded server. `root` is made on the first `locked`, 0700."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.data = self.root / "data"
        self.log = self.root / "redis.log"
        self.settings = self.root / "redis.conf"
        self._pid_file = self.root / "redis.pid"
        self._pointer = self.root / "socket.path"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes that start or stop this folder's server."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self.data.mkdir(mode=0o700, exist_ok=True)
        with (self.root / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def life(self) -> IO[str] | None:
        """The open life lock, to be handed on to a new server; None if a server lives (or is just coming up)."""
        lock = (self.root / "server.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def lives(self) -> bool:
        """Whether this folder's server runs."""
        lock = self.life()
        if lock is not None:
            lock.close()
        return lock is None

    def pid(self) -> int | None:
        """The server's process id, verified to be this folder's server; None if it is not (yet) known."""
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return answering_pid(self.url())
        return pid if self.lives() and self._is_ours(pid) else None

    def _is_ours(self, pid: int) -> bool:
        """Ours works in our data folder; where the system does not tell, ours answers on our socket."""
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == self.data.resolve()
        except OSError:
            return answering_pid(self.url()) == pid

    def url(self) -> str:
        """unix://…, with what has a meaning in a URL quoted."""
        return f"unix://{quote(str(self.socket()))}"

    def socket(self) -> Path:
        """Where the socket is. A path too long for one (about 107 bytes) is replaced by a private short folder."""
        here = self.root / "redis.sock"
        if len(os.fsencode(here)) <= MAX_SOCKET_PATH_BYTES:
            return here
        return (self._pointed_folder() or self._new_short_folder()) / "redis.sock"

    def _new_short_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="driftline-", dir=_short_temporary_folder()))
        draft = self._pointer.with_suffix(".new")
        draft.write_text(str(folder), encoding="utf-8")
        draft.replace(self._pointer)
        return folder

    def _pointed_folder(self) -> Path | None:
        """The short folder made earlier, if it is still there and still only ours."""
        try:
            folder = Path(self._pointer.read_text(encoding="utf-8"))
            found = folder.lstat()
        except OSError:
            return None
        return folder if found.st_uid == os.geteuid() and found.st_mode == PRIVATE_FOLDER else None

    def forget_server(self) -> None:
        """Remove what a server leaves behind: socket, short folder, pid file. Only while none lives."""
        folder = self._pointed_folder()
        for path in (self.root / "redis.sock", self._pointer, self._pid_file):
            path.unlink(missing_ok=True)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

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
        """The last lines of the server's log, for a message."""
        try:
            return " / ".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:])
        except OSError:
            return "no log"


def answering_pid(url: str) -> int | None:
    """The process id of the server behind the socket; None if nobody answers or it is still loading."""
    client = connect(url, "driftline-embedded", timeout_s=PING_TIMEOUT_S)
    try:
        client.ping()
        server: dict[str, int] = client.info("server")
        return server["process_id"]
    except RegistryError:
        return None
    finally:
        client.close()


def connections(url: str) -> int | None:
    """How many clients the server behind the socket has, the asker aside; None if it does not answer."""
    client = connect(url, "driftline-embedded", timeout_s=PING_TIMEOUT_S)
    try:
        return len(client.client_list()) - 1
    except RegistryError:
        return None
    finally:
        client.close()


def _short_temporary_folder() -> str:
    """The temporary folder, or /tmp where even that is too long for a socket in a folder below it."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= MAX_SOCKET_PATH_BYTES - 40 else "/tmp"


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
