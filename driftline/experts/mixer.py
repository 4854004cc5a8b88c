"""The experts' scores mixed into one answer: logits are Σₖ w(k, nᶜ)·zₖᶜ + bᶜ, a product of experts whose powers are
learned on line (Hinton 2002, Neural Computation 14(8); AdaGrad: Duchi, Hazan & Singer 2011).

An expert's weight depends on how often the class was seen (nᶜ, in powers of two), since experts ripen at different
speeds: names know a class before its first example, and are worth little where others have learned a hundred. With one
weight for all classes, a stream that brings one class after the other teaches the mixer to trust names for ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.experts.block import Partial
from driftline.experts.expert import Targets
from driftline.experts.softmax import probabilities
from driftline.experts.state import Arrays, ExpertState, Step

__all__ = ["RIPENESS", "Mixer", "ripeness"]

RIPENESS = 8
"""How many weights an expert has: for classes seen 0, 1–2, 3–6, 7–14, …, 127 times and more."""
BIAS, SEEN = "bias", "seen"

_TINY = 1e-12

Scores = Mapping[str, Partial]


def ripeness(seen: NDArray[np.float64]) -> NDArray[np.int64]:
    """(C,) counts → (C,) in 0..7: ⌊log₂(1 + n)⌋, cut."""
    return np.minimum(np.frexp(1 + seen)[1] - 1, RIPENESS - 1).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixer:
    """Weights start at 1 and stay ≥ 0. `rate` is AdaGrad's, for weights and biases."""

    rate: float = 0.2

    def start(self, classes: int, experts: Sequence[str]) -> ExpertState:
        """Each expert's (8,) weights by its name, the classes' biases and counts (C,); AdaGrad's sums of squares."""
        scoring: Arrays = {name: np.ones(RIPENESS) for name in experts}
        learning: Arrays = {name: np.zeros(RIPENESS) for name in experts}
        scoring |= {BIAS: np.zeros(classes), SEEN: np.zeros(classes)}
        return ExpertState(scoring=scoring, learning=learning | {BIAS: np.zeros(classes)})

    def mix(self, scoring: Arrays, scores: Scores) -> NDArray[np.float64]:
        """(N, C) logits. An expert counts for the rows that it knows: the others hold zeros."""
        weights = self.weights(scoring, tuple(scores))
        return np.add.reduce([weights[name] * partial.values for name, partial in scores.items()]) + scoring[BIAS]

    def weights(self, scoring: Arrays, experts: Sequence[str]) -> Arrays:
        """(C,) for each expert: what its score of each class is weighed with."""
        ripe = ripeness(scoring[SEEN])  # (C,)
        return {name: scoring[name][ripe] for name in experts}

    def learn(self, state: ExpertState, scores: Scores, targets: Targets) -> Step:
        """One step against the gradient of the block's mean log-loss; then the classes' counts grow."""
        errors = probabilities(self.mix(state.scoring, scores))  # (N, C)
        errors[np.arange(len(targets)), targets] -= 1
        gradients = self._gradients(state.scoring, scores, errors)
        squares = {name: state.learning[name] + gradient**2 for name, gradient in gradients.items()}
        moved = {
            name: state.scoring[name] - self.rate * gradient / np.sqrt(squares[name] + _TINY)
            for name, gradient in gradients.items()
        }
        kept = {name: array if name == BIAS else np.maximum(array, 0) for name, array in moved.items()}
        counts = np.bincount(targets, minlength=errors.shape[1])
        return Step(scoring={**kept, SEEN: state.scoring[SEEN] + counts}, learning=squares)

    def relabel(self, state: ExpertState, rows: Sequence[int | None]) -> ExpertState:
        """Biases and counts move with their classes; new ones are zero."""
        scoring = {**state.scoring, **{name: _moved(state.scoring[name], rows) for name in (BIAS, SEEN)}}
        return ExpertState(scoring=scoring, learning={**state.learning, BIAS: _moved(state.learning[BIAS], rows)})

    def _gradients(self, scoring: Arrays, scores: Scores, errors: NDArray[np.float64]) -> Arrays:
        """By the weights of each ripeness (8,), and by the biases (C,)."""
        ripe = ripeness(scoring[SEEN])
        by_class = {name: (errors * partial.values).mean(axis=0) for name, partial in scores.items()}
        return {name: np.bincount(ripe, each, RIPENESS) for name, each in by_class.items()} | {
            BIAS: errors.mean(axis=0)
        }


def _moved(array: NDArray[np.float64], rows: Sequence[int | None]) -> NDArray[np.float64]:
    return np.array([0.0 if row is None else array[row] for row in rows])
