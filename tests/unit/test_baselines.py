"""The cheap rivals. The oracle of the recursive head is the batch solution."""

import numpy as np
import pytest
from numpy.typing import NDArray

from replay.baselines import LastLabel, Majority, OnlineHead

LABELS = ("neg", "neu", "pos")


def stream(n: int, d: int, seed: int = 0) -> tuple[NDArray[np.float64], list[str]]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d))
    rows *= np.sqrt(d) / np.linalg.norm(rows, axis=1, keepdims=True)
    truth = (rows @ rng.normal(size=(d, 3))).argmax(axis=1)
    return rows, [LABELS[one] for one in truth]


def batch_ridge(rows: NDArray[np.float64], labels: list[str], ridge: float, weight: NDArray[np.float64]) -> NDArray:
    design = np.hstack([rows, np.ones((len(rows), 1))])
    targets = np.where(np.array(labels)[:, None] == np.array(LABELS)[None, :], 1.0, -1.0)
    return np.linalg.solve(design.T @ (weight[:, None] * design) + ridge, design.T @ (weight[:, None] * targets))


def test_majority_follows_the_counts() -> None:
    rival = Majority(LABELS)
    assert rival.predict(2) == [None, None]
    rival.learn(["pos", "neg", "pos"])
    assert rival.predict(1) == ["pos"]
    rival.learn(["neg"])
    assert rival.predict(3) == ["neg"] * 3


def test_last_label_repeats_the_last() -> None:
    rival = LastLabel(LABELS)
    assert rival.predict(1) == [None]
    rival.learn(["pos", "neu"])
    rival.learn([])
    assert rival.predict(2) == ["neu", "neu"]


def test_the_recursive_head_equals_batch_ridge() -> None:
    rows, labels = stream(32 * 40 + 7, 24)
    head = OnlineHead(LABELS, 24)
    for start in range(0, len(rows), 13):
        head.learn(rows[start : start + 13], labels[start : start + 13])
    learned = 32 * 40
    ridge = 300.0 * np.eye(25)
    expected = batch_ridge(rows[:learned], labels[:learned], ridge, np.ones(learned))
    np.testing.assert_allclose(head.weights, expected, rtol=1e-8, atol=1e-10)


def test_forgetting_weights_old_blocks_less() -> None:
    rows, labels = stream(96, 8)
    head = OnlineHead(LABELS, 8, ridge=10.0, forgetting=0.5)
    head.learn(rows, labels)
    ages = np.repeat([4, 2, 1], 32)  # 0.5^-age, so the start's penalty fades by 0.5^3 as well
    expected = batch_ridge(rows, labels, 10.0 * np.eye(9) * 0.125, 1.0 / ages)
    np.testing.assert_allclose(head.weights, expected, rtol=1e-8)


def test_it_answers_nothing_before_its_first_block_and_learns_after_it() -> None:
    rows, labels = stream(32 * 20, 16)
    head = OnlineHead(LABELS, 16, ridge=1.0)
    head.learn(rows[:31], labels[:31])
    assert head.predict(rows[:2]) == [None, None]
    head.learn(rows[31:], labels[31:])
    answers = head.predict(rows)
    assert np.mean([ours == label for ours, label in zip(answers, labels, strict=True)]) > 0.85


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        OnlineHead(LABELS, 4).learn(np.ones((2, 4)), ["neg"])
