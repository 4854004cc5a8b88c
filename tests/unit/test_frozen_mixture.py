"""The rival to beat: it answers at once, by names first, and learns what it is given, in order, whatever the parts."""

import numpy as np
import pytest

from replay.frozen_mixture import FrozenMixture

LABELS = ("negative", "positive")
NAMES = np.eye(2, 12, dtype=np.float32) * np.sqrt(12)
WORDS = (("awful", "broken"), ("lovely", "perfect"))


def stream(n: int, seed: int = 0) -> tuple[list[str], np.ndarray, list[str]]:
    """Texts with a word of their class, and features that say nothing of it."""
    draw = np.random.default_rng(seed)
    targets = draw.integers(0, 2, n).tolist()
    texts = [f"{WORDS[target][draw.integers(2)]} thing number {draw.integers(50)}" for target in targets]
    return texts, draw.normal(size=(n, 12)).astype(np.float32), [LABELS[target] for target in targets]


def test_before_the_first_label_names_answer() -> None:
    rival = FrozenMixture(LABELS, NAMES)
    assert rival.predict(["x", "y"], NAMES) == ["negative", "positive"]


def test_it_learns_what_only_words_tell() -> None:
    rival = FrozenMixture(LABELS, NAMES)
    rival.learn(*stream(400))
    texts, features, labels = stream(200, seed=1)
    right = sum(answer == label for answer, label in zip(rival.predict(texts, features), labels, strict=True))
    assert right >= 195


def test_answering_teaches_nothing() -> None:
    asked, unasked = FrozenMixture(LABELS, NAMES), FrozenMixture(LABELS, NAMES)
    texts, features, labels = stream(96)
    for start in range(0, 96, 32):
        these = slice(start, start + 32)
        asked.predict(texts, features)
        for rival in (asked, unasked):
            rival.learn(texts[these], features[these], labels[these])
    assert asked.predict(texts, features) == unasked.predict(texts, features)


@pytest.mark.parametrize("size", [32, 64, 320])
def test_whole_blocks_give_the_same_whatever_they_came_in(size: int) -> None:
    texts, features, labels = stream(320)
    rival, other = FrozenMixture(LABELS, NAMES), FrozenMixture(LABELS, NAMES)
    other.learn(texts, features, labels)
    for start in range(0, 320, size):
        these = slice(start, start + size)
        rival.learn(texts[these], features[these], labels[these])
    asked = stream(300, seed=2)
    assert rival.predict(*asked[:2]) == other.predict(*asked[:2])
