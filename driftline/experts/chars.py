"""Characters in threes, fours and fives, across blanks: spelling, inflection, emoji, scripts without blanks.

Measured beside its rivals in docs/lab-notes.md; the learning is `linear`'s.
"""

from driftline.experts.hashing import character_grams
from driftline.experts.linear import Linear

__all__ = ["CHARS"]

CHARS = Linear(reading=character_grams, rate=0.2)
