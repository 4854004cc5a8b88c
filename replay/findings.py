"""What a replay showed of the user's own stream, one sentence each, also where Driftline loses. Pure.

A difference is told from chance by the 95 % interval that the report has of it: it holds for events that are
independent of each other, so on a stream that repeats itself it is too narrow.
"""

from statistics import fmean
from typing import Any

from driftline.phrases import count_of, percent
from replay.comparison import NAMES

BRACKETS = "In brackets: the 95 % interval of the difference in accuracy, by paired bootstrap over the events."


def findings(report: dict[str, Any]) -> list[str]:
    """Sentences on updates, replay, LoRA, each blind baseline and the evaluation file; none without labelled events."""
    if not report["prequential"]["n"]:
        return []
    blind = [_against(report, name) for name in ("last_label", "majority")]
    told = [
        _updates(report),
        _replay(report),
        _against_the_mixture(report),
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
    standing = _standing(first["ahead"], f"version {first['version']} kept frozen")
    return f"Updates put Driftline {standing}, on the {count_of(first['n'], 'event')} since that one went live."


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


def _against_the_head(report: dict[str, Any]) -> str:
    chosen = report["baselines"]["online_head"]
    setting = f"(λ = {chosen['ridge']:g}, forgetting {chosen['forgetting']:g}, chosen on line)"
    called = f"the {NAMES['online_head']} {setting}"
    return f"Driftline was {_twice(report, 'online_head', called)}."


def _against_the_mixture(report: dict[str, Any]) -> str:
    """What training is worth over all that is nearly free."""
    called = f"the {NAMES['frozen_mixture']}, which learn from every label at once"
    return f"LoRA and replay put Driftline {_twice(report, 'frozen_mixture', called)}."


def _against(report: dict[str, Any], name: str) -> str:
    return f"Driftline was {_twice(report, name, f'the {NAMES[name]}')}."


def _twice(report: dict[str, Any], name: str, called: str) -> str:
    """Over the whole stream, and after the cold start where there was one."""
    whole, warm = report["baselines"][name], report["after_cold_start"]["baselines"][name]
    standing = _standing(whole["ahead"], called)
    return standing if warm["n"] in (0, whole["n"]) else f"{standing}; after the cold start {_standing(warm['ahead'])}"


def _final(report: dict[str, Any]) -> str:
    if not report["evaluation"]:
        return ""
    exam = report["evaluation"]["all"]
    best = max(exam["baselines"], key=lambda name: exam["baselines"][name]["accuracy"])
    rival = exam["baselines"][best]
    called = f"the best baseline there, {NAMES[best]} ({percent(rival['accuracy'])})"
    return (
        f"On the evaluation file the final version is right for {percent(exam['accuracy'])},"
        f" {_standing(rival['ahead'], called)}."
    )


def _standing(ahead: dict[str, float], rival: str = "") -> str:
    """`12.2 points (9.8 to 14.5) ahead of X`, `0.4 points (-1.0 to 1.8) behind X, which may be chance`. The interval
    goes in the direction that is named; X may be left out."""
    gap, low, high = (100 * ahead[name] for name in ("gap", "low", "high"))
    chance = ", which may be chance" if low <= 0 <= high else ""
    if gap > 0:
        return f"{gap:.1f} points ({low:.1f} to {high:.1f}) ahead{rival and f' of {rival}'}{chance}"
    return f"{abs(gap):.1f} points ({-high:.1f} to {-low:.1f}) behind{rival and f' {rival}'}{chance}"
