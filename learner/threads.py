"""How many threads torch computes with, which is part of what makes an update repeatable."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def training_threads(wanted: int | None) -> int:
    """`wanted`, else one per core that this process may run on."""
    return wanted or len(os.sched_getaffinity(0))


@contextmanager
def torch_threads(wanted: int | None) -> Iterator[None]:
    """Compute with `training_threads(wanted)` inside the block, and as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(training_threads(wanted))
    try:
        yield
    finally:
        torch.set_num_threads(before)
