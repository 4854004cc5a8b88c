"""What an expert is: one scorer that is mixed into the answer. A sixth one is one file and one line in `__init__`."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from driftline.experts.block import Block, Partial
from driftline.experts.state import Arrays, ExpertState, Step

__all__ = ["Expert", "Fixed", "Targets"]

Targets = NDArray[np.int64]
"""(N,): which class each text of a block is of, 0..C-1."""


class Expert(Protocol):
    """Pure functions of state and block; the settings are the fields of whoever implements it.

    Delivery and ordering: `learn` gets each block once, in stream order. Atomicity: nothing is changed by a call, its
    caller applies the step or not. Idempotency: the same state and block give the same bytes on one kind of CPU,
    whatever the number of threads; a text's scores are the same bytes whatever else is in its block. Errors: ValueError
    where arrays do not fit each other.
    """

    def start(self, classes: int, feature_size: int, /) -> ExpertState:
        """The state before anything was learned, for C classes and features of length d."""
        ...

    def prepare(self, block: Block, /) -> None:
        """Do what scoring takes and needs no state: may be done earlier, on another thread, or not at all."""
        ...

    def score(self, scoring: Arrays, block: Block, /) -> Partial:
        """(N, C) scores on the scale of logits; rows that the expert can say nothing about are not known."""
        ...

    def learn(self, state: ExpertState, block: Block, targets: Targets, /) -> Step:
        """What these labelled texts change. Rows that the expert cannot score teach it nothing."""
        ...

    def relabel(self, state: ExpertState, rows: Sequence[int | None], /) -> ExpertState:
        """The state under other classes: class i is what class `rows[i]` was, or (None) one it has never seen."""
        ...


class Fixed:
    """An expert that learns nothing from labels: its state is empty, and stays so."""

    def start(self, _classes: int, _feature_size: int, /) -> ExpertState:
        """Nothing."""
        return ExpertState()

    def prepare(self, _block: Block, /) -> None:
        """Nothing."""

    def learn(self, _state: ExpertState, _block: Block, _targets: Targets, /) -> Step:
        """Nothing changes."""
        return Step()

    def relabel(self, state: ExpertState, _rows: Sequence[int | None], /) -> ExpertState:
        """Nothing to move."""
        return state
