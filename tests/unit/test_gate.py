"""The gate on hand-computed cases."""

from fractions import Fraction
from math import comb

import pytest

from driftline.config import GateConfig
from driftline.reasons import reason_in_words
from driftline.records import GateDecision
from driftline.tasks import task_named
from driftline.tasks.comparison import mcnemar_p
from learner.gate import decide, holm

TASK = task_named("classification")
SECTION = GateConfig(margin=0.01, significance=0.05, min_holdouts=50, recent_holdouts=200)


def answers(right: set[int], n: int) -> dict[int, str | None]:
    return {seq: "yes" if seq in right else "no" for seq in range(n)}


def judge(
    ours: set[int], theirs: set[int], n: int, *, anchor: set[int] | None = None, **sets: list[int]
) -> GateDecision:
    return decide(
        TASK,
        answers(ours, n),
        answers(theirs, n),
        None if anchor is None else answers(anchor, n),
        dict.fromkeys(range(n), "yes"),
        {"pooled": list(range(n))} | sets,
        SECTION,
    )


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (0, 7), (1, 0), (5, 0), (10, 3), (40, 60), (200, 150)])
def test_mcnemar_is_the_exact_binomial_tail(worse: int, better: int) -> None:
    total = worse + better
    tail = sum(Fraction(comb(total, k), 2**total) for k in range(worse, total + 1))
    assert mcnemar_p(worse, better) == pytest.approx(float(tail), rel=1e-12)


def test_holm_on_a_known_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_equal_candidate_is_promoted_and_becomes_the_anchor() -> None:
    decision = judge(set(range(80)), set(range(80)), 100)
    assert decision.promote
    assert decision.becomes_anchor
    (reason,) = decision.reasons
    assert (reason.code, reason.against, reason.reference, reason.n) == ("not_worse", "incumbent", "pooled", 100)
    assert (reason.candidate_accuracy, reason.reference_accuracy, reason.p_value) == (0.8, 0.8, 1.0)


def test_a_clear_loss_is_rejected_with_its_numbers() -> None:
    decision = judge(set(range(70)), set(range(80)), 100)
    assert not decision.promote
    assert not decision.becomes_anchor
    (reason,) = decision.reasons
    assert reason.code == "worse_than_incumbent"
    assert not reason.holds
    assert reason.p_value == pytest.approx(2**-10)


def test_a_significant_loss_within_the_margin_is_tolerated() -> None:
    # 10 of 1,000 lost and none won: p = 2^-10, but a loss of exactly 1 point is not more than the margin.
    decision = judge(set(range(790)), set(range(800)), 1000)
    assert decision.promote
    assert not decision.becomes_anchor
    assert not judge(set(range(789)), set(range(800)), 1000).promote


def test_a_loss_that_chance_explains_is_tolerated() -> None:
    # 4 lost, none won: p = 1/16.
    assert judge(set(range(76)), set(range(80)), 100).promote
    assert not judge(set(range(75)), set(range(80)), 100).promote  # 5 lost: p = 1/32


def test_holm_counts_every_set_and_every_reference() -> None:
    # 5 lost (p = 1/32) is enough alone, but not among three comparisons.
    halves = {"recent": list(range(100, 150)), "segment:0": list(range(100, 150))}
    truth = dict.fromkeys(range(150), "yes")
    ours, theirs = (
        answers(set(range(75)) | set(range(100, 150)), 150),
        answers(set(range(80)) | set(range(100, 150)), 150),
    )
    alone = decide(TASK, ours, theirs, None, truth, {"pooled": list(range(100))}, SECTION)
    among = decide(TASK, ours, theirs, None, truth, {"pooled": list(range(100))} | halves, SECTION)
    assert not alone.promote
    assert among.promote
    assert [reason.p_value for reason in among.reasons] == pytest.approx([3 / 32, 1.0, 1.0])


def test_small_losses_cannot_add_up_past_the_anchor() -> None:
    # Not shown to be worse than the incumbent, but than the anchor.
    decision = judge(set(range(72)), set(range(76)), 100, anchor=set(range(84)))
    assert not decision.promote
    assert [(r.code, r.against) for r in decision.reasons] == [
        ("not_worse", "incumbent"),
        ("worse_than_anchor", "anchor"),
    ]


def test_a_loss_on_one_past_segment_is_enough() -> None:
    ours = set(range(100, 200)) | set(range(10))
    theirs = set(range(40)) | set(range(100, 160))
    decision = judge(ours, theirs, 200, **{"segment:0": list(range(40)), "segment:1": []})
    assert not decision.promote
    assert [(r.reference, r.holds) for r in decision.reasons] == [("pooled", True), ("segment:0", False)]


def test_with_too_few_holdouts_only_sanity_decides() -> None:
    decision = judge(set(), set(range(49)), 49)
    assert decision.promote
    assert not decision.becomes_anchor
    assert [(r.code, r.holds, r.n) for r in decision.reasons] == [("too_few_holdouts", True, 49)]
    assert not judge(set(), set(range(50)), 50).promote


def test_a_candidate_that_is_not_finite_is_rejected_whatever_its_accuracy() -> None:
    truth = dict.fromkeys(range(60), "yes")
    sets = {"pooled": list(range(60))}
    decision = decide(TASK, answers(set(range(60)), 60), answers(set(), 60), None, truth, sets, SECTION, finite=False)
    assert not decision.promote
    assert decision.reasons[0].code == "not_finite"
    few = decide(TASK, {}, {}, None, {}, {"pooled": []}, SECTION, finite=False)
    assert [(r.code, r.holds) for r in few.reasons] == [("not_finite", False), ("too_few_holdouts", True)]


