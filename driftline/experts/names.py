"""Zero-shot: a text is of the class whose name it resembles (Yin, Hay & Roth 2019, arXiv 1909.00161, with a sentence
encoder in place of entailment). It answers a class before its first label, where label names mean something."""

from dataclasses import dataclass

import numpy as np

from driftline.experts.block import Block, Partial
from driftline.experts.exact import product
from driftline.experts.expert import Fixed
from driftline.experts.state import Arrays

__all__ = ["Names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names(Fixed):
    """Scores are `scale` times the cosine of the text's feature and the label name's."""

    scale: float = 10.0

    def score(self, _scoring: Arrays, block: Block) -> Partial:
        """(N, C), each in ±scale. Features and names both have norm √d, so their product is d times the cosine."""
        if block.names is None:
            return Partial.none(len(block), block.head.values.shape[1])
        cosines = product(block.features.values, block.names) / block.names.shape[1]
        return Partial(values=(self.scale * cosines).astype(np.float32), known=block.features.known)
