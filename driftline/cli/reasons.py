"""The gate's reasons in words, for the history, the replay's page and its summary."""

from driftline.records import GateDecision, GateReason

CHANCE = 0.5
"""A p-value from here on says nothing, and is shown only where it decided."""
_SETS = {"pooled": "all hold-outs", "recent": "the latest hold-outs"}


def decision_in_words(decision: GateDecision) -> str:
    """One sentence: what was decided, and the reasons that decided it."""
    if any(reason.code == "imported" for reason in decision.reasons):
        return "imported, not judged by the gate"
    verdict = "promoted" if decision.promote else "rejected"
    telling = [r for r in decision.reasons if not r.holds] if not decision.promote else _for_promotion(decision)
    return f"{verdict}: {'; '.join(reason_in_words(reason) for reason in telling)}" if telling else verdict


def reason_in_words(reason: GateReason) -> str:
    """`not shown to be worse than the incumbent on all hold-outs: 76.2 % against 75.0 % of 410`."""
    match reason.code:
        case "too_few_holdouts":
            return f"too few hold-outs to compare ({reason.n or 0}), only the sanity checks decided"
        case "not_finite":
            return "weights or answers are not finite"
        case "incumbent_changed":
            return "another version went live meanwhile"
        case "paused":
            return "automatic promotion is paused"
        case "imported":
            return "imported"
        case _:
            return _comparison(reason)


def set_in_words(name: str | None) -> str:
    """`segment:3` → `segment 3`, the sets' names in words otherwise."""
    name = name or "the hold-outs"
    return _SETS.get(name, name.replace(":", " "))


def _comparison(reason: GateReason) -> str:
    shown = "not shown" if reason.holds else "shown"
    than = f" than the {reason.against}" if reason.against else ""
    return f"{shown} to be worse{than} on {set_in_words(reason.reference)}{_figures(reason)}"


def _figures(reason: GateReason) -> str:
    if reason.candidate_accuracy is None or reason.reference_accuracy is None:
        return ""
    telling = reason.p_value is not None and (reason.p_value < CHANCE or not reason.holds)
    p_value = f", p = {reason.p_value:.3f}" if telling else ""
    ours, theirs = 100 * reason.candidate_accuracy, 100 * reason.reference_accuracy
    return f": {ours:.1f} % against {theirs:.1f} % of {reason.n}{p_value}"


def _for_promotion(decision: GateDecision) -> list[GateReason]:
    """The pooled comparison speaks for all; without one, whatever there is."""
    pooled = [r for r in decision.reasons if r.reference == "pooled"]
    return pooled[:1] or list(decision.reasons[:1])
