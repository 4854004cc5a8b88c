"""What a report says in words: counts, reasons, what to do, and where Driftline stands against the baselines."""

from dataclasses import replace
from typing import Any

import pytest

from driftline.reasons import reason_in_words
from driftline.records import GateReason
from replay import words
from replay.comparison import comparison_rows, verdict, verdict_from_first_version


def counted(**changes: Any) -> dict[str, Any]:
    return {
        "feed": "reviews",
        "labels": ["bad", "good"],
        "events": 60,
        "examples": 0,
        "unlabelled": 0,
        "pending": 60,
        "dead_letters": 0,
        "dead_letters_by_reason": {},
        "holdout_examples": 0,
        "schedule": {"min_examples": 250, "every_s": 60.0, "cron": None},
        "versions": [],
        "duplicates": 0,
        "experts": {},
        "label_dead_letters_by_reason": {},
        **changes,
    }


def test_labels_that_are_lost_are_told_with_the_labels_of_the_feed() -> None:
    unknown = counted(label_dead_letters_by_reason={"unknown_label": 60})
    told = "60 labels could not be used: unknown_label; the feed's labels are bad, good"
    assert words.lost_labels(unknown) == told
    assert words.lost_labels(counted(label_dead_letters_by_reason={"no_event": 1})) == (
        "1 label could not be used: no_event"
    )
    both = words.lost_labels(counted(label_dead_letters_by_reason={"unknown_label": 2, "no_event": 1}))
    assert both.startswith("3 labels could not be used: 2 unknown_label, 1 no_event; ")
    assert words.lost_labels(counted()) == ""


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"label_dead_letters_by_reason": {"unknown_label": 60}}, "set `labels` of [feed.reviews]"),
        ({"label_dead_letters_by_reason": {"no_event": 60}}, "see label_wait_s"),
        ({"dead_letters": 60, "pending": 0}, "[feed.reviews.fields]"),
        ({}, "no event has a label"),
    ],
)
def test_a_replay_without_examples_says_what_to_do(changes: dict[str, Any], remedy: str) -> None:
    assert remedy in words.nothing_learned(counted(**changes))
    assert words.nothing_learned(counted(**changes, examples=1, versions=[{}])) == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, ["240 examples to train on (60 more are held out)", "starts from 250 (min_examples of", "longer stream"]),
        (
            {"min_examples": 240},
            ["no tick of the schedule came after number 240 (every 60 s", "or every_s to come more"],
        ),
        ({"min_examples": 9, "every_s": None, "cron": "0 5 * * *"}, ['(at "0 5 * * *"', "cron to come more often"]),
    ],
)
def test_a_replay_without_updates_says_why(changes: dict[str, Any], told: list[str]) -> None:
    report = counted(events=300, examples=300, holdout_examples=60, pending=0)
    report["schedule"] |= changes
    assert all(part in words.nothing_learned(report) for part in ["no update in 300 events", *told])
    assert words.nothing_learned(report | {"versions": [{}]}) == ""
    assert "300 events, so all answers come from an untrained model: there" in words.nothing_learned(report)
    fast = words.nothing_learned(report | {"experts": {"ridge": {}}})
    assert "300 events, so all answers come from the fast clock, on the base as it is: there" in fast


def test_pending_and_negative_forgetting_are_explained() -> None:
    assert "60 pending (labels still awaited at the end), 0 dead letters" in words.counts_in_words(counted())
    refused = words.counts_in_words(counted(label_dead_letters_by_reason={"unknown_label": 60}))
    assert "60 pending (no usable label came), 0 dead letters" in refused
    dead = counted(pending=0, dead_letters=3, dead_letters_by_reason={"not_json": 1, "no_text": 2})
    assert "0 pending, 3 dead letters (no_text 2, not_json 1)," in words.counts_in_words(dead)
    better = words.forgetting_in_words({"forgetting": -0.012, "backward_transfer": 0.02})
    assert better == "forgetting -1.2 points (below 0: it improved), backward transfer +2.0 points"
    assert "improved" not in words.forgetting_in_words({"forgetting": 0.0, "backward_transfer": 0.0})


@pytest.mark.parametrize(("p_value", "holds", "shown"), [(1.0, True, False), (0.03, True, True), (0.6, False, True)])
def test_a_p_value_is_shown_where_it_tells_something(p_value: float, holds: bool, shown: bool) -> None:
    reason = GateReason(
        code="not_worse", holds=holds, against="incumbent", reference="pooled", n=50,
        candidate_accuracy=0.8, reference_accuracy=0.7, p_value=p_value,
    )  # fmt: skip
    assert (f"p = {p_value:.3f}" in reason_in_words(reason)) == shown


