"""The replay's report: the JSON document of DESIGN §6, from the buffer, the registry and the driver's tally."""

import statistics
import time
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

from driftline.artefact.manifest import decode_manifest
from driftline.buffer import Scored
from driftline.config import ScheduleConfig, feed_sha256
from driftline.records import GateReason, iso
from driftline.splitting import SAMPLE_TEXTS
from learner.model import dtype_name, training_dtype
from replay.classes import class_rows, confusion_rows, exam_row, rival_row, source_rows
from replay.driver import Driver
from replay.evaluation import average_accuracy, backward_transfer, forgetting, windows
from replay.final_exam import final_exam
from replay.pipeline import Pipeline
from replay.source import StreamItem

REPORT_FORMAT = 5
"""What a report may hold: 1 is what was written before there was a number; with 2 came
`dtype` (what updates were trained in), macro-F1 of every exam, classes, sources and `broken_words`;
with 3 `ahead` of every baseline (ours minus theirs, with its 95 % interval), the baselines' exams under `evaluation`,
the setting that `online_head` had chosen, and `frozen_mixture` among the baselines;
with 4 `experts` (`ahead`: ours minus the answers without it), `pulses` and `seconds.adapt`, of feeds with a fast
clock;
with 5 `holdouts` of every version (its mixture beside its head alone, when it went live) and `seconds.promotions`."""
WINDOW_EVENTS = 250


def build_report(driver: Driver, total_seconds: float, evaluation: Iterable[StreamItem]) -> dict[str, Any]:
    """Everything in one JSON-ready document; equal for two runs of the same stream, but for the times: `seconds`,
    `swaps.pause_ms_*` and `examples_per_s`."""
    pipe, tally = driver.pipeline, driver.tally
    start = time.perf_counter()
    counts, reasons = pipe.buffer.counts(pipe.feed), pipe.buffer.letters.reasons(pipe.feed)
    scored = pipe.buffer.exams.scored(pipe.feed)
    warm = after_cold_start(driver, scored)
    return {
        "format": REPORT_FORMAT,
        "feed": pipe.feed,
        "device": str(pipe.base.device),
        "dtype": dtype_name(training_dtype(pipe.base.device, pipe.section.learner.dtype)),
        "config_sha256": feed_sha256(pipe.config, pipe.feed),
        "events": counts.event_records,
        "examples": counts.examples,
        "holdout_examples": counts.holdouts,
        "unlabelled": counts.unlabelled,
        "pending": counts.pending,
        "dead_letters": counts.dead_letters,
        "dead_letters_by_reason": reasons.get("event", {}),
        "label_dead_letters": counts.label_dead_letters,
        "label_dead_letters_by_reason": reasons.get("label", {}),
        "labels": list(pipe.section.labels),
        "broken_words": broken_words(pipe, scored),
        "schedule": schedule(pipe.section.schedule, counts.examples),
        "duplicates": counts.duplicates,
        "prequential": prequential(scored, pipe.section.labels),
        "experts": driver.experts.rows(scored, WINDOW_EVENTS),
        "pulses": tally.pulses,
        "baselines": baselines(driver, scored, warm),
        "after_cold_start": warm,
        "retention": retention(pipe),
        "evaluation": final_exam(pipe, driver.rivals, evaluation),
        "versions": [
            version_row(pipe, version) | {"holdouts": tally.promotions.get(version)}
            for version in sorted(pipe.registry.versions(pipe.feed))
        ],
        "swaps": swaps(driver, scored),
        "freshness_s": {"p50": quantile(tally.freshness_s, 0.5), "p95": quantile(tally.freshness_s, 0.95)},
        "seconds": {"total": total_seconds + time.perf_counter() - start} | tally.seconds,
        "examples_per_s": tally.trained_examples / tally.seconds["train"] if tally.seconds["train"] else None,
    }


def schedule(section: ScheduleConfig, examples: int) -> dict[str, Any]:
    """What had to be there for an update, at the end; of `every_s` and `cron` one is null."""
    every_s = section.period_s if section.cron is None else None
    return {"min_examples": section.enough(examples), "every_s": every_s, "cron": section.cron}


