"""The ports that a config names, and whether each is free. Asking is binding and closing: nobody is disturbed."""

import socket
from collections.abc import Iterator

from driftline.config import Config
from driftline.errors import ConfigError

__all__ = ["port_problems", "require_ports"]

Port = tuple[str, str, int]
"""Config key, host, number."""


def port_problems(config: Config) -> Iterator[tuple[Port, str | None]]:
    """Every port that `up` needs, and why it cannot have it, with the remedy; None: it can."""
    taken: dict[tuple[str, int], str] = {}
    for port in (*_http_ports(config), *_metrics_ports(config)):
        key, host, number = port
        other = taken.setdefault((host, number), key) if number else key
        yield port, _bind_problem(port) if other == key else f"{key} is the port of {other}, too: set another {key}"


def require_ports(config: Config) -> None:
    """ConfigError that names every port which `up` needs and cannot have."""
    problems = [problem for _, problem in port_problems(config) if problem is not None]
    if problems:
        raise ConfigError("; ".join(problems))


def _http_ports(config: Config) -> list[Port]:
    """Where serve answers."""
    serve = config.serve
    return [("serve.port", serve.host, serve.port), ("serve.admin_port", serve.host, serve.admin_port)]


def _metrics_ports(config: Config) -> list[Port]:
    """Where the processes that `up` starts show their metrics, as far as the config wants it."""
    shown = config.metrics
    scores = any(feed.serve.score for feed in config.feed.values())
    adapts = any(feed.fast.enabled for feed in config.feed.values())
    named = {
        "metrics.ingest_port": shown.ingest_port,
        "metrics.learn_port": shown.learn_port,
        "metrics.adapt_port": shown.adapt_port if adapts else None,
        "metrics.score_port": shown.score_port if scores else None,
    }
    return [(key, shown.host, port) for key, port in named.items() if port is not None]


def _bind_problem(port: Port) -> str | None:
    """Why the port cannot be had; None if it is free. Port 0 always is."""
    key, host, number = port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
    except OSError as error:
        return f"{host}:{number} cannot be used ({error.strerror}): set another {key}"
    return None
