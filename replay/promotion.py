"""Whether a version is at least as good with its mixture as with its head alone, measured when it goes live.

On the hold-outs that the gate judged it on, which neither clock ever learns. The head's answers are those that the gate
saw; the mixture's are the engine's: this version, with the fast state as it stands then.
"""

from dataclasses import asdict
from typing import Any

from driftline.tasks.comparison import compare_right
from replay.evaluation import bootstrap_gap
from replay.pipeline import LEAST_QUEUE_INPUTS, Pipeline


def promotion_exam(pipe: Pipeline, version: int) -> dict[str, Any] | None:
    """Of the version that has just gone live: accuracies of `head` and `mixture` on the same `n` hold-outs, `ahead`
    (mixture minus head, with its 95 % interval), and `p_value`: of so great a loss if neither is better, one-sided, by
    exact McNemar. None without a fast clock, or without hold-outs."""
    heads = pipe.buffer.exams.cached_predictions(pipe.feed, version)
    if pipe.fast is None or not heads:
        return None
    asked = pipe.buffer.ledger.examples(pipe.feed, sorted(heads))
    mixed = _mixed(pipe, [example.text for example in asked])
    pairs = [
        (answer == example.label, heads[example.seq] == example.label)
        for answer, example in zip(mixed, asked, strict=True)
    ]
    found, (ours, theirs) = compare_right(pairs), zip(*pairs, strict=True)
    return {
        "head": found.reference,
        "mixture": found.candidate,
        "n": found.n,
        "ahead": asdict(bootstrap_gap(ours, theirs)),
        "p_value": found.p_value,
    }


def _mixed(pipe: Pipeline, texts: list[str]) -> list[str | None]:
    """Asked for in pieces that any queue takes."""
    size = LEAST_QUEUE_INPUTS
    pieces = [pipe.engine.predict(pipe.feed, texts[start : start + size]) for start in range(0, len(texts), size)]
    return [answer.label for piece in pieces for answer in piece]
