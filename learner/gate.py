"""The gate: does a candidate go live? Pure; a rejection is a value with its numbers, never an error.

Guards invariant 10: on no kept hold-out set may a candidate be shown to be worse than the incumbent, nor worse than the
anchor (the best version so far), so that small losses cannot add up over versions.

"Shown to be worse" on a set: the loss exceeds `margin`, and the task's one-sided test of it rejects at `significance`
after Holm's correction (Holm 1979) over all sets and references. What is a right answer, which test is exact for it,
and what speaks against a candidate that only guesses is the task's to say (`driftline.tasks`).
Not covered: a loss that too few hold-outs can show; then `too_few_holdouts` says that only the sanity checks decided.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import scipy.stats  # noqa: F401  what tasks judge with, so that the first cycle does not wait for it

from driftline.config import GateConfig
from driftline.records import GateDecision, GateReason
from driftline.tasks import Answers, Comparison, Task

POOLED, ALL_CLASSES = "pooled", "all_classes"
BOTH_KNOW = "of the classes that both know"


@dataclass(frozen=True, slots=True)
class _Judged:
    """Candidate `against` one reference (the incumbent, the anchor) on the hold-out set that `reference` names."""

    against: str
    reference: str
    found: Comparison


def decide(
    task: Task,
    candidate: Answers,
    incumbent: Answers,
    anchor: Answers | None,
    truth: Mapping[int, str],
    sets: Mapping[str, Sequence[int]],
    section: GateConfig,
    *,
    finite: bool = True,
    knows: Mapping[str, Collection[str]] | None = None,
    within: Mapping[str, Answers] | None = None,
) -> GateDecision:
    """Promote or reject.

    Answers and truth map example numbers to labels; an answer of None, or none at all, is wrong. `sets` maps names
    (`pooled`, `recent`, `segment:N`) to hold-out numbers; empty sets are passed over. `anchor` None: the anchor is the
    incumbent. `finite`: the candidate's weights and logits hold no NaN and no infinite number. `knows`: the classes of
    a reference ("incumbent", "anchor") that was made with other labels; it is compared with on hold-outs of these only,
    and the incumbent's are what there must be `min_holdouts` of. `within`: for such a reference the candidate's answers
    among these classes, or the reference would win by what it cannot answer; what it really answers is compared on all
    hold-outs together, of new classes too.
    """
    references = {"incumbent": incumbent} | ({} if anchor is None else {"anchor": anchor})
    reasons = [] if finite else [GateReason(code="not_finite", holds=False, detail="weights or logits are not finite")]
    candidates = {name: (within or {}).get(name, candidate) for name in references}
    shared = {name: _shared(sets, truth, (knows or {}).get(name)) for name in references}
    pooled = shared["incumbent"].get(POOLED, ())
    enough = len(pooled) >= section.min_holdouts
    if not enough:
        detail = f"{len(pooled)} of {section.min_holdouts} hold-outs: only the sanity checks decide"
        reasons.append(GateReason(code="too_few_holdouts", holds=True, reference=POOLED, n=len(pooled), detail=detail))
    else:
        comparisons = _compare_all(task, candidates, references, truth, shared)
        comparisons += _as_served(task, candidate, references, truth, sets.get(POOLED, ()), knows or {})
        reasons += _judge(comparisons, section)
    reasons += task.objections(candidate, incumbent, truth, pooled, section.significance if enough else None)
    promote = all(reason.holds for reason in reasons)
    best = "incumbent" if anchor is None else "anchor"
    return GateDecision(
        promote=promote,
        reasons=tuple(reasons),
        becomes_anchor=promote and _not_below(task, candidate, references[best], truth, shared[best].get(POOLED, ())),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given; each is at most 1."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _compare_all(
    task: Task,
    candidates: Mapping[str, Answers],
    references: Mapping[str, Answers],
    truth: Mapping[int, str],
    sets: Mapping[str, Mapping[str, Sequence[int]]],
) -> list[_Judged]:
    """Of each set with each reference: `sets` of the reference, and the candidate's answers beside its own."""
    return [
        _Judged(against, name, task.compare(candidates[against], answers, truth, seqs))
        for name in sets["incumbent"]
        for against, answers in references.items()
        if (seqs := sets[against][name])
    ]


def _as_served(
    task: Task,
    candidate: Answers,
    references: Mapping[str, Answers],
    truth: Mapping[int, str],
    pooled: Sequence[int],
    knows: Collection[str],
) -> list[_Judged]:
    """With each reference that does not know all classes, on all hold-outs, by what would really be answered: who
    answers a new class everywhere must not go live because it also knows the old ones."""
    return [
        _Judged(name, ALL_CLASSES, task.compare(candidate, answers, truth, pooled))
        for name, answers in references.items()
        if name in knows and pooled
    ]


def _shared(
    sets: Mapping[str, Sequence[int]], truth: Mapping[int, str], known: Collection[str] | None
) -> dict[str, Sequence[int]]:
    """The sets without hold-outs of a class that the reference does not know; as they are where it knows all."""
    if known is None:
        return dict(sets)
    return {name: [seq for seq in seqs if truth[seq] in known] for name, seqs in sets.items()}


def _judge(comparisons: list[_Judged], section: GateConfig) -> list[GateReason]:
    """Holm's correction over all of them. The detail tells the two kinds apart where classes were added."""
    partly = {one.against for one in comparisons if one.reference == ALL_CLASSES}
    adjusted = holm([one.found.p_value for one in comparisons])
    judged = zip(comparisons, adjusted, strict=True)
    return [
        _reason(one, p, section, BOTH_KNOW if one.against in partly and one.reference != ALL_CLASSES else "")
        for one, p in judged
    ]


def _reason(one: _Judged, p_value: float, section: GateConfig, detail: str) -> GateReason:
    is_worse = one.found.loss > section.margin and p_value < section.significance
    return GateReason(
        code=f"worse_than_{one.against}" if is_worse else "not_worse",
        holds=not is_worse,
        against=one.against,
        reference=one.reference,
        n=one.found.n,
        candidate_accuracy=one.found.candidate,
        reference_accuracy=one.found.reference,
        p_value=p_value,
        detail=detail,
    )


def _not_below(task: Task, candidate: Answers, anchor: Answers, truth: Mapping[int, str], seqs: Sequence[int]) -> bool:
    return not seqs or task.compare(candidate, anchor, truth, seqs).loss <= 0
