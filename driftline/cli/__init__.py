"""The front door: the `driftline` command, and the only place that wires objects together.

Verbs import what is slow (torch, transformers, the Kafka client) only when they need it, so that `--help`,
`status` and `produce` answer at once.
"""

__all__ = ["main"]


def main() -> None:
    """Entry point of the `driftline` command. Exit codes: 0 done, 1 failed, 2 wrong usage or config."""
    from driftline.cli.app import run

    run()
