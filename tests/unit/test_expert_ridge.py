"""The ridge expert against one ridge regression over everything it learned, solved by least squares."""

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.experts import Block, ExpertState, Partial, apply
from driftline.experts.exact import FEATURE_BITS, on_grid, product
from driftline.experts.ridge import Ridge

DIM, CLASSES = 24, 4


def block_of(features: NDArray[np.float32], known: NDArray[np.bool_] | None = None) -> Block:
    rows = [
        row if fits else None
        for row, fits in zip(features, np.ones(len(features)) if known is None else known, strict=True)
    ]
    return Block(texts=("",) * len(features), features=Partial.of(rows, DIM), head=Partial.none(len(features), CLASSES))


def stream(blocks: int, classes: int = CLASSES, size: int = 8) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((blocks, size, DIM))
    rows *= np.sqrt(DIM) / np.linalg.norm(rows, axis=2, keepdims=True)
    return [(on_grid(row, FEATURE_BITS).astype(np.float32), rng.integers(0, classes, size)) for row in rows]


def learned(
    expert: Ridge, blocks: list[tuple[NDArray[np.float32], NDArray[np.int64]]], classes: int = CLASSES
) -> ExpertState:
    state = expert.start(classes, DIM)
    for features, targets in blocks:
        step = expert.learn(state, block_of(features), targets)
        apply(state.scoring, step.scoring)
        apply(state.learning, step.learning)
    return state


def test_it_is_ridge_regression_over_all_blocks_with_old_ones_fading() -> None:
    expert, blocks = Ridge(penalty=5.0, forgetting=0.9), stream(20)
    fading = np.sqrt(0.9 ** np.arange(19, -1, -1)).repeat(8)[:, None]  # (160, 1)
    rows = np.hstack([np.concatenate([features for features, _ in blocks]), np.ones((160, 1))]) * fading
    wanted = np.where(np.concatenate([t for _, t in blocks])[:, None] == np.arange(CLASSES), 1.0, -1.0) * fading
    penalised = np.vstack([rows, np.sqrt(5.0) * np.eye(DIM + 1)]), np.vstack([wanted, np.zeros((DIM + 1, CLASSES))])
    oracle = np.linalg.lstsq(*penalised, rcond=None)[0].T  # (C, d+1)
    np.testing.assert_allclose(learned(expert, blocks).scoring["weight"], oracle, atol=1e-7)


def test_rows_without_a_feature_teach_nothing_and_are_not_scored() -> None:
    expert, [(features, targets)] = Ridge(), stream(1)
    known = np.arange(8) % 2 == 0
    state = expert.start(CLASSES, DIM)
    some = expert.learn(state, block_of(features, known), targets)
    only = expert.learn(state, block_of(features[known]), targets[known])
    assert all(np.array_equal(some.learning[name], only.learning[name]) for name in ("spread", "sums"))
    assert expert.score(state.scoring, block_of(features, known)).known.tolist() == known.tolist()
    assert not expert.learn(state, block_of(features, known & False), targets).scoring


def test_a_class_that_comes_later_is_as_if_it_had_always_been_there() -> None:
    expert, blocks = Ridge(), stream(6, classes=2)
    early = learned(expert, blocks, classes=3)
    late = expert.relabel(learned(expert, blocks, classes=2), [0, 1, None])
    assert late.scoring["weight"].tobytes() == early.scoring["weight"].tobytes()


def test_classes_move_and_go() -> None:
    expert, blocks = Ridge(), stream(6, classes=3)
    state = learned(expert, blocks, classes=3)
    moved = expert.relabel(state, [2, 0])
    np.testing.assert_array_equal(moved.scoring["weight"], state.scoring["weight"][[2, 0]])


def test_a_direction_that_is_not_seen_for_ever_is_still_penalised() -> None:
    """The recursion on the inverse divides by the forgetting at every block: after these it would hold e^40."""
    expert, [(features, _)] = Ridge(forgetting=0.99), stream(1)
    alike = np.tile(features[:1], (8, 1))
    state = learned(expert, [(alike, np.zeros(8, np.int64))] * 4000)
    assert np.isfinite(state.scoring["weight"]).all()
    assert np.abs(expert.score(state.scoring, block_of(features)).values).max() <= 3.5


@pytest.mark.parametrize("size", [384, 1024, 4096])
def test_products_are_the_exact_sums(size: int) -> None:
    """In Python's integers, which never round."""
    rng = np.random.default_rng(size)
    row = rng.standard_normal(size)
    row *= np.sqrt(size) / np.linalg.norm(row)
    weight = on_grid(rng.standard_normal(size) / 8, 26)
    exact = sum(round(float(x) * 2**13) * round(float(w) * 2**26) for x, w in zip(row, weight, strict=True))
    assert product(row[None], weight[None])[0, 0] == exact / 2**39
