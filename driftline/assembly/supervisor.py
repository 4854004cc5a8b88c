"""Supervises one child process per verb, for `driftline up`.

Guards: a child that ends is started again, after a pause that doubles with each quick end; one that ends with exit
code 2 (its config is wrong) is not, and if that is right at its first start, everything stops; later the others go on.
One supervisor per state folder (flock). Children die with the supervisor, however it dies (Linux: PR_SET_PDEATHSIG), so
none is left behind that the next `up` would collide with. SIGTERM and SIGINT ask the children to finish what they have
in hand; a second signal, or `drain_s`, kills them. `watch` is called every `WATCH_S` for what runs beside the children
(the embedded Redis).

What runs is written to a JSON file after every change, replaced atomically, for `driftline status`. Its time of change
is the supervisor's last sign of life. A stop that was asked for removes it: one that is left behind tells of a kill.
"""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import structlog

from driftline.errors import UsageError
from driftline.locks import hold, is_held
from driftline.records import iso

log = structlog.get_logger()

EXIT_CONFIG = 2
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0
DRAIN_S = 60.0
WATCH_S = 1.0
PR_SET_PDEATHSIG = 1

State = Literal["running", "waiting", "stopped", "refused"]


def pause_s(quick_ends: int) -> float:
    """Seconds to wait before the next start, after so many ends in a row that came within `STEADY_S` (1, 2, …)."""
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(quick_ends - 1, 16))


@dataclass(slots=True)
class Child:
    """One supervised process. Times `_at` are monotonic seconds, `_on` wall times for `status`; `exit_code` is
    negative for a signal; `at_start`: it was refused in the first `STEADY_S` of its first life, so that nobody can be
    using it yet."""

    name: str
    command: Sequence[str]
    state: State = "waiting"
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    quick_ends: int = 0
    started_at: float = 0.0
    start_at: float = 0.0
    exit_code: int | None = None
    started_on: str | None = None
    ended_on: str | None = None
    at_start: bool = False

    def start(self, now: float) -> None:
        """Start it; the child gets SIGTERM when this process dies."""
        parent = os.getpid()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=lambda: _die_with(parent)
        )
        self.state, self.started_at, self.started_on = "running", now, _now()
        log.info("child_started", child=self.name, pid=self.process.pid, restarts=self.restarts)

    def ended(self, code: int, now: float) -> None:
        """Work out when to start it again, if at all."""
        steady = now - self.started_at >= STEADY_S
        self.exit_code, self.process, self.ended_on = code, None, _now()
        if code == EXIT_CONFIG:
            self.state, self.at_start = "refused", not (self.restarts or steady)
            log.error("child_refused", child=self.name, remedy="its message is above: mend the config, then `up` again")
            return
        self.quick_ends = 1 if steady else self.quick_ends + 1
        self.state, self.start_at = "waiting", now + pause_s(self.quick_ends)
        self.restarts += 1
        log.warning("child_ended", child=self.name, exit_code=code, again_in_s=round(self.start_at - now, 1))

    def document(self) -> dict[str, Any]:
        """What `status` shows. `quick_ends`: how many ends in a row came soon after their start."""
        return {
            "pid": self.process.pid if self.process else None,
            "state": self.state,
            "restarts": self.restarts,
            "exit_code": self.exit_code,
            "quick_ends": self.quick_ends,
            "started_at": self.started_on,
            "ended_at": self.ended_on,
        }


