"""`driftline up`: everything on one machine, one supervised child process per verb."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
import typer

from driftline.cli.logs import configure_logging
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption
from driftline.cli.output import say
from driftline.cli.supervisor import Supervisor, only_supervisor
from driftline.cli.wiring import state_files
from driftline.config import Config, feed_topics, load_config
from driftline.errors import DriftlineError, TopicUnavailable
from driftline.names import StateFiles

log = structlog.get_logger()


def up(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run ingest, learn, serve and score as supervised processes, and the embedded Redis."""
    configure_logging(process="up")
    loaded = load_config(config)
    files = state_files(loaded)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the supervisor takes over: still stop the Redis
    with only_supervisor(files.supervisor):
        try:
            _prepare(loaded)
            say(f"driftline is starting on http://{loaded.serve.host}:{loaded.serve.port}; Ctrl-C stops it")
            code = Supervisor(commands(loaded, config), files.supervisor, watch=redis_watch(loaded, files)).run()
        finally:
            _stop_redis(loaded, files)
    if code:
        raise typer.Exit(code)


def commands(config: Config, path: Path) -> dict[str, list[str]]:
    """The child processes by name. The scorer only if a feed wants it."""
    verbs = ["ingest", "learn", "serve"]
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
    from driftline.cli.wiring import build_topics, redis_url
    from serving.auth import Tokens

    Tokens.from_environment(os.environ, config.serve.host)
    redis_url(config)
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
