"""Exams on hand-computed cases, and against scikit-learn."""

import random

import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from driftline.figures import Recall, accuracy, by_class, confusion, figures_on, macro_f1


def test_accuracy_counts_a_missing_answer_as_wrong() -> None:
    assert accuracy(["a", None, "b", "a"], ["a", "a", "b", "b"]) == 0.5
    assert accuracy([], []) is None
    with pytest.raises(ValueError, match="zip"):
        accuracy(["a"], [])


def test_macro_f1_by_hand() -> None:
    # a: TP 1, FP 1, FN 1 → 0.5; b: TP 1, FP 0, FN 1 → 2/3; c: TP 0, FP 1, FN 1 → 0; d does not occur.
    predicted = ["a", "a", "b", "c", None]
    truth = ["a", "b", "b", "a", "c"]
    assert macro_f1(predicted, truth, ["a", "b", "c", "d"]) == pytest.approx((0.5 + 2 / 3 + 0) / 3)
    assert macro_f1([], [], ["a", "b"]) is None
    assert macro_f1(["a", "b"], ["a", "b"], ["a", "b"]) == 1.0
    assert macro_f1(predicted, truth, ["b"]) == pytest.approx(2 / 3)


def test_an_exam_shows_what_accuracy_hides() -> None:
    truth = dict(enumerate(["positive"] * 9 + ["negative"]))
    exam = figures_on(dict.fromkeys(range(10), "positive"), truth, range(10))
    assert (exam.accuracy, exam.n) == (0.9, 10)
    assert exam.macro_f1 == pytest.approx((18 / 19 + 0) / 2)
    assert exam.recall == {"negative": Recall(recall=0.0, n=1), "positive": Recall(recall=1.0, n=9)}


def test_an_exam_on_some_numbers_only() -> None:
    truth = {1: "a", 2: "b", 3: "a"}
    exam = figures_on({1: "a", 2: None}, truth, [1, 2, 3], recall=False)
    assert exam.accuracy == pytest.approx(1 / 3)
    assert (exam.n, exam.recall) == (3, {})


def test_classes_and_confusion_by_hand() -> None:
    predicted, truth = ["a", "a", None, "c"], ["a", "b", "b", "b"]
    assert confusion(predicted, truth) == {"a": {"a": 1}, "b": {"": 1, "a": 1, "c": 1}}
    found = by_class(predicted, truth)
    assert (found["a"].precision, found["a"].recall, found["a"].f1) == (0.5, 1.0, pytest.approx(2 / 3))
    assert (found["b"].precision, found["b"].recall, found["b"].n) == (None, 0.0, 3)
    assert (found["c"].precision, found["c"].recall, found["c"].answered) == (0.0, None, 1)


def test_per_class_figures_are_those_of_scikit_learn() -> None:
    draw, labels = random.Random(0), ["a", "b", "c"]
    truth = draw.choices(labels, weights=[8, 3, 1], k=500)
    predicted = [label if draw.random() < 0.6 else draw.choice(labels) for label in truth]
    found = by_class(predicted, truth)
    options = {"labels": labels, "average": None}
    assert [found[label].precision for label in labels] == pytest.approx(precision_score(truth, predicted, **options))
    assert [found[label].recall for label in labels] == pytest.approx(recall_score(truth, predicted, **options))
    assert [found[label].f1 for label in labels] == pytest.approx(f1_score(truth, predicted, **options))
    assert macro_f1(predicted, truth) == pytest.approx(f1_score(truth, predicted, average="macro"))
