"""`driftline up`: everything on one machine, one supervised child process per verb."""

import http.client
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
import typer
from rich.markup import escape

from driftline.assembly.label_changes import require_labels
from driftline.assembly.logs import configure_logging
from driftline.assembly.reachable import out_of_reach
from driftline.assembly.running import recorded
from driftline.assembly.supervisor import Supervisor, only_supervisor
from driftline.assembly.wiring import state_files
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption
from driftline.cli.output import say, to_type
from driftline.cli.ports import require_ports
from driftline.config import Config, feed_topics, load_config
from driftline.errors import DriftlineError, TopicUnavailable
from driftline.names import StateFiles

log = structlog.get_logger()

LOOK_S = 0.5
TELL_EVERY_S = 15.0
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Asks this machine without a proxy that the environment may name."""


def up(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run ingest, learn, adapt, serve and score as supervised processes, and the embedded Redis."""
    configure_logging(process="up")
    loaded = load_config(config)
    files = state_files(loaded)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the supervisor takes over: still stop the Redis
    with only_supervisor(files.supervisor), recorded("up", config, loaded):
        require_labels(loaded)  # before anything is started or taken in
        require_ports(loaded)
        try:
            _prepare(loaded)
            code = _supervise(loaded, config, files)
        finally:
            _stop_redis(loaded, files)
    if code:
        raise typer.Exit(code)


def _supervise(config: Config, path: Path, files: StateFiles) -> int:
    verbs, redis = commands(config, path), redis_watch(config, files)
    answering = Answering(config.serve.host, config.serve.port, partial(out_of_reach, config))

    def watch() -> None:
        if redis is not None:
            redis()
        answering.look()

    say(f"starting {', '.join(verbs)}; waiting for serve to load the model (Ctrl-C stops everything)")
    return Supervisor(verbs, files.supervisor, watch=watch).run()


class Answering:
    """Says once when serve's readiness is first affirmed, and meanwhile now and then that it is not yet; with either,
    which servers are `away`.

    `look` is called about every second and takes no longer than `LOOK_S`, and `away` where something is said.
    """

    def __init__(
        self, host: str, port: int, away: Callable[[], list[str]], now: Callable[[], float] = time.monotonic
    ) -> None:
        shown = f"[{host}]" if ":" in host else host
        self._url = f"http://{shown}:{port}"
        self._asked = f"http://{LOOPBACK.get(host, shown)}:{port}/readyz"
        self._away = away
        self._now = now
        self._started = now()
        self._told = 0.0
        self._done = port == 0  # a port that the system chooses is only in serve's log

    def look(self) -> None:
        """Ask, and say what is new."""
        if self._done:
            return
        after = self._now() - self._started
        if is_ready(self._asked):
            self._done = True
            more = f"`{to_type('status')}` shows more"
            say(escape(f"answering on {self._url} after {after:.0f} s; {more}{self._waits()}"))
        elif after - self._told >= TELL_EVERY_S:
            self._told = after
            say(escape(f"waiting for serve to answer on {self._url} ({after:.0f} s){self._waits()}"))

    def _waits(self) -> str:
        away = " and ".join(self._away())
        return f"; no connection to {away}: what needs it waits, and goes on by itself" if away else ""


def is_ready(url: str) -> bool:
    """Whether the server behind this /readyz says that every feed is served. False, too, if nobody answers in time."""
    try:
        with DIRECT.open(url, timeout=LOOK_S) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):  # refused, late, 503
        return False


def commands(config: Config, path: Path) -> dict[str, list[str]]:
    """The child processes by name. The scorer and the fast clock only if a feed wants them."""
    verbs = ["ingest", "learn", "serve"]
    if any(feed.fast.enabled for feed in config.feed.values()):
        verbs.insert(2, "adapt")
    if any(feed.serve.score for feed in config.feed.values()):
        verbs.append("score")
    return {verb: [sys.executable, "-m", "driftline.cli", verb, "-c", str(path.absolute())] for verb in verbs}


def redis_watch(config: Config, files: StateFiles) -> Callable[[], None] | None:
    """What starts the embedded Redis again when it has ended; None with a Redis that is not ours to watch."""
    if config.redis.url != "embedded":
        return None
    from driftline.registry.embedded import running_embedded, start_embedded

    def watch() -> None:
        try:
            if running_embedded(files) is None:
                start_embedded(files)
                log.warning("redis_restarted", state=str(files.redis))
        except (DriftlineError, OSError) as error:  # the disk may be full: it is tried again
            log.error("redis_not_restarted", error=str(error))

    return watch


def _prepare(config: Config) -> None:
    """Check what would make every child refuse, start the embedded Redis, create the topics."""
    from driftline.assembly.wiring import build_topics, redis_url
    from serving.auth import Tokens

    Tokens.from_environment(os.environ, config.serve.host)
    redis_url(config)
    require_labels(config)  # the live version's too, now that the embedded Redis runs
    topics = build_topics(config)
    try:
        topics.ensure(name for feed in config.feed for name in feed_topics(config, feed).model_dump().values())
    except TopicUnavailable as error:
        log.warning("topics_not_ready", error=str(error))
    finally:
        topics.close()


def _stop_redis(config: Config, files: StateFiles) -> None:
    if config.redis.url == "embedded":
        from driftline.registry.embedded import stop_embedded

        stop_embedded(files)
