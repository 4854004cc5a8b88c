"""The gate and a candidate that only guesses the most frequent class, on hand-made and enumerated cases."""

import itertools
from fractions import Fraction

import pytest

from driftline.config import GateConfig
from driftline.reasons import decision_in_words
from driftline.records import GateDecision
from driftline.tasks import task_named
from driftline.tasks.majority import standing
from learner.gate import decide

TASK = task_named("classification")
SECTION = GateConfig(margin=0.01, significance=0.05, min_holdouts=50, recent_holdouts=200)
N, NEGATIVES = 200, 16
TRUTH = {seq: "negative" if seq < NEGATIVES else "positive" for seq in range(N)}
GUESSER = dict.fromkeys(TRUTH, "positive")
NOTHING = dict.fromkeys(TRUTH)


def telling(right: int, wrong: int) -> dict[int, str | None]:
    """Answers `negative` to so many of the negatives, and to so many positives."""
    named = {*range(right), *range(NEGATIVES, NEGATIVES + wrong)}
    return {seq: "negative" if seq in named else "positive" for seq in TRUTH}


def judge(candidate: dict[int, str | None], incumbent: dict[int, str | None], n: int = N) -> GateDecision:
    return decide(TASK, candidate, incumbent, None, TRUTH, {"pooled": list(range(n))}, SECTION)


def test_a_guesser_does_not_replace_a_classifier() -> None:
    decision = judge(GUESSER, telling(9, 9))  # the same accuracy
    assert not decision.promote
    (reason,) = [reason for reason in decision.reasons if not reason.holds]
    assert (reason.code, reason.against, reason.detail, reason.n) == ("answers_one_class", "majority", "positive", N)
    assert (reason.candidate_accuracy, reason.reference_accuracy) == (0.92, 0.92)
    assert decision_in_words(decision) == (
        "rejected: it only answers 'positive', which is right for 92.0 % of 200 hold-outs; the incumbent tells the "
        "classes apart"
    )


@pytest.mark.parametrize("incumbent", [NOTHING, GUESSER, telling(1, 9)])
def test_where_nothing_better_is_live_a_guesser_goes_live_and_is_called_one(incumbent: dict[int, str | None]) -> None:
    decision = judge(GUESSER, incumbent)
    assert decision.promote
    words = decision_in_words(decision)
    assert "it only answers 'positive', which is right for 92.0 % of 200 hold-outs; nothing better was live" in words


def test_a_few_lucky_answers_are_not_above_the_majority() -> None:
    decision = judge(telling(1, 2), telling(9, 9))
    assert not decision.promote
    (reason,) = [reason for reason in decision.reasons if not reason.holds]
    assert (reason.code, reason.detail) == ("not_above_majority", "positive")
    assert reason.p_value is not None
    assert reason.p_value > 0.05
    assert "not shown to be better than always answering 'positive'" in decision_in_words(decision)


def test_a_classifier_with_the_accuracy_of_the_majority_is_promoted() -> None:
    decision = judge(telling(9, 9), GUESSER)
    assert decision.promote
    assert {reason.code for reason in decision.reasons} == {"not_worse"}


def test_many_rare_classes_are_told_apart_by_accuracy_alone() -> None:
    truth = {seq: f"intent {seq % 100}" for seq in range(200)}
    ours = {seq: label if seq % 3 else "intent 0" for seq, label in truth.items()}
    decision = decide(TASK, ours, dict.fromkeys(truth), None, truth, {"pooled": list(truth)}, SECTION)
    assert {reason.code for reason in decision.reasons} == {"not_worse"}


def test_hold_outs_of_one_class_ask_nothing() -> None:
    positives = [seq for seq, label in TRUTH.items() if label == "positive"]
    decision = decide(TASK, GUESSER, NOTHING, None, TRUTH, {"pooled": positives}, SECTION)
    assert {reason.code for reason in decision.reasons} == {"not_worse"}


def test_with_too_few_hold_outs_one_class_replaces_nothing_better() -> None:
    assert not judge(GUESSER, telling(9, 0), n=40).promote, "the incumbent tells the classes apart"
    decision = judge(GUESSER, NOTHING, n=40)
    assert decision.promote
    assert [reason.code for reason in decision.reasons] == ["too_few_holdouts", "answers_one_class"]
    assert "it only answers 'positive'" in decision_in_words(decision)
    assert [reason.code for reason in judge(telling(1, 2), NOTHING, n=40).reasons] == ["too_few_holdouts"]


def test_the_p_value_is_that_of_all_ways_to_deal_the_answers() -> None:
    truth = dict(enumerate("nnnppppp"))
    ours: dict[int, str | None] = dict(enumerate("nnpppppn"))
    found = standing(ours, truth, range(8))
    assert found is not None
    deals = list(itertools.combinations(range(8), 3))  # which three are answered n
    as_good = sum(sum(place < 3 for place in deal) >= 2 for deal in deals)
    assert found.p_value == pytest.approx(float(2 * Fraction(as_good, len(deals))))  # two tests
    assert (found.majority, found.share, found.balanced) == ("p", 5 / 8, pytest.approx((2 / 3 + 4 / 5) / 2))


def test_guessing_by_chance_is_seldom_called_more() -> None:
    """All answers that a coin could give, weighed by their chance: at most 5 % of them pass at 5 %."""
    truth = dict(enumerate("aabbccc"))
    passed = sum(
        (found := standing(dict(enumerate(ours)), truth, range(7))) is not None and found.p_value < 0.05
        for ours in itertools.product("abc", repeat=7)
    )
    assert passed / 3**7 <= 0.05
