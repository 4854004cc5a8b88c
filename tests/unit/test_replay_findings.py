"""What a replay showed, in sentences: figures by hand, also where Driftline loses and where chance may have decided."""

from typing import Any

import pytest
from rich.markup import escape

from driftline.experts import EXPERTS
from driftline.phrases import percent
from replay import words
from replay.classes import rival_row
from replay.evaluation import bootstrap_gap
from replay.findings import findings
from replay.mixtures import behind_in_words, mixtures_in_words
from replay.summary import summarise
from replay.worth import DESCRIPTIONS, TAKEN_OUT, expert_rows
from tests.fixtures.reports import make_report, with_evaluation


def standing(gap: float, low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"accuracy": 0.7, "macro_f1": 0.7, "n": 1000, "ahead": {"gap": gap, "low": low, "high": high}, **more}


AHEAD = standing(0.122, 0.098, 0.145)
BEHIND = standing(-0.021, -0.034, -0.008)
AHEAD_OR_CHANCE = standing(0.004, -0.01, 0.018)
BEHIND_OR_CHANCE = standing(-0.029, -0.065, 0.004)


def told(whole: dict[str, Any], warm: dict[str, Any], **more: Any) -> list[str]:
    """The findings where every baseline stands alike."""
    report = make_report(400, cold=100, updates=2, segments=3)
    report["baselines"] = {
        "first_version": {**warm, "version": 1},
        "frozen_mixture": {**whole, "n": 1100},
        "online_head": {**whole, "n": 1100, "ridge": 300.0, "forgetting": 0.999},
        "last_label": {**whole, "n": 1100},
        "majority": {**whole, "n": 1100},
    }
    report["after_cold_start"]["baselines"] = dict.fromkeys(report["baselines"], warm)
    return findings(report | more)


def test_a_win_is_told_with_its_interval_over_the_whole_stream_and_from_the_first_version_on() -> None:
    updates, replay, mixture, head, last, majority = told(AHEAD, AHEAD_OR_CHANCE)
    assert updates == (
        "Updates put Driftline 0.4 points (-1.0 to 1.8) ahead of version 1 kept frozen, which may be chance,"
        " on the 1,000 events since that one went live."
    )
    assert replay.startswith(
        "With replay, the last version is right for 73.5 % of the hold-outs of 2 earlier segments,"
    )
    assert replay.endswith('; strategy = "naive" in [feed.reviews.learner] would show it without.')
    assert mixture == (
        "LoRA and replay put Driftline 12.2 points (9.8 to 14.5) ahead of the experts on the frozen base, which learn"
        " from every label at once; from the first version on 0.4 points (-1.0 to 1.8) ahead, which may be chance."
    )
    assert head == (
        "Driftline was 12.2 points (9.8 to 14.5) ahead of the online head on the frozen base"
        " (λ = 300, forgetting 0.999, chosen on line);"
        " from the first version on 0.4 points (-1.0 to 1.8) ahead, which may be chance."
    )
    assert last == (
        "Driftline was 12.2 points (9.8 to 14.5) ahead of the last label;"
        " from the first version on 0.4 points (-1.0 to 1.8) ahead, which may be chance."
    )
    assert majority == last.replace("last", "majority")


def test_a_loss_is_told_as_plainly() -> None:
    updates, _, _, head, *_ = told(BEHIND, BEHIND)
    assert "2.1 points (0.8 to 3.4) behind version 1 kept frozen, on the 1,000 events" in updates
    assert "2.1 points (0.8 to 3.4) behind the online head on the frozen base (λ" in head
    assert head.endswith("; from the first version on 2.1 points (0.8 to 3.4) behind.")
    assert told(BEHIND, BEHIND_OR_CHANCE)[3].endswith(
        "; from the first version on 2.9 points (-0.4 to 6.5) behind, which may be chance."
    )


def test_an_exact_tie_has_no_sign() -> None:
    assert "Driftline 0.0 points (-1.0 to 1.0) behind version 1" in told(AHEAD, standing(-0.0, -0.01, 0.01))[0]


