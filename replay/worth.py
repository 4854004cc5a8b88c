"""What each expert was worth on the stream, in rows and sentences that the summary, the findings and the page share.

Pure. Empty where the feed has no fast clock.
"""

from typing import Any, NamedTuple

from driftline.phrases import count_of
from replay.words import standing

__all__ = ["DESCRIPTIONS", "TAKEN_OUT", "Worth", "expert_rows", "weight_in_words", "worth_in_words"]

DESCRIPTIONS = {
    "head": "the live version's own, LoRA",
    "ridge": "linear, on the live version's features",
    "words": "words and pairs of words",
    "chars": "runs of three to five characters",
    "names": "how a text resembles a label's name",
}
"""What each expert goes by."""
TAKEN_OUT = (
    "Without an expert means: taken out of the answer, the other weights as they were. Had it never been there, the"
    " others would have learned to make up for some of it."
)


class Worth(NamedTuple):
    """Accuracies: alone, on all events; as served and without it, on the `n` that it had a say in. None of nothing."""

    name: str
    what: str
    alone: float | None
    served: float | None
    without: float | None
    n: int
    weight: float | None


def expert_rows(report: dict[str, Any]) -> list[Worth]:
    """In the order of the config's experts."""
    return [
        Worth(name, DESCRIPTIONS[name], row["accuracy"], row["ours"], row["without"], row["n"], row["weight"])
        for name, row in report["experts"].items()
    ]


def weight_in_words(weight: float | None) -> str:
    """`0.83`; `–` of one that was never mixed in."""
    return "–" if weight is None else f"{weight:.2f}"


def worth_in_words(report: dict[str, Any]) -> list[str]:
    """A sentence for each expert, also where it hurts."""
    return [_sentence(name, row) for name, row in report["experts"].items()]


def _sentence(name: str, row: dict[str, Any]) -> str:
    expert = f"The expert {name} ({DESCRIPTIONS[name]})"
    if row["ahead"] is None:
        return f"{expert} had a say in no answer."
    if not any(row["ahead"].values()):
        worth = "made no difference to how many answers were right"
    else:
        worth = f"put the answers {standing(row['ahead'], 'those without it')}"
    return f"{expert} {worth}, on the {count_of(row['n'], 'event')} that it had a say in."
