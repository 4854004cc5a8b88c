"""Experience replay: as many past examples as fresh ones, drawn from a reservoir of all the past, on demand some from
the recent past.

Under equal compute nothing beat uniform replay (Prabhu et al., "Computationally Budgeted Continual Learning",
arXiv 2303.11165); what was measured here stands in docs/adr/0005.
"""

import math
from dataclasses import replace

from driftline.config import LearnerConfig
from driftline.records import Example
from learner.reservoir import Reservoir, Uniform, draw_without_repeats
from learner.trainer_state import TrainerState


class ExperienceReplay:
    """`Strategy` "er"."""

    def draw(self, fresh: list[Example], state: TrainerState, section: LearnerConfig, rng: Uniform) -> list[int]:
        """round(fresh × replay_ratio) numbers in random order: `recent_share` of them from the recent window, the rest
        (rounded up) from the reservoir. Each makes up for the other where it is too short; fewer when not enough is
        remembered."""
        wanted = math.floor(len(fresh) * section.replay_ratio + 0.5)
        reservoir = _reservoir(state, section)
        taken = {one.seq for one in fresh}
        recent = math.floor(wanted * section.recent_share)
        drawn = reservoir.sample(wanted - recent, rng, frozenset(taken))
        taken.update(drawn)
        drawn += draw_without_repeats([seq for seq in state.recent.seqs if seq not in taken], wanted - len(drawn), rng)
        taken.update(drawn)
        drawn += reservoir.sample(wanted - len(drawn), rng, frozenset(taken))
        return draw_without_repeats(drawn, len(drawn), rng)

    def remember(
        self, state: TrainerState, fresh: list[Example], retired: list[Example], section: LearnerConfig, rng: Uniform
    ) -> TrainerState:
        """Offer both to the reservoir and append both to the window, by number. An example already remembered (it was
        retired and made fresh again, say) is not offered twice."""
        known = {seq for seq, _ in state.reservoir.entries} | set(state.recent.seqs)
        new = sorted((one for one in [*fresh, *retired] if one.seq not in known), key=lambda one: one.seq)
        reservoir = _reservoir(state, section)
        reservoir.shrink(rng)
        for one in new:
            reservoir.offer(one.seq, one.label, rng)
        recent = state.recent.followed_by((one.seq for one in new), section.recent_examples)
        return replace(state, reservoir=reservoir.state(), recent=recent)


def _reservoir(state: TrainerState, section: LearnerConfig) -> Reservoir:
    by_class = section.reservoir == "class_balanced"
    return Reservoir(section.reservoir_examples, state.reservoir, by_class=by_class)
