"""The front door: the `driftline` command, and the only place that wires objects together.

Verbs import what is slow (torch, transformers, the Kafka client) only when they need it, so that `--help`,
`status` and `produce` answer at once.
"""

import os

__all__ = ["main"]


def main() -> None:
    """Entry point of the `driftline` command. Exit codes: 0 done, 1 failed, 2 wrong usage or config."""
    # Before torch loads OpenMP: its threads spin while they wait, so that two busy processes on the same cores (serve
    # and learn under `up`) slow each other down tenfold; sleeping instead costs nothing measurable when alone.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from driftline.cli.app import run

    run()