def test_where_that_is_the_whole_stream_it_is_told_once() -> None:
    whole = {**AHEAD, "n": 1100}
    assert all("from the first version on" not in sentence for sentence in told(AHEAD, whole))


def test_what_was_kept_is_the_backward_transfer() -> None:
    matrix = [[0.8, None, None], [0.7, 0.9, None], [0.6, 0.88, 0.5]]
    retention = {"segments": 3, "matrix": matrix, "backward_transfer": -0.11, "forgetting": 0.11}
    replay = told(AHEAD, AHEAD, retention=retention)[1]
    assert "right for 74.0 % of the hold-outs of 2 earlier segments, 11.0 points less than when each had" in replay
    naive = [{"examples": 250, "fresh": 250, "decision": "promoted"}] * 2
    assert told(AHEAD, AHEAD, retention=retention, versions=naive)[1].startswith("Without replay, the last version")
    assert "naive" not in told(AHEAD, AHEAD, retention=retention, versions=naive)[1]


def test_one_version_shows_nothing_of_updates_and_no_version_shows_none() -> None:
    one = make_report(400, updates=1, segments=1)
    assert findings(one)[0] == "Only version 1 went live, so what further updates are worth was not to be seen."
    nothing = {**standing(0, 0, 0), "ahead": None, "n": 0, "version": None}
    sentences = findings(one | {"baselines": one["baselines"] | {"first_version": nothing}})
    assert sentences[0].startswith("No version answered, so this says nothing of LoRA: Driftline was ")
    assert findings(make_report(0, cold=0, updates=0, segments=0)) == []


def worth(ahead: dict[str, float] | None, n: int = 980) -> dict[str, Any]:
    return {"accuracy": 0.6, "weight": 0.8, "n": n, "ours": 0.75, "without": 0.7, "ahead": ahead, "windows": []}


def test_each_expert_is_told_by_what_the_answers_lose_without_it_also_where_they_gain() -> None:
    nothing = {"gap": 0.0, "low": 0.0, "high": 0.0}
    experts = {
        "head": worth(AHEAD["ahead"], 700),
        "ridge": worth(BEHIND["ahead"]),
        "words": worth(AHEAD_OR_CHANCE["ahead"]),
        "chars": worth(nothing),
        "names": worth(None, 0),
    }
    updates, _, mixture, *sentences = told(AHEAD, AHEAD, experts=experts)
    assert sentences[:5] == [
        "The expert head (the live version's own, LoRA) put the answers 12.2 points (9.8 to 14.5) ahead of those"
        " without it, on the 700 events that it had a say in.",
        "The expert ridge (linear, on the live version's features) put the answers 2.1 points (0.8 to 3.4) behind those"
        " without it, on the 980 events that it had a say in.",
        "The expert words (words and pairs of words) put the answers 0.4 points (-1.0 to 1.8) ahead of those without"
        " it, which may be chance, on the 980 events that it had a say in.",
        "The expert chars (runs of three to five characters) made no difference to how many answers were right, on the"
        " 980 events that it had a say in.",
        "The expert names (how a text resembles a label's name) had a say in no answer.",
    ]
    assert updates.startswith("Updates and the fast clock put Driftline 12.2 points")
    assert " ahead of version 1 kept frozen (its head alone), on the" in updates
    assert "; from the first version on 12.2 points" in mixture, "before it there was no LoRA"
    assert all("from the first version on" not in sentence for sentence in sentences[5:]), "no cold start to set apart"


def test_every_expert_has_its_words() -> None:
    assert list(DESCRIPTIONS) == list(EXPERTS)


