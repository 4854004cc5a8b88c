"""Changes are written whole or not at all."""

import numpy as np
import pytest

from driftline.experts import Arrays, Cells, Change, apply


def two_arrays() -> Arrays:
    return {"a": np.zeros((2, 3), np.float32), "b": np.zeros(2)}


def test_whole_arrays_and_cells() -> None:
    arrays = two_arrays()
    apply(
        arrays, {"a": Cells(places=np.array([4, 0]), values=np.array([1.5, -2], np.float32)), "b": np.array([3.0, 4])}
    )
    assert arrays["a"].tolist() == [[-2, 0, 0], [0, 1.5, 0]]
    assert arrays["b"].tolist() == [3, 4]


def test_rows() -> None:
    arrays = two_arrays()
    apply(arrays, {"a": Cells(places=np.array([1]), values=np.array([[1, 2, 3]], np.float32))})
    assert arrays["a"].tolist() == [[0, 0, 0], [1, 2, 3]]


@pytest.mark.parametrize(
    "wrong",
    [
        Cells(places=np.array([6]), values=np.ones(1, np.float32)),
        Cells(places=np.array([-1]), values=np.ones(1, np.float32)),
        Cells(places=np.array([0, 1]), values=np.ones(1, np.float32)),
        Cells(places=np.array([0]), values=np.ones(1)),
        Cells(places=np.array([0, 2]), values=np.ones((2, 3), np.float32)),
        Cells(places=np.array([0]), values=np.ones((1, 2), np.float32)),
        Cells(places=np.array([[0, 1], [2, 3]]), values=np.ones((2, 2), np.float32)),
        Cells(places=np.array([[0, 1, 1], [1, 0, 0]]), values=np.ones((2, 3), np.float32)),
        np.ones((2, 3)),
        np.ones((3, 2), np.float32),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(wrong: Change) -> None:
    arrays = two_arrays()
    with pytest.raises(ValueError, match=r"^a: the change"):
        apply(arrays, {"b": np.ones(2), "a": wrong})
    with pytest.raises(KeyError):
        apply(arrays, {"b": np.ones(2), "c": wrong})
    assert not arrays["b"].any()
    assert not arrays["a"].any()


def test_nothing_changed() -> None:
    arrays = two_arrays()
    apply(arrays, {"a": Cells(places=np.zeros(0, np.int64), values=np.zeros(0, np.float32))})
    assert not arrays["a"].any()
