"""What each expert was worth: answers made by hand, each taken apart on paper."""

from datetime import UTC, datetime

import pytest

from driftline.buffer import Scored
from driftline.config import FeedConfig
from driftline.records import Event, Position
from replay.evaluation import bootstrap_gap
from replay.experts import Experts
from serving.answers import Answer, Opinion

LABELS = ("no", "yes")
THEN = datetime(2026, 3, 1, tzinfo=UTC)


def section(*experts: str) -> FeedConfig:
    fast = {"experts": experts} if experts else {"enabled": False}
    return FeedConfig.model_validate({"labels": LABELS, "fast": fast})


def event(number: int) -> Event:
    return Event(
        feed="reviews", event_id=str(number), source="", text=f"text {number}", occurred_at=THEN,
        position=Position(topic="reviews", partition=0, offset=number),
    )  # fmt: skip


def answer(label: str, *, bias: float = 0.0, **opinions: tuple[float, float]) -> Answer:
    """`opinions`: of each expert the score for `yes` (`no` has 0) and its weight for `yes` (for `no` 1)."""
    experts = {
        name: Opinion(scores={"no": 0.0, "yes": score}, weight={"no": 1.0, "yes": weight})
        for name, (score, weight) in opinions.items()
    }
    return Answer(label=label, scores={}, adapter_version=1, experts=experts, bias={"no": 0.0, "yes": bias})


def scored(number: int, truth: str, ours: str) -> Scored:
    return Scored(
        seq=number, event_id=str(number), source="", label=truth, predicted=ours, version=1, holdout=False,
        occurred_at=THEN, answered=True,
    )  # fmt: skip


def heard(*answers: Answer, names: tuple[str, ...] = ("ridge", "words")) -> Experts:
    experts = Experts(section(*names))
    for number, one in enumerate(answers):
        experts.listen([event(number)], {f"text {number}": one})
    return experts


def test_taking_an_expert_out_leaves_the_others_and_the_bias_as_they_were() -> None:
    answers = [
        answer("yes", ridge=(3.0, 1.0), words=(-1.0, 2.0)),  # 3 - 2: without ridge no, without words yes
        answer("yes", ridge=(-1.0, 1.0), words=(-1.0, 1.0), bias=2.5),  # without either still yes
        answer("no", ridge=(-2.0, 1.0), words=(1.0, 1.0)),  # without ridge yes, without words no
    ]
    rows = heard(*answers).rows([scored(0, "yes", "yes"), scored(1, "yes", "yes"), scored(2, "yes", "no")], 2)
    ridge, words = rows["ridge"], rows["words"]
    assert (ridge["n"], ridge["ours"], ridge["without"]) == (3, 2 / 3, 2 / 3), "no, yes, yes"
    assert (words["without"], words["accuracy"]) == (2 / 3, 1 / 3), "alone: no, no, yes"
    assert (ridge["windows"], words["windows"]) == ([0.5, 0.0], [0.0, 1.0])
    assert (words["weights"], words["weight"]) == ([(1.5 + 1) / 2, 1.0], 1.0), "each weight is the mean of both classes"


def test_what_it_was_worth_is_paired_on_the_events_that_it_had_a_say_in() -> None:
    right = answer("yes", ridge=(1.0, 1.0), words=(-1.0, 0.5))
    answers = [*[right] * 40, *[answer("yes", words=(1.0, 1.0))] * 60]
    rows = heard(*answers).rows([scored(i, "yes", "yes") for i in range(100)], 250)
    assert (rows["ridge"]["n"], rows["words"]["n"]) == (40, 100)
    assert rows["ridge"]["accuracy"] == 0.4, "where it said nothing it was not right"
    expected = bootstrap_gap([True] * 40, [False] * 40)
    assert rows["ridge"]["ahead"] == {"gap": 1.0, "low": expected.low, "high": expected.high}
    assert rows["words"]["ahead"]["gap"] == pytest.approx(0.6), "alone at first, and for nothing before: a tie says no"


def test_an_expert_that_hurts_is_behind() -> None:
    rows = heard(*[answer("no", ridge=(1.0, 1.0), words=(-2.0, 1.0))] * 10).rows(
        [scored(i, "yes", "no") for i in range(10)], 250
    )
    assert rows["words"]["ahead"]["gap"] == -1.0


def test_the_first_answer_of_an_id_counts_and_one_that_the_head_gave_alone_tells_nothing() -> None:
    experts = Experts(section("ridge"))
    experts.listen([event(0)], {"text 0": answer("yes", ridge=(1.0, 1.0))})
    experts.listen([event(0)], {"text 0": answer("no", ridge=(-1.0, 9.0))})
    experts.listen([event(1)], {"text 1": answer("yes")})
    row = experts.rows([scored(0, "yes", "yes"), scored(1, "yes", "yes")], 1)["ridge"]
    assert (row["n"], row["weight"], row["weights"], row["windows"]) == (1, 1.0, [1.0, None], [1.0, 0.0])


def test_where_the_head_answered_alone_that_is_its_answer_and_says_nothing_of_what_it_adds() -> None:
    rows = heard(answer("yes"), names=("head", "words")).rows([scored(0, "yes", "yes")], 250)
    assert (rows["head"]["accuracy"], rows["head"]["n"], rows["words"]["accuracy"]) == (1.0, 0, 0.0)


def test_one_that_never_spoke_has_no_figures_and_without_a_fast_clock_there_is_none() -> None:
    row = heard(answer("yes")).rows([scored(0, "yes", "yes")], 250)["words"]
    assert (row["n"], row["ours"], row["without"], row["ahead"], row["weight"]) == (0, None, None, None, None)
    assert heard(answer("yes"), names=()).rows([scored(0, "yes", "yes")], 250) == {}


def test_a_class_that_the_head_says_nothing_of_is_left_to_the_others() -> None:
    head = Opinion(scores={"no": -0.1}, weight={"no": 1.0, "yes": 1.0})
    words = Opinion(scores={"no": 0.0, "yes": 1.0}, weight={"no": 1.0, "yes": 1.0})
    mixed = Answer(
        label="yes", scores={}, adapter_version=1, experts={"head": head, "words": words}, bias={"no": 0.0, "yes": 0.0}
    )
    rows = heard(mixed, names=("head", "words")).rows([scored(0, "yes", "yes")], 250)
    assert (rows["head"]["accuracy"], rows["head"]["without"], rows["words"]["without"]) == (0.0, 1.0, 1.0)
