"""The mixture that a feed's config asks for: the same for the fast clock, for serving and in the laboratory. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from driftline.config import FastConfig
from driftline.experts import EXPERTS, Expert, Mixture
from driftline.experts.linear import Linear

__all__ = ["are_words", "chosen", "mixture_of", "spoken"]

LEAST_LETTERS = 3


def chosen(section: FastConfig) -> tuple[str, ...]:
    """The names of the chosen experts, in the order of `EXPERTS`."""
    return tuple(name for name in EXPERTS if name in section.experts)


def mixture_of(section: FastConfig) -> Mixture:
    """The chosen experts, bounded as the config says."""
    return Mixture(experts={name: _bounded(EXPERTS[name], section) for name in chosen(section)})


def spoken(labels: Sequence[str]) -> list[str]:
    """Label names as one would say them, which is what `names` compares texts with: `card_arrival` is two words."""
    return [label.replace("_", " ") for label in labels]


def are_words(labels: Sequence[str]) -> bool:
    """Whether label names look as if they said something: most have three letters or more, or letters of a script that
    needs fewer. Not all: among 150 intents there is a `no` and a `w2`."""
    return sum(map(_is_word, labels)) > len(labels) / 2


def _is_word(label: str) -> bool:
    letters = [character for character in label if character.isalpha()]
    return len(letters) >= LEAST_LETTERS or any(ord(character) > 0x2E80 for character in letters)


def _bounded(expert: Expert, section: FastConfig) -> Expert:
    return replace(expert, budget_bytes=section.budget_bytes) if isinstance(expert, Linear) else expert
