"""Which past examples an update repeats, and which it remembers. One small file per strategy."""

from collections.abc import Callable
from typing import Protocol

from driftline.config import LearnerConfig
from driftline.records import Example
from learner.reservoir import Uniform
from learner.strategies.er import ExperienceReplay
from learner.strategies.naive import Naive
from learner.trainer_state import TrainerState

__all__ = ["STRATEGIES", "Strategy", "strategy_named"]


class Strategy(Protocol):
    """Pure: no I/O, randomness is an argument; the same arguments give the same answer.

    `draw` is called before training, its answer goes into the plan; `remember` after training, its answer goes into
    the candidate's trainer state, which only counts if the candidate is promoted.
    """

    def draw(self, fresh: list[Example], state: TrainerState, section: LearnerConfig, rng: Uniform) -> list[int]:
        """Numbers of the examples to replay, in training order: no number twice, none of `fresh`."""

    def remember(
        self, state: TrainerState, fresh: list[Example], retired: list[Example], section: LearnerConfig, rng: Uniform
    ) -> TrainerState:
        """`state` with the reservoir and the recent window after these examples, in stream order."""


STRATEGIES: dict[str, Callable[[], Strategy]] = {"er": ExperienceReplay, "naive": Naive}


def strategy_named(name: str) -> Strategy:
    """The strategy that `learner.strategy` names. KeyError for one that the config would not have let through."""
    return STRATEGIES[name]()
