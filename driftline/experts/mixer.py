"""The experts' scores mixed into one answer, a product of experts with learned powers (Hinton 2002; learned on line as
the logarithmic pools of Genest & Zidek 1986 are fitted): logits are Σₖ w(k, nᶜ)·zₖᶜ + bᶜ.

An expert's weight depends on how often the class was seen (nᶜ, in powers of two), since experts mature at different
speeds: label names know a class before its first example, and are worth little once others have seen a hundred. With
one weight for all classes, a stream that brings class after class teaches the mixer to trust names for ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.experts.block import Partial
from driftline.experts.expert import Targets
from driftline.experts.state import Arrays, ExpertState, Step

__all__ = ["Mixer", "probabilities"]
