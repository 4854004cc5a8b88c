"""Real servers of a benchmark's own, on loopback: a Kafka broker, a Redis over TCP. They end with whoever started them.

Both keep their data and port over `stop` and `start`, so that an outage can be played.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from deploy.kafka.broker import SetupError, fetch_jars
from driftline.clock import Deadline
from driftline.errors import RegistryError
from driftline.registry import connect
from driftline.registry.embedded import find_server
from tests.fixtures.kafka import BrokerProcess
from tests.fixtures.ports import free_ports

START_WITHIN_S = 60.0
STOP_WITHIN_S = 30.0
LOOK_AGAIN_S = 0.05
PR_SET_PDEATHSIG = 1


class RedisServer:
    """A Redis as production has it: TCP, append-only file, nothing evicted."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (self._port,) = free_ports(1)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Returns once it answers. RuntimeError if it does not."""
        command = [str(find_server()), "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        command += ["--maxmemory-policy", "noeviction", "--logfile", "redis.log"]
        self._process = subprocess.Popen(command, preexec_fn=partial(die_with, os.getpid()))
        if not wait_for(self._answers, START_WITHIN_S):
            self.stop()
            raise RuntimeError(f"redis-server did not start; its log is in {self._folder}")

    def stop(self) -> None:
        """An orderly end; idempotent."""
        process, self._process = self._process, None
        if process is not None:
            end_process(process)

    def kill(self) -> None:
        """As a power cut. The append-only file stays for the next `start`."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self) -> None:
        """It takes connections and answers nothing, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on where `freeze` stopped it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        client = connect(self.url, "bench", timeout_s=1.0)
        try:
            return bool(client.ping())
        except RegistryError:
            return False
        finally:
            client.close()


@contextmanager
def kafka_broker(folder: Path) -> Iterator[BrokerProcess]:
    """A running broker from deploy/kafka with its data in `folder`, stopped at the end.

    SetupError if Java or Maven is missing; RuntimeError if it does not come up.
    """
    fetch_jars()
    process = BrokerProcess(folder)
    process.start()
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running Redis with its data in `folder`, stopped at the end."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def servers(folder: Path) -> Iterator[tuple[BrokerProcess, RedisServer]]:
    """Both."""
    with ExitStack() as stack:
        broker = stack.enter_context(kafka_broker(folder / "kafka"))
        yield broker, stack.enter_context(redis_server(folder / "redis"))


def missing_kafka() -> str | None:
    """Why no broker can be started here, and what to install; None if one can."""
    try:
        fetch_jars()
    except SetupError as error:
        return str(error)
    return None


def end_process(process: "subprocess.Popen[bytes]", within_s: float = STOP_WITHIN_S) -> int:
    """SIGTERM, and SIGKILL where that takes too long; returns the exit code. Only for a process that we started."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def wait_for(happened: Callable[[], object], within_s: float) -> bool:
    """Whether it happens within the time; looked at every 50 ms."""
    deadline = Deadline(within_s)
    while not happened():
        if deadline.expired():
            return False
        time.sleep(LOOK_AGAIN_S)
    return True


def die_with(parent: int) -> None:
    """Runs in a child before exec: SIGTERM when the thread that started it ends, however it ends (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
