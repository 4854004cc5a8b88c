"""Exams in words: what each class got, and what is to be warned of about a feed's versions. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from driftline.phrases import percent
from driftline.reasons import GUESSES, reason_in_words
from driftline.records import Manifest
from driftline.splitting import splitting_in_words

FEW_CLASSES = 4


def recalls_in_words(recalls: Mapping[str, Mapping[str, Any]]) -> str:
    """`right by class: negative 0.0 % of 75, positive 99.2 % of 844`; the worst four where there are more."""
    worst = sorted(recalls, key=lambda label: (recalls[label]["recall"], -recalls[label]["n"]))
    shown = list(recalls) if len(recalls) <= FEW_CLASSES else worst[:FEW_CLASSES]
    listed = ", ".join(f"{label} {percent(recalls[label]['recall'])} of {recalls[label]['n']:,}" for label in shown)
    which = "by class" if len(recalls) <= FEW_CLASSES else f"in the worst of {len(recalls):,} classes"
    return f"right {which}: {listed}"


def warnings(live: Manifest | None, newest: Manifest | None) -> list[str]:
    """What the live version, and the base on the texts of the newest one, leave to be wished for."""
    guesses: Sequence[str] = ()
    if live is not None:
        told = (reason_in_words(reason) for reason in live.decision.reasons if reason.code in GUESSES)
        guesses = [f"version {live.version}, which is live, was promoted though {words}" for words in told]
    split = splitting_in_words(newest.broken_words) if newest else ""
    return [*guesses, *([split] if split else [])]