def prequential(scored: list[Scored], labels: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy of the served answers; a missing answer counts as wrong."""
    truth, predicted = [s.label for s in scored], [s.predicted for s in scored]
    versions = [s.version or 0 for s in scored]
    return {
        **exam_row(predicted, truth, labels),
        "windows": windows(predicted, truth, versions, WINDOW_EVENTS),
        "by_class": class_rows(scored),
        "confusion": confusion_rows(scored),
        "by_source": source_rows(scored, labels),
    }


def broken_words(pipe: Pipeline, scored: list[Scored]) -> float | None:
    """The share of words that the base sees as unknown or letter by letter, of the last texts."""
    sample = pipe.buffer.ledger.examples(pipe.feed, [one.seq for one in scored[-SAMPLE_TEXTS:]])
    return pipe.base.broken_words([example.text for example in sample])


def baselines(driver: Driver, scored: list[Scored], warm: dict[str, Any]) -> dict[str, Any]:
    """Each rival on the same events as ours; `first_version` with ours on its range beside it."""
    rows: dict[str, Any] = {}
    truth, ours = [s.label for s in scored], [s.predicted for s in scored]
    for name, answers in driver.rivals.answers.items():
        predicted = [answers.get(s.event_id) for s in scored]
        windowed = windows(predicted, truth, [0] * len(scored), WINDOW_EVENTS)
        rows[name] = {
            **rival_row(predicted, ours, truth, driver.pipeline.section.labels),
            "windows": [w["accuracy"] for w in windowed],
        }
    rows["online_head"] |= driver.rivals.head.chosen._asdict()
    rows["first_version"] = {
        **warm["baselines"]["first_version"],
        "ours": warm["prequential"]["accuracy"],
        "version": driver.rivals.first_version,
    }
    return rows


def after_cold_start(driver: Driver, scored: list[Scored]) -> dict[str, Any]:
    """Ours and every baseline on the events from a trained version's first answer on. Before, version 0 answered: a
    cold start only without a fast clock, which answers from the first label on."""
    rivals, labels = driver.rivals, driver.pipeline.section.labels
    warm = [s for s in scored if s.event_id in rivals.first_answers]
    truth, ours = [s.label for s in warm], [s.predicted for s in warm]
    answered = rivals.answers | {"first_version": rivals.first_answers}
    return {
        "prequential": exam_row(ours, truth, labels),
        "baselines": {
            name: rival_row([answers.get(s.event_id) for s in warm], ours, truth, labels)
            for name, answers in answered.items()
        },
    }


def retention(pipe: Pipeline) -> dict[str, Any]:
    """The accuracy matrix a[i][j] and its three summaries."""
    matrix = [
        [cell[0] / cell[1] if cell and cell[1] else None for cell in row] for row in pipe.buffer.exams.matrix(pipe.feed)
    ]
    return {
        "segments": len(matrix),
        "matrix": matrix,
        "average_accuracy": average_accuracy(matrix),
        "backward_transfer": backward_transfer(matrix),
        "forgetting": forgetting(matrix),
    }


def version_row(pipe: Pipeline, version: int) -> dict[str, Any]:
    """One version as the report shows it."""
    manifest = decode_manifest(pipe.registry.manifest(pipe.feed, version).document)
    pooled = manifest.evaluation.get("pooled")
    return {
        "version": version,
        "parent": manifest.parent,
        "examples": manifest.fresh_examples + manifest.replayed_examples,
        "fresh": manifest.fresh_examples,
        "exam": {"accuracy": pooled.accuracy, "macro_f1": pooled.macro_f1, "n": int(pooled.n)} if pooled else None,
        "decision": "promoted" if manifest.decision.promote else "rejected",
        "reasons": [reason_row(reason) for reason in manifest.decision.reasons],
        "created_at": iso(manifest.created_at),
    }


def reason_row(reason: GateReason) -> dict[str, Any]:
    """A gate reason without its empty fields."""
    row = {name: getattr(reason, name) for name in GateReason.__dataclass_fields__}
    return {name: value for name, value in row.items() if value not in (None, "")}


def swaps(driver: Driver, scored: list[Scored]) -> dict[str, Any]:
    """How often the engine changed its live version, and for how long that held the batches. `event` counts the events
    before a swap, `scored` those of them that the windows count."""
    pauses = list(driver.pipeline.engine.pauses_ms)
    places = sorted(driver.rivals.order[one.event_id] for one in scored)
    return {
        "count": len(driver.tally.swaps),
        "pause_ms_p50": quantile(pauses, 0.5),
        "pause_ms_max": max(pauses, default=None),
        "requests_failed": driver.tally.requests_failed,
        "at_event": [
            {"version": swap.version, "event": swap.events, "scored": bisect_left(places, swap.distinct)}
            for swap in driver.tally.swaps
        ],
    }


def quantile(values: list[float], share: float) -> float | None:
    """The empirical quantile (nearest rank, linear between); None of nothing."""
    if len(values) < 2:
        return values[0] if values else None
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[round(share * 100) - 1]
