"""No replay: fresh examples only. Beside `er`, to show what replay is worth."""

from driftline.config import LearnerConfig
from driftline.records import Example
from learner.reservoir import Uniform
from learner.strategies.er import ExperienceReplay
from learner.trainer_state import TrainerState


class Naive:
    """`Strategy` "naive". It remembers as `er` does, so that a feed can be switched to replay at any time."""

    def draw(self, fresh: list[Example], state: TrainerState, section: LearnerConfig, rng: Uniform) -> list[int]:  # noqa: ARG002
        """Nothing."""
        return []

    def remember(
        self, state: TrainerState, fresh: list[Example], retired: list[Example], section: LearnerConfig, rng: Uniform
    ) -> TrainerState:
        """As `ExperienceReplay.remember`."""
        return ExperienceReplay().remember(state, fresh, retired, section, rng)
