"""The ports that a config names, and whether each is free. Asking is binding and closing: nobody is disturbed."""

import socket
from collections.abc import Iterator

from driftline.config import Config
from driftline.errors import ConfigError

__all__ = ["http_ports", "metrics_ports", "port_problem", "require_ports"]

Port = tuple[str, str, int]
"""Config key, host, number."""


def http_ports(config: Config) -> list[Port]:
    """Where serve answers."""
    serve = config.serve
    return [("serve.port", serve.host, serve.port), ("serve.admin_port", serve.host, serve.admin_port)]


def metrics_ports(config: Config) -> list[Port]:
    """Where the processes that `up` starts show their metrics, as far as the config wants it."""
    shown = config.metrics
    scores = any(feed.serve.score for feed in config.feed.values())
    named = {
        "metrics.ingest_port": shown.ingest_port,
        "metrics.learn_port": shown.learn_port,
        "metrics.score_port": shown.score_port if scores else None,
    }
    return [(key, shown.host, port) for key, port in named.items() if port is not None]


def port_problem(port: Port) -> str | None:
    """Why the port cannot be had, with the remedy; None if it is free. Port 0 always is."""
    key, host, number = port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, number))
    except OSError as error:
        return f"{host}:{number} cannot be used ({error.strerror}): set another {key}"
    return None


def require_ports(config: Config) -> None:
    """ConfigError that names every port which `up` needs and cannot have."""
    problems = list(_problems([*http_ports(config), *metrics_ports(config)]))
    if problems:
        raise ConfigError("; ".join(problems))


def _problems(ports: list[Port]) -> Iterator[str]:
    taken: dict[tuple[str, int], str] = {}
    for key, host, number in ports:
        other = taken.setdefault((host, number), key) if number else key
        if other != key:
            yield f"{key} is the port of {other}, too: set another {key}"
        elif (problem := port_problem((key, host, number))) is not None:
            yield problem
