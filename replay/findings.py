"""What a replay showed of the user's own stream, one sentence each, also where Driftline loses. Pure.

A difference is told from chance by the 95 % interval that the report has of it: it holds for events that are
independent of each other, so on a stream that repeats itself it is too narrow.
"""

from statistics import fmean
from typing import Any

from driftline.phrases import count_of, percent
from replay.comparison import NAMES
from replay.mixtures import behind_in_words
from replay.words import FROM_FIRST, standing
from replay.worth import worth_in_words

BRACKETS = "In brackets: the 95 % interval of the difference in accuracy, by paired bootstrap over the events."


def findings(report: dict[str, Any]) -> list[str]:
    """Sentences on updates, replay, LoRA, each expert, promotions where mixing lost, each baseline and the evaluation
    file; none without labelled events."""
    if not report["prequential"]["n"]:
        return []
    blind = [_against_blind(report, name) for name in ("last_label", "majority")]
    told = [
        _updates(report),
        _replay(report),
        _against_the_mixture(report),
        *worth_in_words(report),
        behind_in_words(report),
        _against_the_head(report),
        *blind,
        _final(report),
    ]
    return [sentence for sentence in told if sentence]


def _updates(report: dict[str, Any]) -> str:
    first, versions = report["baselines"]["first_version"], report["versions"]
    if not first["ahead"]:
        return ""
    if sum(row["decision"] == "promoted" for row in versions) == 1:
        return f"Only version {first['version']} went live, so what further updates are worth was not to be seen."
    since, frozen = count_of(first["n"], "event"), f"version {first['version']} kept frozen"
    if report["experts"]:
        moved, frozen = "Updates and the fast clock", f"{frozen} (its head alone)"
    else:
        moved = "Updates"
    return f"{moved} put Driftline {standing(first['ahead'], frozen)}, on the {since} since that one went live."


def _replay(report: dict[str, Any]) -> str:
    """How much better or worse the last version is on earlier segments than when they had just been learned."""
    matrix, change = report["retention"]["matrix"], report["retention"]["backward_transfer"]
    if change is None:
        return ""
    replayed = any(row["examples"] > row["fresh"] for row in report["versions"])
    last = percent(fmean(cell for cell in matrix[-1][:-1] if cell is not None))
    moved = f"{abs(100 * change):.1f} points {'more' if change >= 0 else 'less'}"
    return (
        f"{'With' if replayed else 'Without'} replay, the last version is right for {last} of the hold-outs of"
        f" {count_of(len(matrix) - 1, 'earlier segment')}, {moved} than when each had just been learned"
        + (f'; strategy = "naive" in [feed.{report["feed"]}.learner] would show it without.' if replayed else ".")
    )


def _against_the_mixture(report: dict[str, Any]) -> str:
    """What training is worth over all that is nearly free."""
    called = f"the {NAMES['frozen_mixture']}, which learn from every label at once"
    if not report["baselines"]["first_version"]["ahead"]:
        level = _once(report, "frozen_mixture", called)
        return f"No version answered, so this says nothing of LoRA: Driftline was {level}."
    return f"LoRA and replay put Driftline {_twice(report, 'frozen_mixture', called)}."


def _against_the_head(report: dict[str, Any]) -> str:
    chosen = report["baselines"]["online_head"]
    setting = f"(λ = {chosen['ridge']:g}, forgetting {chosen['forgetting']:g}, chosen on line)"
    return _against(report, "online_head", f"the {NAMES['online_head']} {setting}")


def _against_blind(report: dict[str, Any], name: str) -> str:
    return _against(report, name, f"the {NAMES[name]}")


def _against(report: dict[str, Any], name: str, called: str) -> str:
    """Told twice where answers began with the first version; with a fast clock they begin with the first label."""
    told = _once if report["experts"] else _twice
    return f"Driftline was {told(report, name, called)}."


def _once(report: dict[str, Any], name: str, called: str) -> str:
    """Over the whole stream."""
    return standing(report["baselines"][name]["ahead"], called)


def _twice(report: dict[str, Any], name: str, called: str) -> str:
    """Over the whole stream, and from the first version on where that is not the same."""
    whole, warm = report["baselines"][name], report["after_cold_start"]["baselines"][name]
    told = _once(report, name, called)
    return told if warm["n"] in (0, whole["n"]) else f"{told}; {FROM_FIRST} {standing(warm['ahead'])}"


def _final(report: dict[str, Any]) -> str:
    if not report["evaluation"]:
        return ""
    exam = report["evaluation"]["all"]
    best = max(exam["baselines"], key=lambda name: exam["baselines"][name]["accuracy"])
    rival = exam["baselines"][best]
    called = f"the best baseline there, {NAMES[best]} ({percent(rival['accuracy'])})"
    return (
        f"On the evaluation file the final version is right for {percent(exam['accuracy'])},"
        f" {standing(rival['ahead'], called)}."
    )
