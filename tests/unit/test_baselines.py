"""The cheap rivals. The oracle of the recursive head is the batch solution."""

import numpy as np
import pytest
from numpy.typing import NDArray

from replay.baselines import GRID, LastLabel, Majority, OnlineHead, Ridge

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


PLAIN = Ridge(300.0, 1.0)


@pytest.mark.parametrize("setting", [PLAIN, Ridge(10.0, 0.5), Ridge(1000.0, 0.995)])
def test_every_setting_equals_batch_ridge(setting: Ridge) -> None:
    """Block b of k is weighted by forgetting^(k - b), and so is the penalty that was there before the first."""
    rows, labels = stream(32 * 40 + 7, 24)
    head = OnlineHead(LABELS, 24, [setting])
    for start in range(0, len(rows), 13):
        head.learn(rows[start : start + 13], labels[start : start + 13])
    learned = 32 * 40
    weight = setting.forgetting ** np.repeat(np.arange(39, -1, -1.0), 32)
    penalty = setting.ridge * setting.forgetting**40 * np.eye(25)
    expected = batch_ridge(rows[:learned], labels[:learned], penalty, weight)
    np.testing.assert_allclose(head.weights, expected, rtol=1e-8, atol=1e-10)


def test_side_by_side_each_learns_as_it_does_alone() -> None:
    rows, labels = stream(32 * 12, 8)
    for chosen in GRID:
        together = OnlineHead(LABELS, 8, sorted(GRID, key=lambda one: one != chosen))
        alone = OnlineHead(LABELS, 8, [chosen])
        for head in (together, alone):
            head.learn(rows[:32], labels[:32])
        assert together.chosen == chosen, "nothing was judged yet, so the first answers"
        np.testing.assert_allclose(together.weights, alone.weights, rtol=1e-12)


def test_the_setting_with_the_least_error_so_far_answers() -> None:
    """Each block is judged by weights that have not seen it; the winner is found by a plain loop over single heads."""
    rows, labels = stream(32 * 30, 16, seed=3)
    labels[32 * 15 :] = [LABELS[(LABELS.index(one) + 1) % 3] for one in labels[32 * 15 :]]  # what held holds no more
    grid = [Ridge(300.0, 1.0), Ridge(3000.0, 1.0), Ridge(30.0, 0.7), Ridge(30.0, 0.9)]
    head, alone = OnlineHead(LABELS, 16, grid), [OnlineHead(LABELS, 16, [one]) for one in grid]
    losses, used = np.zeros(len(grid)), set()
    for start in range(0, len(rows), 32):
        block, truth = rows[start : start + 32], labels[start : start + 32]
        assert head.predict(block) == alone[int(losses.argmin())].predict(block)
        for place, one in enumerate(alone):
            for row, label in zip(block, truth, strict=True):
                scores = [*row, 1.0] @ one.weights
                losses[place] += sum(
                    (s - (1 if name == label else -1)) ** 2 for name, s in zip(LABELS, scores, strict=True)
                )
        used.add(int(losses.argmin()))
        for one in (head, *alone):
            one.learn(block, truth)
        assert head.chosen == grid[int(losses.argmin())]
    assert len(used) > 1, "the stream changes, and so does the choice"


def test_it_answers_nothing_before_its_first_block_and_learns_after_it() -> None:
    rows, labels = stream(32 * 20, 16)
    head = OnlineHead(LABELS, 16, [Ridge(1.0, 1.0)])
    head.learn(rows[:31], labels[:31])
    assert head.predict(rows[:2]) == [None, None]
    head.learn(rows[31:], labels[31:])
    answers = head.predict(rows)
    assert np.mean([ours == label for ours, label in zip(answers, labels, strict=True)]) > 0.85


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        OnlineHead(LABELS, 4).learn(np.ones((2, 4)), ["neg"])
