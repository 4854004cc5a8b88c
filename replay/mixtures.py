"""How each version's mixture stood beside its head alone when it went live, in words that summary, findings and page
share. Pure.

Nothing is told where there is no fast clock, nor of reports older than format 5.
"""

from collections.abc import Mapping
from typing import Any

from driftline.phrases import count_of, percent
from replay.words import standing

__all__ = ["behind_in_words", "mixtures_in_words", "versions_behind"]

MOST_TOLD = 3


def mixtures_in_words(report: dict[str, Any]) -> str:
    """The last promotion's two figures, and at how many the mixture was at least as good as the head."""
    measured = _measured(report)
    if not measured:
        return ""
    last, n, good = measured[-1], len(measured), len(measured) - len(versions_behind(report))
    exam = last["holdouts"]
    return (
        f"{percent(exam['mixture'])} mixed, {percent(exam['head'])} by its head alone, of"
        f" {count_of(exam['n'], 'hold-out')} when version {last['version']} went live; mixed at least as good at"
        f" {good} of {count_of(n, 'promotion')}"
    )


def behind_in_words(report: dict[str, Any]) -> str:
    """Where mixing lost, the greatest losses first; nothing where it never did."""
    behind = sorted(versions_behind(report), key=lambda row: row["holdouts"]["ahead"]["gap"])
    if not behind:
        return ""
    told = "; ".join(f"version {row['version']} {standing(row['holdouts']['ahead'])}" for row in behind[:MOST_TOLD])
    more = f", and {len(behind) - MOST_TOLD:,} more by less" if len(behind) > MOST_TOLD else ""
    n = count_of(len(_measured(report)), "promotion")
    return (
        f"At {len(behind):,} of {n} the mixture was behind the version's head alone, on the hold-outs of then: {told}"
        f"{more}."
    )


def versions_behind(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of the versions that were worse with their mixture, by however little."""
    return [row for row in _measured(report) if row["holdouts"]["ahead"]["gap"] < 0]


def _measured(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["versions"] if row.get("holdouts")]