@dataclass(slots=True)
class Supervisor:
    """Runs the children until it is told to stop. `run` must be called in the main thread (it handles signals)."""

    commands: Mapping[str, Sequence[str]]
    file: Path
    drain_s: float = DRAIN_S
    watch: Callable[[], None] | None = None
    children: list[Child] = field(init=False)
    stops_asked: int = 0

    def __post_init__(self) -> None:
        self.children = [Child(name, command) for name, command in self.commands.items()]

    def run(self) -> int:
        """Returns the exit code: 0 after a stop that was asked for, 2 if a child refused its config at first start."""
        with _signals(self._ask_to_stop) as wake:
            try:
                while not self.stops_asked and not self.refused_at_start():
                    if self.watch is not None:
                        self.watch()
                    self._start_due(time.monotonic())
                    self._show_life()
                    select.select([wake], [], [], self._wait_s(time.monotonic()))
                    _drain_pipe(wake)
                    self._reap(time.monotonic())
            finally:
                self._stop(wake)
        return EXIT_CONFIG if self.refused_at_start() else 0

    def _ask_to_stop(self) -> None:
        self.stops_asked += 1

    def refused_at_start(self) -> bool:
        """Whether a child refused its config right at the start, which ends everything."""
        return any(child.at_start for child in self.children)

    def _start_due(self, now: float) -> None:
        due = [child for child in self.children if child.state == "waiting" and child.start_at <= now]
        for child in due:
            child.start(now)
        if due:
            self._write()

    def _wait_s(self, now: float) -> float | None:
        """Until the next start or watch that is due; None: until a signal comes."""
        waits = [max(0.0, child.start_at - now) for child in self.children if child.state == "waiting"]
        return min(waits + ([] if self.watch is None else [WATCH_S]), default=None)

    def _reap(self, now: float) -> None:
        ended = [(child, code) for child, code in self._polled() if code is not None]
        for child, code in ended:
            child.ended(code, now)
        if ended:
            self._write()

    def _polled(self) -> list[tuple[Child, int | None]]:
        return [(child, child.process.poll()) for child in self.children if child.process is not None]

    def _stop(self, wake: int) -> None:
        """SIGTERM to all, wait for the drain; kill who is left at its end, or at a second request to stop."""
        deadline = time.monotonic() + self.drain_s
        told_to = bool(self.stops_asked)
        if not told_to:  # one store, which a signal in between cannot be lost to
            self.stops_asked = 1
        self._signal_all(signal.SIGTERM)
        if told_to:
            self._tell_that_it_drains()
        while self._running() and self.stops_asked < 2 and time.monotonic() < deadline:
            select.select([wake], [], [], max(0.0, deadline - time.monotonic()))
            _drain_pipe(wake)
            self._collect()
        why = "second request" if self.stops_asked > 1 else f"not done after {self.drain_s:g} s"
        for child in self._running():
            log.error("child_killed", child=child.name, reason=why)
        self._signal_all(signal.SIGKILL)
        for child in self._running():
            if child.process is not None:
                child.process.wait()
        self._collect()
        self.file.unlink(missing_ok=True)

    def _tell_that_it_drains(self) -> None:
        with suppress(OSError):  # a `tee` may have ended by the same Ctrl-C
            print(f"draining (up to {self.drain_s:g} s); Ctrl-C again ends it at once", flush=True)

    def _collect(self) -> None:
        for child, code in self._polled():
            if code is not None:
                child.exit_code, child.process, child.state = code, None, "stopped"
                log.info("child_stopped", child=child.name, exit_code=code)

    def _running(self) -> list[Child]:
        return [child for child in self.children if child.process is not None]

    def _signal_all(self, number: signal.Signals) -> None:
        for child in self._running():
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)

    def _show_life(self) -> None:
        with suppress(OSError):
            os.utime(self.file)

    def _write(self) -> None:
        document = {"pid": os.getpid(), "processes": {child.name: child.document() for child in self.children}}
        draft = self.file.with_name(self.file.name + ".draft")
        draft.write_text(json.dumps(document), encoding="utf-8")
        draft.replace(self.file)


@contextmanager
def only_supervisor(file: Path) -> Iterator[None]:
    """Hold the state folder's supervisor lock. UsageError if another `up` holds it."""
    with _lock_file(file).open("a") as lock:
        try:
            hold(lock.fileno())
        except BlockingIOError:
            pid = _read(file).get("pid")
            who = f" (process {pid})" if pid else ""
            raise UsageError(
                f"another `up` runs already on {file.parent}{who}: stop it, or use another state.path"
            ) from None
        file.unlink(missing_ok=True)  # left behind by one that was killed: its children are not ours
        yield


def left_behind(file: Path) -> datetime | None:
    """When the `up` that was killed on this state folder was last alive; None: none was, or another one runs."""
    if is_held(_lock_file(file)):
        return None
    try:  # after the look at the lock: an `up` that stops removes the file first
        return datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except OSError:
        return None


def supervised(file: Path) -> dict[str, dict[str, Any]]:
    """The children of the `up` that runs on this state folder, by name; {} if none runs."""
    return dict(_read(file).get("processes", {})) if is_held(_lock_file(file)) else {}


def _lock_file(file: Path) -> Path:
    return file.with_suffix(".lock")


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _now() -> str:
    """The time for other processes, to the second."""
    return iso(datetime.now(UTC).replace(microsecond=0))


def _die_with(parent: int) -> None:
    """Runs in the child before exec: SIGTERM when the parent dies, also if it died just now."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def _signals(on_stop: Callable[[], None]) -> Iterator[int]:
    """Every signal wakes a pipe, so that `select` sees it without a race; yields the pipe's reading end."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)

    def stop(_number: int, _frame: FrameType | None) -> None:
        on_stop()

    def child(_number: int, _frame: FrameType | None) -> None:
        pass

    before_wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: stop, signal.SIGCHLD: child}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield reading
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_wakeup)
        os.close(reading)
        os.close(writing)


def _drain_pipe(reading: int) -> None:
    try:
        while os.read(reading, 512):
            pass
    except BlockingIOError:
        pass
