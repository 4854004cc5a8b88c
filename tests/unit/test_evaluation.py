"""Measures on hand-computed cases."""

import copy

import pytest

from replay.evaluation import (
    average_accuracy,
    backward_transfer,
    bootstrap_gap,
    forgetting,
    windows,
)

MATRIX = [
    [0.8, None, None],
    [0.9, 0.6, None],
    [0.7, 0.65, 0.5],
]


def test_windows_cover_the_stream_and_name_the_last_version() -> None:
    predicted, truth = ["a", "b", "a", None, "a"], ["a", "a", "a", "a", "a"]
    found = windows(predicted, truth, [0, 1, 1, None, 2], size=2)
    assert found == [
        {"start": 0, "end": 2, "n": 2, "accuracy": 0.5, "version": 1},
        {"start": 2, "end": 4, "n": 2, "accuracy": 0.5, "version": None},
        {"start": 4, "end": 5, "n": 1, "accuracy": 1.0, "version": 2},
    ]
    assert windows([], [], []) == []


def test_matrix_measures_by_hand_and_without_touching_the_matrix() -> None:
    matrix = copy.deepcopy(MATRIX)
    assert average_accuracy(matrix) == pytest.approx((0.7 + 0.65 + 0.5) / 3)
    assert backward_transfer(matrix) == pytest.approx(((0.7 - 0.8) + (0.65 - 0.6)) / 2)
    assert forgetting(matrix) == pytest.approx(((0.9 - 0.7) + (0.6 - 0.65)) / 2)
    assert matrix == MATRIX


def test_one_segment_has_an_average_but_nothing_to_forget() -> None:
    assert average_accuracy([[0.4]]) == 0.4
    assert backward_transfer([[0.4]]) is None
    assert forgetting([[0.4]]) is None
    assert average_accuracy([]) is None
    assert backward_transfer([]) is None
    assert forgetting([]) is None


def test_segments_without_holdouts_are_left_out() -> None:
    matrix = [[None, None, None], [None, 0.5, None], [None, 0.75, 1.0]]
    assert average_accuracy(matrix) == pytest.approx(0.875)
    assert backward_transfer(matrix) == pytest.approx(0.25)
    assert forgetting(matrix) == pytest.approx(-0.25)


def test_bootstrap_is_paired_seeded_and_about_the_normal_interval() -> None:
    ours = [True] * 80 + [False] * 20
    theirs = [True] * 70 + [False] * 30
    first = bootstrap_gap(ours, theirs, seed=1)
    assert first == bootstrap_gap(ours, theirs, seed=1)
    assert first.gap == pytest.approx(0.1)
    # Paired: 10 of 100 differ, so the standard error is √(0.1 − 0.01) / 10 = 0.03; unpaired it would be twice that.
    assert first.low == pytest.approx(0.1 - 1.96 * 0.03, abs=0.012)
    assert first.high == pytest.approx(0.1 + 1.96 * 0.03, abs=0.012)


def test_bootstrap_of_equals_is_zero_and_of_nothing_an_error() -> None:
    same = bootstrap_gap([True, False], [True, False])
    assert (same.gap, same.low, same.high) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no examples"):
        bootstrap_gap([], [])
