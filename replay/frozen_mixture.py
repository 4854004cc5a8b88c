"""The rival to beat: all our experts but the version's head, mixed on line, on the base's frozen features.

It is what a user gets without any training: it answers from the first event on (by label names, before anything was
learned) and learns every label as it comes. What LoRA is worth is what an answer gains over this one.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from driftline.experts import EXPERTS, Block, Mixture, Partial, advance, scoring_of

__all__ = ["FROZEN", "FrozenMixture"]

BLOCK_EXAMPLES = 32
FROZEN = {name: expert for name, expert in EXPERTS.items() if name != "head"}
"""All experts that need no version."""


class FrozenMixture:
    """Learns in blocks of up to 32, in stream order, everything it is given."""

    def __init__(self, labels: Sequence[str], names: ArrayLike) -> None:
        """`names`: the base's features (C, d) of the labels' names."""
        self._labels = tuple(labels)
        self._names = np.asarray(names, dtype=np.float32)
        self._mixture = Mixture(experts=FROZEN)
        self._states = self._mixture.start(*self._names.shape)

    def predict(self, texts: Sequence[str], features: ArrayLike) -> list[str | None]:
        """Answers for texts and their features (B, d)."""
        logits = self._mixture.score(scoring_of(self._states), self._block(texts, features)).logits  # (B, C)
        return [self._labels[winner] for winner in logits.argmax(axis=1)]

    def learn(self, texts: Sequence[str], features: ArrayLike, labels: Sequence[str]) -> None:
        """Texts, their features (B, d) and their labels."""
        rows = np.asarray(features, dtype=np.float32)
        targets = np.array([self._labels.index(label) for label in labels], np.int64)  # (B,)
        for start in range(0, len(texts), BLOCK_EXAMPLES):
            these = slice(start, start + BLOCK_EXAMPLES)
            block = self._block(texts[these], rows[these])
            advance(self._states, self._mixture.learn(self._states, block, targets[these]))

    def _block(self, texts: Sequence[str], features: ArrayLike) -> Block:
        return Block(
            texts=tuple(texts),
            features=Partial.full(np.asarray(features, dtype=np.float32)),
            head=Partial.none(len(texts), len(self._labels)),
            names=self._names,
        )
