"""How good answers are: accuracy, and what each class got, so that a frequent class cannot hide the others. Pure.

An answer of None (none came, or nothing was known yet) is wrong and names no class. Shares are in 0..1.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

NO_ANSWER = ""
"""Stands for a missing answer where answers are keys; no class can be called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Of the `n` examples of a class, `recall` is the share that was answered right."""

    recall: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One exam on `n` examples, a whole number. Manifests of format 1 know `accuracy` and `n` alone.

    `recall` has the classes that occur among the examples; it is left out (empty) for the hold-outs of single segments.
    """

    accuracy: float
    n: float
    macro_f1: float | None = None
    recall: dict[str, Recall] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCounts:
    """One class: `n` examples of it, `answered` answers that name it, `right` that are both."""

    n: int
    answered: int
    right: int

    @property
    def recall(self) -> float | None:
        """None without an example."""
        return self.right / self.n if self.n else None

    @property
    def precision(self) -> float | None:
        """None without an answer that names it."""
        return self.right / self.answered if self.answered else None

    @property
    def f1(self) -> float:
        """2·TP / (2·TP + FP + FN); the class must occur."""
        return 2 * self.right / (self.n + self.answered)


def accuracy(predicted: Sequence[str | None], truth: Sequence[str]) -> float | None:
    """Share of right answers; None of nothing. ValueError if the lengths differ."""
    right = [ours == label for ours, label in zip(predicted, truth, strict=True)]
    return sum(right) / len(right) if right else None


def by_class(predicted: Sequence[str | None], truth: Sequence[str]) -> dict[str, ClassCounts]:
    """Every class that occurs among the truth or the answers, by name. ValueError if the lengths differ."""
    examples, answers = Counter(truth), Counter(label for label in predicted if label is not None)
    right = Counter(label for ours, label in zip(predicted, truth, strict=True) if ours == label)
    return {
        label: ClassCounts(n=examples[label], answered=answers[label], right=right[label])
        for label in sorted(examples | answers)
    }


def macro_f1(
    predicted: Sequence[str | None], truth: Sequence[str], labels: Sequence[str] | None = None
) -> float | None:
    """Mean F1 over those of `labels` (None: all) that occur among the truth or the answers; None if none does."""
    scores = [counts.f1 for label, counts in by_class(predicted, truth).items() if labels is None or label in labels]
    return fmean(scores) if scores else None


def confusion(predicted: Sequence[str | None], truth: Sequence[str]) -> dict[str, dict[str, int]]:
    """Label → answer → how many; only what occurs, by name. `NO_ANSWER` stands for a missing one."""
    cells = Counter(zip(truth, (label or NO_ANSWER for label in predicted), strict=True))
    found: dict[str, dict[str, int]] = {}
    for (label, answer), n in sorted(cells.items()):
        found.setdefault(label, {})[answer] = n
    return found


def figures_on(
    answers: Mapping[int, str | None], truth: Mapping[int, str], seqs: Sequence[int], *, recall: bool = True
) -> Figures:
    """The exam over these example numbers, which must not be none; a missing answer is wrong."""
    ours, labels = [answers.get(seq) for seq in seqs], [truth[seq] for seq in seqs]
    classes = by_class(ours, labels)
    return Figures(
        accuracy=sum(counts.right for counts in classes.values()) / len(seqs),
        n=len(seqs),
        macro_f1=fmean(counts.f1 for counts in classes.values()),
        recall={
            label: Recall(recall=counts.right / counts.n, n=counts.n)
            for label, counts in classes.items()
            if recall and counts.n
        },
    )
