"""What status says of recalls and warns of."""

from dataclasses import replace

from driftline.exams_in_words import recalls_in_words, warnings
from driftline.records import GateDecision, GateReason
from tests.fixtures.registry import manifest_of

GUESSES = GateReason(
    code="answers_one_class",
    holds=True,
    against="majority",
    n=150,
    candidate_accuracy=0.92,
    reference_accuracy=0.92,
    detail="positive",
)


def test_few_classes_are_all_told() -> None:
    recalls = {"negative": {"recall": 0.0, "n": 75}, "positive": {"recall": 1.0, "n": 844}}
    assert recalls_in_words(recalls) == "right by class: negative 0.0 % of 75, positive 100.0 % of 844"


def test_of_many_classes_the_worst_are_told_the_frequent_first() -> None:
    recalls = {f"c{i}": {"recall": 0.0 if i < 3 else 0.5, "n": i + 1} for i in range(9)}
    assert recalls_in_words(recalls) == (
        "right in the worst of 9 classes: c2 0.0 % of 3, c1 0.0 % of 2, c0 0.0 % of 1, c8 50.0 % of 9"
    )


def test_a_live_guesser_and_a_base_of_another_language_are_warned_of() -> None:
    live = replace(manifest_of(1), decision=GateDecision(promote=True, reasons=(GUESSES,)))
    guesses, split = warnings(live, replace(manifest_of(2), broken_words=0.72))
    assert guesses == (
        "version 1, which is live, was promoted though it only answers 'positive', which is right for 92.0 % of 150 "
        "hold-outs; nothing better was live"
    )
    assert "72 % of the words" in split
    assert "base.model" in split


def test_nothing_is_warned_of_otherwise() -> None:
    assert warnings(None, None) == []
    assert warnings(manifest_of(1), replace(manifest_of(1), broken_words=0.04)) == []
