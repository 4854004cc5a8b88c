"""Does a candidate do more than answer the most frequent class? Pure; the gate's question beside "is it worse?".

Two ways show that it does, on hold-outs of at least two classes:
- more right answers than the majority class everywhere would give: one-sided exact McNemar (McNemar 1947). It is the
  strong test where no class is frequent.
- another class that is answered more often on its own examples than on the others: Fisher's exact test (Fisher 1935),
  one table for each. It is the strong test where one class is frequent: there a good classifier may have the
  majority's accuracy, its errors being spread over both classes.

The smallest p-value counts, times the number of tests (Bonferroni), so that the level holds over all of them.
Not covered: whether what is shown is worth anything; a significant trifle passes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scipy.stats import binom, hypergeom

from driftline.figures import ClassCounts, by_class

Answers = Mapping[int, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Answers against the majority class. `p_value` small: they are shown to do more. `balanced`: mean recall over the
    classes among the hold-outs; `answered`: the classes that are answered, by name."""

    majority: str
    share: float
    accuracy: float
    balanced: float
    answered: tuple[str, ...]
    p_value: float


def standing(answers: Answers, truth: Mapping[int, str], seqs: Sequence[int]) -> Standing | None:
    """How these answers stand; None where the hold-outs are of fewer than two classes, so that there is no question."""
    labels = [truth[seq] for seq in seqs]
    examples = Counter(labels)
    if len(examples) < 2:
        return None
    ours = [answers.get(seq) for seq in seqs]
    classes = by_class(ours, labels)
    majority = max(sorted(examples), key=lambda label: examples[label])
    tables = [counts for label, counts in classes.items() if label != majority and counts.n and counts.answered]
    p_values = [_p_more_right(ours, labels, majority), *(_p_told_apart(one, len(seqs)) for one in tables)]
    return Standing(
        majority=majority,
        share=examples[majority] / len(seqs),
        accuracy=sum(counts.right for counts in classes.values()) / len(seqs),
        balanced=fmean(counts.right / counts.n for counts in classes.values() if counts.n),
        answered=tuple(label for label, counts in classes.items() if counts.answered),
        p_value=min(1.0, len(p_values) * min(p_values)),
    )


def _p_more_right(ours: Sequence[str | None], labels: Sequence[str], majority: str) -> float:
    """P(X ≥ gains) for X ~ Binomial(gains + losses, ½)."""
    gains = sum(answer == label != majority for answer, label in zip(ours, labels, strict=True))
    losses = sum(answer != label == majority for answer, label in zip(ours, labels, strict=True))
    return float(binom.sf(gains - 1, gains + losses, 0.5)) if gains else 1.0


def _p_told_apart(one: ClassCounts, n: int) -> float:
    """P(X ≥ right) for X hypergeometric: `answered` drawn from n, of which one.n are of the class."""
    return float(hypergeom.sf(one.right - 1, n, one.n, one.answered))
