"""The drills on real servers and processes, and the benchmarks, as rows."""

from typing import Any

from benchmarks.acceptance.rows import Options, Row, judged, shown, skipped, told
from benchmarks.data import STREAM, missing_data
from benchmarks.servers import missing_kafka

SERVED_WITHIN_MS = 2000.0


def kafka_stream(options: Options) -> list[Row]:
    """The whole stream over Kafka with ingest killed."""
    what = "stream over Kafka, learned by `up`, ingest killed"
    if reason := missing_kafka() or missing_data(STREAM):
        return [skipped(what, reason.splitlines()[0])]
    from benchmarks.drills.kafka_stream import run

    found = run(quick=options.quick, limit=options.limit)
    figure = f"{found['kills']} kills; ids {told(found['ids'])}"
    promoted = found["versions"]["promoted"]
    return [
        judged(what, figure, "none missing, none twice", found["ok"], "" if found["ok"] else told(found)),
        shown("  versions promoted, time", f"{promoted}, {found['seconds']:.0f} s"),
    ]


def learner_kills(options: Options) -> list[Row]:
    """The learner killed in its cycle."""
    from benchmarks.drills.learner_kills import run

    found = run(quick=options.quick)
    versions = {name: found["versions"][name] for name in ("versions", "lost", "twice", "relearned")}
    figure = f"{found['kills']} kills, {found['kills_that_left_a_cycle_open']} inside a cycle; {told(versions)}"
    target = "none lost, none twice, learned once"
    return [judged("learner killed in its cycle", figure, target, found["ok"], "" if found["ok"] else told(found))]


def rollback(options: Options) -> list[Row]:
    """Rollback under load, by one command."""
    from benchmarks.drills.rollback_under_load import judged as held
    from benchmarks.drills.rollback_under_load import run

    found = run(quick=options.quick)
    figure = (
        f"replicas after {found['answered_s']} s, {found['requests_failed']} of {found['requests']} requests failed"
    )
    return [
        judged("rollback under load", figure, "2 s, none failed", held(found), "" if found["ok"] else told(found)),
        judged(
            "  next cycle does not undo it; audit says who and when",
            f"unchanged {found['unchanged']}, audited {found['audit_says_who_and_when']}",
            "both",
            bool(found["unchanged"] and found["audit_says_who_and_when"]),
        ),
    ]


def outage(options: Options) -> list[Row]:
    """Redis and Kafka gone in the middle."""
    what = "Redis, then Kafka gone in the middle of `up`"
    if reason := missing_kafka():
        return [skipped(what, reason.splitlines()[0])]
    from benchmarks.drills.outage import run

    found = run(quick=options.quick)
    figure = (
        f"{found['gone_s']:g} s each; {found['requests_failed']} of {found['requests']} requests failed, "
        f"longest silence {found['longest_silence_s']:.1f} s; ids {told(found['ids'])}"
    )
    target = "serving answers, nothing lost"
    return [judged(what, figure, target, found["ok"], "" if found["ok"] else told(found))]


def figures(options: Options) -> list[Row]:
    """All benchmarks; honest numbers without a target, but for how soon a promoted version answers everywhere."""
    from benchmarks.run import NAMES, rows_of, run_one

    results = {name: run_one(name, quick=options.quick) for name in NAMES}
    rows = [shown(what, f"{figure} ({against})") for one in results.values() for what, figure, against in rows_of(one)]
    return [*rows, _everywhere(results["promotion"])]


def _everywhere(promotion: dict[str, Any]) -> Row:
    slowest, failed = promotion["all_replicas_ms"]["max"], promotion["requests_failed"]
    return judged(
        "promoted versions answer from every replica",
        f"max {slowest:.0f} ms over {promotion['promotions']} promotions, {failed} requests failed",
        f"within {SERVED_WITHIN_MS:g} ms, none failed",
        slowest <= SERVED_WITHIN_MS and not failed,
    )
