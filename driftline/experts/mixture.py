"""All experts of a feed and their mixer as one: what is answered, and what a block of labels changes.

Guards the order of a block: what it teaches the mixer is how the experts scored before they learned from it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from driftline.experts.block import Block, Partial
from driftline.experts.expert import Expert, Targets
from driftline.experts.mixer import BIAS, Mixer
from driftline.experts.state import Arrays, ExpertState, Step, apply

__all__ = ["MIXER", "Mixed", "Mixture", "advance", "scoring_of"]

MIXER = "mixer"
"""What stands beside the experts' names in states and steps; no expert is called so."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixed:
    """An answer, and what it was mixed from."""

    logits: NDArray[np.float64]
    """(N, C)"""
    scores: dict[str, Partial]
    """(N, C) of each expert."""
    weights: Arrays
    """(C,) of each expert: the logits are the sum of weight times score, plus the bias."""
    bias: NDArray[np.float64]
    """(C,)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Pure, as its experts are. States, scoring arrays and steps are by expert, with the mixer's under `MIXER`."""

    experts: Mapping[str, Expert]
    mixer: Mixer = field(default_factory=Mixer)

    def start(self, classes: int, feature_size: int) -> dict[str, ExpertState]:
        """Before anything was learned."""
        states = {name: expert.start(classes, feature_size) for name, expert in self.experts.items()}
        return states | {MIXER: self.mixer.start(classes, tuple(self.experts))}

    def prepare(self, block: Block) -> None:
        """What scoring takes and needs no state, n-grams above all: may be done earlier, on another thread."""
        for expert in self.experts.values():
            expert.prepare(block)

    def score(self, scoring: Mapping[str, Arrays], block: Block) -> Mixed:
        """How these texts are answered."""
        scores = {name: expert.score(scoring[name], block) for name, expert in self.experts.items()}
        mixer = scoring[MIXER]
        return Mixed(
            logits=self.mixer.mix(mixer, scores),
            scores=scores,
            weights=self.mixer.weights(mixer, tuple(scores)),
            bias=mixer[BIAS].copy(),
        )

    def learn(self, states: Mapping[str, ExpertState], block: Block, targets: Targets) -> dict[str, Step]:
        """What these labelled texts change, everywhere."""
        scores = self.score(scoring_of(states), block).scores
        steps = {name: expert.learn(states[name], block, targets) for name, expert in self.experts.items()}
        return steps | {MIXER: self.mixer.learn(states[MIXER], scores, targets)}

    def relabel(self, states: Mapping[str, ExpertState], rows: Sequence[int | None]) -> dict[str, ExpertState]:
        """Under other classes: class i is what class `rows[i]` was, or (None) one that was never seen."""
        moved = {name: expert.relabel(states[name], rows) for name, expert in self.experts.items()}
        return moved | {MIXER: self.mixer.relabel(states[MIXER], rows)}


def scoring_of(states: Mapping[str, ExpertState]) -> dict[str, Arrays]:
    """The arrays that answering needs, the states' own."""
    return {name: state.scoring for name, state in states.items()}


def advance(states: Mapping[str, ExpertState], steps: Mapping[str, Step]) -> None:
    """Learn: write what `Mixture.learn` made of a block into the states, in place."""
    for name, step in steps.items():
        apply(states[name].scoring, step.scoring)
        apply(states[name].learning, step.learning)
