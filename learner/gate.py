"""The gate: does a candidate go live? Pure; a rejection is a value with its numbers, never an error.

Guards invariant 10: on no kept hold-out set may a candidate be shown to be worse than the incumbent, nor worse than the
anchor (the best version so far), so that small losses cannot add up over versions.

"Shown to be worse" on a set: the accuracy lost exceeds `margin`, and the one-sided exact McNemar test (McNemar 1947,
in its binomial form) rejects at `significance` after Holm's correction (Holm 1979) over all sets and references.
A candidate that answers one class only, or is not shown to do more than answer the most frequent one
(`learner.majority`, at `significance`), is rejected where the incumbent is shown to and has the greater mean recall;
where nothing better is live it may go live, and the reason says what it is.
Not covered: a loss that too few hold-outs can show; then `too_few_holdouts` says that only the sanity checks decided.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import binom

from driftline.config import GateConfig
from driftline.records import GateDecision, GateReason
from learner.majority import Standing, standing

POOLED = "pooled"
Answers = Mapping[int, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    """Candidate against one reference on one set. `worse`: only the reference is right; `better`: only we are."""

    against: str
    reference: str
    n: int
    candidate_right: int
    reference_right: int
    worse: int
    better: int


def decide(
    candidate: Answers,
    incumbent: Answers,
    anchor: Answers | None,
    truth: Mapping[int, str],
    sets: Mapping[str, Sequence[int]],
    section: GateConfig,
    *,
    finite: bool = True,
    knows: Mapping[str, Collection[str]] | None = None,
) -> GateDecision:
    """Promote or reject.

    Answers and truth map example numbers to labels; an answer of None, or none at all, is wrong. `sets` maps names
    (`pooled`, `recent`, `segment:N`) to hold-out numbers; empty sets are passed over. `anchor` None: the anchor is the
    incumbent. `finite`: the candidate's weights and logits hold no NaN and no infinite number. `knows`: the classes of
    a reference ("incumbent", "anchor") that was made with other labels; it is compared with on hold-outs of these only,
    and the incumbent's are what there must be `min_holdouts` of.
    """
    references = {"incumbent": incumbent} | ({} if anchor is None else {"anchor": anchor})
    reasons = [] if finite else [GateReason(code="not_finite", holds=False, detail="weights or logits are not finite")]
    shared = {name: _shared(sets, truth, (knows or {}).get(name)) for name in references}
    pooled = shared["incumbent"].get(POOLED, ())
    enough = len(pooled) >= section.min_holdouts
    if not enough:
        detail = f"{len(pooled)} of {section.min_holdouts} hold-outs: only the sanity checks decide"
        reasons.append(GateReason(code="too_few_holdouts", holds=True, reference=POOLED, n=len(pooled), detail=detail))
    else:
        reasons += _judge(_compare_all(candidate, references, truth, shared), section)
    reasons += _majority(candidate, incumbent, truth, pooled, section.significance if enough else None)
    promote = all(reason.holds for reason in reasons)
    best = "incumbent" if anchor is None else "anchor"
    return GateDecision(
        promote=promote,
        reasons=tuple(reasons),
        becomes_anchor=promote and _not_below(candidate, references[best], truth, shared[best].get(POOLED, ())),
    )


def mcnemar_p(worse: int, better: int) -> float:
    """P(X ≥ worse) for X ~ Binomial(worse + better, ½): how likely so lopsided a split is if neither is better."""
    return float(binom.sf(worse - 1, worse + better, 0.5)) if worse else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given; each is at most 1."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _compare_all(
    candidate: Answers,
    references: Mapping[str, Answers],
    truth: Mapping[int, str],
    sets: Mapping[str, Mapping[str, Sequence[int]]],
) -> list[_Comparison]:
    """Of each set with each reference, `sets` of the reference."""
    return [
        _compare(candidate, answers, truth, seqs, against=against, reference=name)
        for name in sets["incumbent"]
        for against, answers in references.items()
        if (seqs := sets[against][name])
    ]


def _shared(
    sets: Mapping[str, Sequence[int]], truth: Mapping[int, str], known: Collection[str] | None
) -> dict[str, Sequence[int]]:
    """The sets without hold-outs of a class that the reference does not know; as they are where it knows all."""
    if known is None:
        return dict(sets)
    return {name: [seq for seq in seqs if truth[seq] in known] for name, seqs in sets.items()}


def _compare(
    candidate: Answers, answers: Answers, truth: Mapping[int, str], seqs: Sequence[int], *, against: str, reference: str
) -> _Comparison:
    right = [(candidate.get(seq) == truth[seq], answers.get(seq) == truth[seq]) for seq in seqs]
    return _Comparison(
        against=against,
        reference=reference,
        n=len(seqs),
        candidate_right=sum(ours for ours, _ in right),
        reference_right=sum(theirs for _, theirs in right),
        worse=sum(theirs and not ours for ours, theirs in right),
        better=sum(ours and not theirs for ours, theirs in right),
    )


def _judge(comparisons: list[_Comparison], section: GateConfig) -> list[GateReason]:
    adjusted = holm([mcnemar_p(one.worse, one.better) for one in comparisons])
    return [_reason(one, p_value, section) for one, p_value in zip(comparisons, adjusted, strict=True)]


def _reason(one: _Comparison, p_value: float, section: GateConfig) -> GateReason:
    loss = (one.reference_right - one.candidate_right) / one.n
    is_worse = loss > section.margin and p_value < section.significance
    return GateReason(
        code=f"worse_than_{one.against}" if is_worse else "not_worse",
        holds=not is_worse,
        against=one.against,
        reference=one.reference,
        n=one.n,
        candidate_accuracy=one.candidate_right / one.n,
        reference_accuracy=one.reference_right / one.n,
        p_value=p_value,
    )


def _majority(
    candidate: Answers, incumbent: Answers, truth: Mapping[int, str], seqs: Sequence[int], significance: float | None
) -> list[GateReason]:
    """What there is to say against a candidate that only guesses. `significance` None: too few hold-outs to test, so
    that only one that answers a single class is looked at, and what stands there counts."""
    ours, theirs = standing(candidate, truth, seqs), standing(incumbent, truth, seqs)
    if ours is None or theirs is None:
        return []
    one_class = len(ours.answered) == 1
    if not one_class and (significance is None or ours.p_value < significance):
        return []
    shown = len(theirs.answered) > 1 if significance is None else theirs.p_value < significance
    better_is_live = shown and theirs.balanced > ours.balanced
    return [_guesses(ours, len(seqs), holds=not better_is_live)]


def _guesses(ours: Standing, n: int, *, holds: bool) -> GateReason:
    one_class = len(ours.answered) == 1
    return GateReason(
        code="answers_one_class" if one_class else "not_above_majority",
        holds=holds,
        against="majority",
        reference=POOLED,
        n=n,
        candidate_accuracy=ours.accuracy,
        reference_accuracy=ours.share,
        p_value=ours.p_value,
        detail=ours.answered[0] if one_class else ours.majority,
    )


def _not_below(candidate: Answers, anchor: Answers, truth: Mapping[int, str], seqs: Sequence[int]) -> bool:
    return sum(candidate.get(s) == truth[s] for s in seqs) >= sum(anchor.get(s) == truth[s] for s in seqs)
