"""Words and pairs of words, as the text is split (`hashing`): any script, and no tokenizer.

Measured beside its rivals in docs/lab-notes.md; the learning is `linear`'s.
"""

from driftline.experts.hashing import word_grams
from driftline.experts.linear import Linear

__all__ = ["WORDS"]

WORDS = Linear(reading=word_grams, rate=0.4)
