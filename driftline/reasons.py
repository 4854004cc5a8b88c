"""The gate's reasons in words, for the history, the replay's page and its summary."""

from driftline.phrases import percent
from driftline.records import GateDecision, GateReason

CHANCE = 0.5
"""A p-value from here on says nothing, and is shown only where it decided."""
GUESSES = ("answers_one_class", "not_above_majority")
_SETS = {
    "pooled": "all hold-outs",
    "all_classes": "the hold-outs of all classes, new ones too",
    "recent": "the latest hold-outs",
}


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
        case "answers_one_class" | "not_above_majority":
            return _guesses(reason)
        case _:
            return _comparison(reason)


def set_in_words(name: str | None) -> str:
    """`segment:3` → `segment 3`, the sets' names in words otherwise."""
    name = name or "the hold-outs"
    return _SETS.get(name, name.replace(":", " "))


def _comparison(reason: GateReason) -> str:
    shown = "not shown" if reason.holds else "shown"
    than = f" than the {reason.against}" if reason.against else ""
    among = f" {reason.detail}" if reason.detail else ""
    return f"{shown} to be worse{than} on {set_in_words(reason.reference)}{among}{_figures(reason)}"


def _guesses(reason: GateReason) -> str:
    """`it only answers 'positive', which is right for 91.9 % of 161 hold-outs; nothing better was live`."""
    ours, theirs = percent(reason.candidate_accuracy), percent(reason.reference_accuracy)
    live = "nothing better was live" if reason.holds else "the incumbent tells the classes apart"
    if reason.code == "answers_one_class":
        return f"it only answers {reason.detail!r}, which is right for {ours} of {reason.n} hold-outs; {live}"
    always = f"always answering {reason.detail!r}: {ours} against {theirs} of {reason.n}"
    return f"not shown to be better than {always}{_p_value(reason)}; {live}"


def _figures(reason: GateReason) -> str:
    if reason.candidate_accuracy is None or reason.reference_accuracy is None:
        return ""
    ours, theirs = 100 * reason.candidate_accuracy, 100 * reason.reference_accuracy
    return f": {ours:.1f} % against {theirs:.1f} % of {reason.n}{_p_value(reason)}"


def _p_value(reason: GateReason) -> str:
    telling = reason.p_value is not None and (reason.p_value < CHANCE or not reason.holds)
    return f", p = {reason.p_value:.3f}" if telling else ""


def _for_promotion(decision: GateDecision) -> list[GateReason]:
    """The pooled comparison speaks for all; without one, whatever there is. That it only guesses is said beside it."""
    guesses = [r for r in decision.reasons if r.code in GUESSES]
    others = [r for r in decision.reasons if r.code not in GUESSES]
    pooled = [r for r in others if r.reference == "pooled"]
    return (pooled[:1] or others[:1]) + guesses