def test_a_loss_that_is_not_shown_is_no_contradiction() -> None:
    kept = GateReason(
        code="not_worse", holds=True, against="incumbent", reference="pooled", n=143,
        candidate_accuracy=0.916, reference_accuracy=0.923, p_value=1.0,
    )  # fmt: skip
    told = "to be worse than the incumbent on all hold-outs: 91.6 % against 92.3 % of 143"
    assert reason_in_words(kept) == f"not shown {told}"
    lost = replace(kept, code="worse_than_incumbent", holds=False, p_value=0.01)
    assert reason_in_words(lost) == f"shown {told}, p = 0.010"


def compared(ours: float | None, head: float | None, n: int = 1500) -> dict[str, Any]:
    rows = {"frozen_mixture": 0.45, "online_head": head, "last_label": 0.5, "majority": 0.6}
    baselines = {name: {"accuracy": accuracy, "n": n} for name, accuracy in rows.items()}
    return {"prequential": {"accuracy": ours, "n": n}, "baselines": baselines, "experts": {}}


def compared_twice(*, whole: dict[str, Any], warm: dict[str, Any], first: float | None) -> dict[str, Any]:
    """A report whose first promoted version is 2."""
    row = {"accuracy": first, "n": warm["prequential"]["n"]}
    warm["baselines"]["first_version"] = row
    whole["baselines"]["first_version"] = row | {"ours": warm["prequential"]["accuracy"], "version": 2}
    return whole | {"after_cold_start": warm}


def test_where_a_baseline_wins_the_verdict_says_by_how_much_and_what_the_cold_start_cost() -> None:
    report = compared_twice(whole=compared(0.623, 0.738), warm=compared(0.763, 0.75, 1224), first=0.641)
    assert verdict(report) == (
        "Over the whole stream Driftline was right for 62.3 % of 1,500 events,"
        " 11.5 points behind the best baseline, online head on the frozen base (73.8 %)."
    )
    assert verdict_from_first_version(report) == (
        "276 events came before version 2, the first to go live, and so counted as wrong."
        " From version 2 on Driftline was right for 76.3 % of 1,224 events,"
        " 1.3 points before the best baseline, online head on the frozen base (75.0 %)."
    )
    assert [(row.name.split()[0], row.whole, row.warm) for row in comparison_rows(report)] == [
        ("online", 0.738, 0.75), ("Driftline,", 0.623, 0.763), ("majority", 0.6, 0.6), ("last", 0.5, 0.5),
        ("experts", 0.45, 0.45), ("first", None, 0.641),
    ]  # fmt: skip


def test_with_a_fast_clock_there_is_no_cold_start_to_tell_of_but_who_answered_before_the_first_version() -> None:
    report = compared_twice(whole=compared(0.7, 0.65), warm=compared(0.75, 0.7, 1224), first=0.641)
    assert verdict_from_first_version(report | {"experts": {"ridge": {}}}) == (
        "276 events came before version 2, the first to go live: 47.8 % of them were answered right, by the fast clock"
        " alone. From version 2 on Driftline was right for 75.0 % of 1,224 events, 5.0 points before the best baseline,"
        " online head on the frozen base (70.0 %)."
    ), "1,050 right of 1,500, less 918 of 1,224: 132 of 276"


def test_the_frozen_first_version_may_be_the_best_from_then_on() -> None:
    report = compared_twice(whole=compared(0.7, 0.7), warm=compared(0.7, 0.7, 9), first=0.8)
    assert ", level with the best baseline, online head" in verdict(report)
    assert "10.0 points behind the best baseline, first version, frozen (80.0 %)" in verdict_from_first_version(report)


def test_without_labels_or_versions_there_is_nothing_to_compare() -> None:
    report = compared_twice(whole=compared(None, None, 0), warm=compared(None, None, 0), first=None)
    assert "nothing to compare" in verdict(report)
    assert verdict_from_first_version(report) == ""


def test_when_labels_come_and_what_a_missing_answer_counts_is_said_plainly() -> None:
    assert words.LABELS_KNOWN.startswith("Each label comes at the time its event names (label_at), else ")
    assert "a missing answer counts as wrong" in words.LABELS_KNOWN