def test_no_answer_is_a_wrong_answer() -> None:
    truth = dict.fromkeys(range(60), "yes")
    sets = {"pooled": list(range(60))}
    base: dict[int, str | None] = dict.fromkeys(range(60))
    decision = decide(TASK, answers(set(range(30)), 60), base, None, truth, sets, SECTION)
    assert decision.promote
    assert decision.reasons[0].reference_accuracy == 0.0
    assert not decide(TASK, base, answers(set(range(30)), 60), None, truth, sets, SECTION).promote
    assert not decide(TASK, {}, answers(set(range(30)), 60), None, truth, sets, SECTION).promote


def many(label: str, n: int) -> list[str]:
    return [label] * n


def test_hold_outs_of_a_class_that_the_incumbent_does_not_know_reject_nobody_and_promote_nobody() -> None:
    # 60 hold-outs of old classes, 40 of a new one that only the candidate can answer.
    truth = dict(enumerate([*many("old", 60), *many("new", 40)]))
    sets = {"pooled": list(range(100)), "recent": list(range(40, 100)), "segment:0": list(range(60, 100))}
    incumbent = dict.fromkeys(range(100), "old")
    knows = {"incumbent": {"old", "other"}}

    good = {**dict.fromkeys(range(100), "old"), **dict.fromkeys(range(60, 80), "new")}
    decision = decide(TASK, good, incumbent, None, truth, sets, SECTION, knows=knows)
    assert decision.promote
    assert {reason.reference: reason.n for reason in decision.reasons if reason.against == "incumbent"} == {
        "pooled": 60,
        "recent": 20,
        "all_classes": 100,
    }

    # Right on the whole new class, which outweighs what it lost of the old ones over all hold-outs together.
    bad = {**dict.fromkeys(range(30), "other"), **dict.fromkeys(range(30, 60), "old")}
    bad |= dict.fromkeys(range(60, 100), "new")
    assert decide(TASK, bad, incumbent, None, truth, sets, SECTION).promote, "this is what must not decide"
    decision = decide(TASK, bad, incumbent, None, truth, sets, SECTION, knows=knows)
    assert not decision.promote
    assert "worse_than_incumbent" in {reason.code for reason in decision.reasons}


def test_each_reference_is_compared_with_on_what_it_knows() -> None:
    truth = dict(enumerate([*many("old", 60), *many("new", 60)]))
    sets = {"pooled": list(range(120))}
    incumbent = dict(truth)
    anchor = dict.fromkeys(range(120), "old")
    candidate = {**truth, **dict.fromkeys(range(100, 120), "old")}
    decision = decide(TASK, candidate, incumbent, anchor, truth, sets, SECTION, knows={"anchor": {"old"}})
    pooled = [reason for reason in decision.reasons if reason.reference == "pooled" and reason.against != "majority"]
    counted = {reason.against: (reason.n, reason.holds) for reason in pooled}
    assert counted == {"incumbent": (120, False), "anchor": (60, True)}


def test_a_candidate_with_more_classes_is_compared_by_its_answers_among_those_that_both_know() -> None:
    """It answers some hold-outs of old classes with the new one, as whoever knows more classes must; the incumbent
    cannot make that mistake."""
    truth = dict(enumerate([*many("old", 50), *many("other", 50), *many("new", 60)]))
    sets, knows = {"pooled": list(range(160))}, {"incumbent": {"old", "other"}}
    incumbent = {**truth, **dict.fromkeys(range(10), "other"), **dict.fromkeys(range(100, 160), "old")}
    candidate = {**truth, **dict.fromkeys(range(20), "new")}
    within = {"incumbent": {**truth, **dict.fromkeys(range(9), "other")}}
    unfair = decide(TASK, candidate, incumbent, None, truth, sets, SECTION, knows=knows)
    assert "worse_than_incumbent" in {reason.code for reason in unfair.reasons}
    decision = decide(TASK, candidate, incumbent, None, truth, sets, SECTION, knows=knows, within=within)
    assert decision.promote
    compared = next(reason for reason in decision.reasons if reason.reference == "pooled")
    assert (compared.n, compared.candidate_accuracy) == (100, 0.91)
    assert "on all hold-outs of the classes that both know: 91.0 % against 90.0 % of 100" in reason_in_words(compared)


def test_who_answers_a_new_class_everywhere_is_rejected_however_well_it_knows_the_old_ones() -> None:
    truth = dict(enumerate([*many("old", 40), *many("other", 40), *many("new", 20)]))
    sets, knows = {"pooled": list(range(100))}, {"incumbent": {"old", "other"}}
    incumbent = {**truth, **dict.fromkeys(range(8), "other"), **dict.fromkeys(range(80, 100), "old")}
    burst = dict.fromkeys(range(100), "new")
    decision = decide(
        TASK, burst, incumbent, None, truth, sets, SECTION, knows=knows, within={"incumbent": dict(truth)}
    )
    assert not decision.promote
    rejected = [reason for reason in decision.reasons if not reason.holds]
    assert {reason.reference for reason in rejected} >= {"all_classes"}
    assert not decision.becomes_anchor


def test_too_few_hold_outs_that_the_incumbent_knows_are_too_few() -> None:
    truth = dict(enumerate([*many("old", 20), *many("new", 60)]))
    knows = {"incumbent": {"old"}}
    decision = decide(TASK, dict(truth), dict(truth), None, truth, {"pooled": list(range(80))}, SECTION, knows=knows)
    assert [(r.code, r.n) for r in decision.reasons if r.against != "majority"] == [("too_few_holdouts", 20)]
