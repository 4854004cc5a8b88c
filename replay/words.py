"""Sentences of a report that its summary and its page share. Pure."""

from typing import Any

from driftline.phrases import count_of
from driftline.reasons import GUESSES

LABELS_KNOWN = (
    "Each label comes at the time its event names (label_at), else once its batch of at most 32 events is answered;"
    " a missing answer counts as wrong, for the baselines too."
)
FEW_WINDOWS = 8
FROM_FIRST = "from the first version on"
"""The stretch of a stream that a report has under `after_cold_start`."""


def counts_in_words(report: dict[str, Any]) -> str:
    """What became of the events that are no examples."""
    why = "no usable label came" if report["label_dead_letters_by_reason"] else "labels still awaited at the end"
    pending = f"{report['pending']} pending" + (f" ({why})" if report["pending"] else "")
    reasons = ", ".join(f"{code} {n:,}" for code, n in sorted(report["dead_letters_by_reason"].items()))
    dead = count_of(report["dead_letters"], "dead letter") + (f" ({reasons})" if reasons else "")
    return f"{report['unlabelled']} unlabelled, {pending}, {dead}, {count_of(report['duplicates'], 'duplicate')}"


def lost_labels(report: dict[str, Any]) -> str:
    """`60 labels could not be used: unknown_label; the feed's labels are …`; nothing if all could be used."""
    reasons = report["label_dead_letters_by_reason"]
    if not reasons:
        return ""
    counted = next(iter(reasons)) if len(reasons) == 1 else ", ".join(f"{n:,} {code}" for code, n in reasons.items())
    known = f"; the feed's labels are {', '.join(report['labels'])}" if "unknown_label" in reasons else ""
    return f"{count_of(sum(reasons.values()), 'label')} could not be used: {counted}{known}"


def nothing_learned(report: dict[str, Any]) -> str:
    """Why there was no update, and what to do; nothing if there was one."""
    if report["versions"]:
        return ""
    return _no_update(report) if report["examples"] else _no_example(report)


def guessing(report: dict[str, Any]) -> str:
    """That the last version that went live only guesses; nothing otherwise."""
    promoted = [row for row in report["versions"] if row["decision"] == "promoted"]
    codes = {reason["code"] for reason in promoted[-1]["reasons"]} if promoted else set()
    if not codes & set(GUESSES):
        return ""
    last = f"version {promoted[-1]['version']}, the last to go live,"
    return f"{last} is not shown to do more than answer the most frequent class"


def _no_update(report: dict[str, Any]) -> str:
    schedule, trainable = report["schedule"], report["examples"] - report["holdout_examples"]
    least, section = schedule["min_examples"], f"[feed.{report['feed']}.schedule]"
    have = f"{count_of(trainable, 'example')} to train on ({report['holdout_examples']:,} more are held out)"
    if trainable < least:
        why = f"an update starts from {least:,} (min_examples of {section}); set it lower"
    else:
        key = "every_s" if schedule["cron"] is None else "cron"
        ticks = f"every {schedule['every_s']:g} s" if schedule["cron"] is None else f'at "{schedule["cron"]}"'
        why = (
            f"no tick of the schedule came after number {least:,} ({ticks} of stream time; {key} and min_examples of"
            f" {section}); set min_examples lower or {key} to come more often"
        )
    answers = "come from the fast clock, on the base as it is" if report["experts"] else "come from an untrained model"
    start = f"no update in {count_of(report['events'], 'event')}, so all answers {answers}"
    return f"{start}: there were {have}, but {why}, or replay a longer stream"


def _no_example(report: dict[str, Any]) -> str:
    section, lost = f"[feed.{report['feed']}]", lost_labels(report)
    if "unknown_label" in report["label_dead_letters_by_reason"]:
        why = f"{lost}: set `labels` of {section} to those of the file"
    elif lost:
        why = f"{lost}: see label_wait_s and event_wait_s of {section}"
    elif no_usable_event(report):
        reasons = ", ".join(f"{code} {n:,}" for code, n in sorted(report["dead_letters_by_reason"].items()))
        why = f"not one could be used ({reasons}): name the file's fields in [feed.{report['feed']}.fields]"
    else:
        why = f"no event has a label: name the field that holds it as `label` of [feed.{report['feed']}.fields]"
    return f"no example in {count_of(report['events'], 'event')}, so nothing was learned or measured; {why}"


def no_usable_event(report: dict[str, Any]) -> bool:
    """Whether every record was refused, so that nothing was answered either."""
    return bool(report["dead_letters"] == report["events"])


def forgetting_in_words(retention: dict[str, Any]) -> str:
    """Forgetting and backward transfer; nothing where there are too few segments."""
    if retention["forgetting"] is None:
        return ""
    points = 100 * retention["forgetting"]
    improved = " (below 0: it improved)" if points < 0 else ""
    transfer = 100 * retention["backward_transfer"]
    return f"forgetting {points:.1f} points{improved}, backward transfer {transfer:+.1f} points"


def few_windows(report: dict[str, Any]) -> str:
    """A caution where the curve has too few points to show a course; nothing elsewhere."""
    n = len(report["prequential"]["windows"])
    if n >= FEW_WINDOWS:
        return ""
    return f"A short stream, {count_of(n, 'window')} only: much of what differs between windows may be chance."


def standing(ahead: dict[str, float], rival: str = "") -> str:
    """`12.2 points (9.8 to 14.5) ahead of X`, `0.4 points (-1.0 to 1.8) behind X, which may be chance`. The interval
    goes in the direction that is named; X may be left out."""
    gap, low, high = (100 * ahead[name] for name in ("gap", "low", "high"))
    chance = ", which may be chance" if low <= 0 <= high else ""
    if gap > 0:
        return f"{_points(gap)} points ({_points(low)} to {_points(high)}) ahead{rival and f' of {rival}'}{chance}"
    return f"{_points(-gap)} points ({_points(-high)} to {_points(-low)}) behind{rival and f' {rival}'}{chance}"


def _points(value: float) -> str:
    """With one digit, and no sign at nothing."""
    return f"{round(value, 1) + 0.0:.1f}"
