"""Two versions on the same hold-outs: how much worse is one, and how surely, where answers are right or wrong. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Answers", "Comparison", "compare_right", "mcnemar_p"]

Answers = Mapping[int, str | None]
"""Example number → answer; None, or none at all, is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """On `n` hold-outs: mean scores in 0..1, the candidate's `loss` against the reference (reference − candidate), and
    the one-sided p-value of so great a loss if neither is better."""

    n: int
    candidate: float
    reference: float
    loss: float
    p_value: float


def compare_right(pairs: Iterable[tuple[bool, bool]]) -> Comparison:
    """From (candidate is right, reference is right) of each hold-out, at least one, by exact McNemar."""
    right = list(pairs)
    n, ours, theirs = len(right), sum(one for one, _ in right), sum(other for _, other in right)
    return Comparison(
        n=n,
        candidate=ours / n,
        reference=theirs / n,
        loss=(theirs - ours) / n,
        p_value=mcnemar_p(
            worse=sum(other and not one for one, other in right), better=sum(one and not other for one, other in right)
        ),
    )


def mcnemar_p(worse: int, better: int) -> float:
    """P(X ≥ worse) for X ~ Binomial(worse + better, ½) (McNemar 1947, in its binomial form): how likely so lopsided a
    split is if neither is better."""
    from scipy.stats import binom  # half a second that only a gate needs

    return float(binom.sf(worse - 1, worse + better, 0.5)) if worse else 1.0
