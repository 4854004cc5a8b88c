"""Which servers that the config names take no connection now, in words. A look of moments, for `up` to say what it
waits for: whether they also answer, and as they should, is for `check` and `status` to tell."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from driftline.config import Config, resolve_secret

WITHIN_S = 0.5
KAFKA_PORT = 9092
REDIS_PORT = 6379


def out_of_reach(config: Config) -> list[str]:
    """`Kafka at HOST:PORT`, `Redis at HOST:PORT`; [] if all take connections, or none is another machine's affair.

    Of several brokers one is enough. Takes at most `WITHIN_S` for each address.
    """
    return [*_kafka(config), *_redis(config)]


def _kafka(config: Config) -> Iterator[str]:
    if config.topics.kind != "kafka":
        return
    servers = [server.strip() for server in config.topics.bootstrap_servers.split(",")]
    if not any(_connects(f"//{server}", KAFKA_PORT) for server in servers):
        yield f"Kafka at {config.topics.bootstrap_servers}"


def _redis(config: Config) -> Iterator[str]:
    url = resolve_secret(config.redis.url)
    if not url.startswith(("redis://", "rediss://")):  # an embedded one is started by `up` itself
        return
    if not _connects(url, REDIS_PORT):
        at = urlsplit(url)
        yield f"Redis at {at.hostname or 'localhost'}:{at.port or REDIS_PORT}"  # never the password beside it


def _connects(url: str, default_port: int) -> bool:
    try:
        at = urlsplit(url)
        socket.create_connection((at.hostname or "localhost", at.port or default_port), WITHIN_S).close()
    except (OSError, ValueError):
        return False
    return True