def test_the_summary_shows_what_the_answers_were_mixed_from() -> None:
    assert "without it" not in summarise(make_report(400, updates=2, segments=3))
    report = make_report(400, updates=2, segments=3, fast=True)
    text = summarise(report)
    for row in expert_rows(report):
        [line] = [line for line in text.splitlines() if line.startswith(f"  {row.name} (")]
        shares = [f"{100 * share:.1f} %" for share in (row.alone, row.served, row.without) if share is not None]
        assert all(share in line for share in shares)
        assert line.endswith(f"{row.weight:.2f}")
    assert TAKEN_OUT in text
    assert report["experts"]["head"]["n"] == 300, "it spoke from version 1 on"


def test_where_mixing_lost_at_a_promotion_is_told_the_worst_first() -> None:
    report = make_report(fast=True, updates=6)
    assert behind_in_words(report) == "", "in the fixture it never does"
    assert mixtures_in_words(report).endswith("when version 6 went live; mixed at least as good at 6 of 6 promotions")
    lost = [-0.004, 0.0, -0.02, -0.001, -0.003, 0.01]
    for row, gap in zip(report["versions"], lost, strict=True):
        row["holdouts"] |= {"mixture": 0.7 + gap, "head": 0.7, "n": 1250}
        row["holdouts"]["ahead"] = {"gap": gap, "low": gap - 0.01, "high": gap + 0.01}
    sentence = behind_in_words(report)
    assert sentence in findings(report)
    assert sentence == (
        "At 4 of 6 promotions the mixture was behind the version's head alone, on the hold-outs of then: version 3 2.0"
        " points (1.0 to 3.0) behind; version 1 0.4 points (-0.6 to 1.4) behind, which may be chance; version 5 0.3"
        " points (-0.7 to 1.3) behind, which may be chance, and 1 more by less."
    )
    assert mixtures_in_words(report) == (
        "71.0 % mixed, 70.0 % by its head alone, of 1,250 hold-outs when version 6 went live; mixed at least as good at"
        " 2 of 6 promotions"
    )
    assert mixtures_in_words(make_report()) == behind_in_words(make_report()) == ""


def test_no_sign_stands_before_nothing() -> None:
    hardly = words.standing({"gap": -0.0001, "low": -0.0002, "high": 0.0004})
    assert hardly == "0.0 points (0.0 to 0.0) behind, which may be chance"


def test_the_evaluation_file_is_told_against_its_best_baseline() -> None:
    report = with_evaluation(make_report())
    exam = report["evaluation"]["all"]
    sentence = findings(report)[-1]
    assert sentence.startswith(
        f"On the evaluation file the final version is right for {100 * exam['accuracy']:.1f} %, "
    )
    rival = f"{100 * exam['baselines']['frozen_mixture']['accuracy']:.1f} %"
    assert f"ahead of the best baseline there, experts on the frozen base ({rival})." in sentence


def test_a_baselines_row_is_paired_on_the_same_events() -> None:
    truth = ["a"] * 60 + ["b"] * 40
    ours: list[str | None] = ["a"] * 100
    theirs: list[str | None] = [None] * 30 + ["a"] * 30 + ["b"] * 40
    row = rival_row(theirs, ours, truth, ("a", "b"))
    assert (row["accuracy"], row["n"]) == (0.7, 100)
    expected = bootstrap_gap([True] * 60 + [False] * 40, [False] * 30 + [True] * 70)
    assert row["ahead"] == {"gap": pytest.approx(-0.1), "low": expected.low, "high": expected.high}
    assert rival_row([], [], [], ("a", "b"))["ahead"] is None


def test_the_summary_ends_with_them_and_shows_every_baseline_of_the_exam() -> None:
    report = with_evaluation(make_report(400, updates=2, segments=3), sources=("[bold]shop",))
    text = summarise(report)
    ends = text[text.index("What this stream showed") :]
    assert [line for line in ends.splitlines() if line.startswith("- ")] == [
        f"- {escape(sentence)}" for sentence in findings(report)
    ]
    [shop] = [line for line in text.splitlines() if line.startswith("evaluation \\[bold]shop")]
    assert f"last label {percent(report['evaluation']['all']['baselines']['last_label']['accuracy'])}" in shop
