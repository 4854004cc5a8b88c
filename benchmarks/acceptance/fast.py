"""The fast clock: how soon a label counts, live; and the watch, on permuted and on clean labels."""

from typing import Any

from benchmarks.acceptance.rows import Options, Row, judged, shown, skipped, told
from benchmarks.data import SOURCES, STREAM, missing_data
from benchmarks.servers import missing_kafka

FALLS_BACK_WITHIN, BACK_WITHIN = 200, 500
"""Labels."""
BELOW_HEAD_POINTS = 3.0
CLEAN_LABELS = 50_000


def fast_clock(options: Options) -> list[Row]:
    """The drill on real Kafka and Redis."""
    what = "label on the topic to an answer with it, live, while updates train"
    if reason := missing_kafka() or missing_data(STREAM):
        return [skipped(what, reason.splitlines()[0])]
    from benchmarks.drills.fast_clock import run
    from benchmarks.record import result_path, write_result

    found = run(quick=options.quick)
    write_result(result_path("fast_clock", quick=options.quick), found)
    return [judged(what, *_soon(found)), *_clock_rows(found)]


def _soon(found: dict[str, Any]) -> tuple[str, str, bool]:
    steady = found["steady"]
    delay, resolution = steady["label_to_answer_s"], found["resolution_s"]["p50"]
    figure = f"{told(delay)} s over {steady['labels']} labels (told to {resolution} s)"
    return figure, "p50 1 s, p99 2 s", found["verdicts"]["soon"]


def _clock_rows(found: dict[str, Any]) -> list[Row]:
    held, answers, applied, learned = (found[one] for one in ("verdicts", "answers", "pulse_apply_ms", "learned"))
    outages = ", ".join(f"{how} {found[how]['last_answered_after_s']} s" for how in ("killed", "hung"))
    return [
        judged("  promoted meanwhile", str(found["promoted_meanwhile"]), "at least 2", held["while_updates_train"]),
        judged(
            "  a pulse's apply",
            f"p99 at most {applied['p99_at_most']:g} ms over {applied['pulses']} pulses",
            "p99 1 ms",
            held["applied_at_once"],
        ),
        judged("  failed requests", f"{found['requests_failed']} of {found['requests']}", "0", held["none_failed"]),
        judged(
            "  answers against fresh ones",
            f"{answers['compared']} by {answers['versions']} versions and {answers['pulses']} pulses: "
            f"{answers['max_difference']:.1e} at most",
            "1e-5",
            held["answers_are_what_they_name"],
            told(answers),
        ),
        judged(
            f"  Redis killed, then hung, {found['gone_s']:g} s each",
            f"{told(learned)}; the last label given meanwhile answered {outages} after the end",
            "every label in one pulse, replicas at the newest",
            held["outages_lose_nothing"],
        ),
    ]


def poison(options: Options) -> list[Row]:
    """Permuted labels in the middle of the sentiment stream."""
    what = "labels permuted from event 3,000 to 4,000: answers fall back to the head"
    if reason := missing_data(STREAM):
        return [skipped(what, reason)]
    from benchmarks.poison import run
    from benchmarks.record import result_path, write_result

    found = run(quick=options.quick)
    write_result(result_path("poison", quick=options.quick), found)
    fell, back = found["fell_back_after_labels"], found["back_after_labels"]
    below = {name: found[f"worst_points_below_head{more}"] for name, more in _LABELS.items()}
    figure = f"after {fell} labels, told by the replica {found['told_by_the_replica']}"
    seen = fell is not None and fell <= FALLS_BACK_WITHIN and found["told_by_the_replica"]
    again = back is not None and back <= BACK_WITHIN
    outside = found["alarms_outside"]
    return [
        judged(what, figure, f"within {FALLS_BACK_WITHIN} labels, alarm raised", seen),
        judged(
            "  any 250 answers below the head's, points",
            told(below),
            f"at most {BELOW_HEAD_POINTS:g}",
            max(below.values()) <= BELOW_HEAD_POINTS,
        ),
        judged("  mixture back after the end", f"after {back} labels", f"within {BACK_WITHIN} labels", again),
        judged("  alarms before and after", str(outside), "0", not outside),
    ]


_LABELS = {"by the labels that came": "", "by the true ones": "_by_true_labels"}


def clean_watch(options: Options) -> list[Row]:
    """Four clean streams through the watch."""
    what = "the watch on clean labels of four streams"
    if reason := missing_data(*(source.events for source in SOURCES.values())):
        return [skipped(what, reason)]
    from benchmarks.experts import Streams
    from benchmarks.record import result_path, write_result
    from benchmarks.watch import default_cache, run

    found = run(Streams(default_cache()), list(SOURCES), 640 if options.quick else None)
    write_result(result_path("watch", quick=options.quick), found)
    figure = f"{found['alarms']} alarms in {found['labels']:,} labels"
    held = not found["alarms"] and found["labels"] >= CLEAN_LABELS
    nearest = max(share for one in found["streams"].values() for share in one["highest"].values())
    return [
        judged(what, figure, f"none in {CLEAN_LABELS:,}", held),
        shown("  nearest to an alarm", f"{nearest:.1e} of the patience"),
    ]
