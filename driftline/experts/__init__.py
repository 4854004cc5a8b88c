"""How an answer is mixed from experts: scorers that make different mistakes, each one file.

Used by the fast clock, by serving and by the laboratory alike, so that all of them compute the same scores. Pure: no
I/O, no clock, no randomness, no torch. Floating point is kept from depending on circumstances: where sums are long they
are exact (`exact`), else their order is fixed by the text alone; changes carry numbers, not differences (`state`).
"""

from driftline.experts.block import Block, Partial
from driftline.experts.chars import CHARS
from driftline.experts.expert import Expert, Targets
from driftline.experts.head import Head
from driftline.experts.mixture import MIXER, Mixed, Mixture, advance, scoring_of
from driftline.experts.names import Names
from driftline.experts.ridge import Ridge
from driftline.experts.softmax import probabilities
from driftline.experts.state import Arrays, Cells, Change, Changes, ExpertState, Step, apply
from driftline.experts.words import WORDS

__all__ = [
    "EXPERTS",
    "MIXER",
    "Arrays",
    "Block",
    "Cells",
    "Change",
    "Changes",
    "Expert",
    "ExpertState",
    "Mixed",
    "Mixture",
    "Partial",
    "Step",
    "Targets",
    "advance",
    "apply",
    "probabilities",
    "scoring_of",
]

EXPERTS: dict[str, Expert] = {"head": Head(), "ridge": Ridge(), "words": WORDS, "chars": CHARS, "names": Names()}
"""By the name that `experts` in a feed's config uses."""
