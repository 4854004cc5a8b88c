"""The serve process: both apps, the engine, the watcher with its heartbeat, and the collector, from start to drained.

Guards that no admitted request is dropped on the way out: 1. answers ask clients to close their connections, /readyz
says not ready  2. no new connections  3. what is in flight is answered  4. watcher, collector and engine stop, in this
order, each after finishing what it holds.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import structlog
import uvicorn
from fastapi import FastAPI

from driftline.clock import Deadline
from driftline.errors import ConfigError, ServingError
from driftline.registry import Registry
from serving.admin import create_admin_app
from serving.app import Parts, create_app

log = structlog.get_logger()

POLL_S = 0.05
QUIET_WITHIN_S = 1.0
ANSWERED_WITHIN_S = 30
KEEP_ALIVE_S = 75  # longer than what clients and load balancers keep idle connections for, so that they close first


class _Uvicorn(uvicorn.Server):
    """Leaves signals to whoever runs the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """Binds both ports at once (ConfigError if one is taken), and serves from `run`."""

    def __init__(self, parts: Parts, registry: Registry) -> None:
        self._parts = parts
        self._registry = registry
        section = parts.section
        self._socket = _bind(section.host, section.port, "serve.port")
        try:
            self._admin_socket = _bind(section.host, section.admin_port, "serve.admin_port")
        except ConfigError:
            self._socket.close()
            raise
        self.url = _url(self._socket)
        self.admin_url = _url(self._admin_socket)

    def run(self, stop: threading.Event, on_listening: Callable[[], None] | None = None) -> None:
        """Serve until `stop` is set, then drain. `on_listening` is called once both ports answer.

        ServingError if the engine thread died: whoever supervises the process starts it again.
        """
        parts = self._parts
        parts.watcher.url = self.url
        parts.engine.start()
        parts.collector.start()
        watching = threading.Event()
        watcher = threading.Thread(target=parts.watcher.run, args=(watching,), name="watcher", daemon=True)
        watcher.start()
        try:
            asyncio.run(self._serve(stop, on_listening))
            if not parts.engine.alive:
                raise ServingError("the engine thread died; see the log above. This process ends, to be started again")
        finally:
            watching.set()
            watcher.join()
            parts.collector.close()
            parts.engine.close()
            log.info("drained", url=self.url)

    async def _serve(self, stop: threading.Event, on_listening: Callable[[], None] | None) -> None:
        public = _server(create_app(self._parts))
        admin = _server(create_admin_app(self._parts, self._registry))
        tasks = [
            asyncio.create_task(public.serve(sockets=[self._socket])),
            asyncio.create_task(admin.serve(sockets=[self._admin_socket])),
        ]
        while not (public.started and admin.started) and not any(task.done() for task in tasks):
            await asyncio.sleep(POLL_S)
        log.info("listening", url=self.url, admin_url=self.admin_url)
        if on_listening is not None:
            on_listening()
        while not stop.is_set() and self._parts.engine.alive and not any(task.done() for task in tasks):
            await asyncio.sleep(POLL_S)
        await self._drain(public)
        public.should_exit = admin.should_exit = True
        await asyncio.gather(*tasks)

    async def _drain(self, public: uvicorn.Server) -> None:
        """No new connections; those there are close with their next answer. Idle ones are given a second for that."""
        self._parts.draining.set()
        for listener in public.servers:
            listener.close()
        quiet = Deadline(QUIET_WITHIN_S)
        while public.server_state.connections and not quiet.expired():
            await asyncio.sleep(POLL_S)


def _server(app: FastAPI) -> _Uvicorn:
    return _Uvicorn(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=ANSWERED_WITHIN_S,
        )
    )


def _bind(host: str, port: int, key: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{key} = {port} on serve.host = {host!r}: {reason}; use another port or address") from None


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
