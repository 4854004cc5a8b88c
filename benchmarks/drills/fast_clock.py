"""How soon a label counts in a live `driftline up` on Kafka and Redis while updates train; answers right, Redis gone.

    python -m benchmarks.drills.fast_clock [--labels 1000] [--gone 30] [--quick]

Events come at a steady pace, each label some seconds after its event, on the labels topic; clients ask all the while,
with `?experts=true`. A label's time starts before its record is handed to the producer, and ends when a client holds
the first answer whose pulse has learned it (or a later one: pulses follow each other without holes). Then Redis is
killed, and started again with its append-only file; then it hangs (SIGSTOP). Afterwards a sample of the answers is
computed anew from the version's parts in the registry and the fast state that snapshot and pulses lead to.
"""

import argparse
import os
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.data import STREAM, missing_data, read_events
from benchmarks.drills.up import Up
from benchmarks.feeding import EVENTS_PER_S, Feeder, feeding
from benchmarks.fresh_answers import TOLERANCE, Compared, FreshAnswers
from benchmarks.installation import FEED, Setting, installation, is_ready
from benchmarks.probes import Probes, first_with, gaps_s, probing
from benchmarks.pulse_log import PulseLog, recording
from benchmarks.record import announce_document, options_of, write_result
from benchmarks.servers import RedisServer, servers, wait_for
from driftline.assembly.wiring import build_registry, open_buffer
from driftline.clock import sleep
from driftline.records import Example

LABELS = 1000
HOLDOUTS = 1.2
"""About a tenth is held out and teaches the fast clock nothing: so many more labels are given."""
WARM_EVENTS = 300
ASKED_PER_S = 25.0
GONE_S = 30.0
SAMPLE = 1000
P50_S, P99_S, APPLY_MS, PROMOTED = 1.0, 2.0, 1.0, 2
PROMOTED_WITHIN_S = 600.0
CAUGHT_UP_WITHIN_S = 120.0


class Drill:
    """The running installation, who asks it, who feeds it, and what its fast clock publishes."""

    def __init__(self, up: Up, probes: Probes, feeder: Feeder, log: PulseLog, warm: int) -> None:
        """`warm`: how many labelled events were given before."""
        self.place, self.up, self.probes, self.feeder, self.log, self.warm = up.place, up, probes, feeder, log, warm

    def steady(self, labels: int) -> dict[str, Any]:
        """Wait until so many labels were given and learned; when that was, what was promoted meanwhile, and the
        machine's load (over 1, 5 and 15 minutes)."""
        began, before = time.monotonic(), self.up.promoted()
        self.wait(lambda: len(self.feeder.given) >= labels, 60 + 2 * labels / EVENTS_PER_S)
        ended = time.monotonic()
        self.wait(self.caught_up, CAUGHT_UP_WITHIN_S)
        load = [round(one, 1) for one in os.getloadavg()]
        return {"began": began, "ended": ended, "promoted": self.up.promoted() - before, "load": load}

    def away(self, take: Callable[[], None], give_back: Callable[[], None], gone_s: float) -> dict[str, Any]:
        """Redis gone for so long, while all goes on; when that was."""
        began = time.monotonic()
        take()
        sleep(gone_s)  # the outage itself: nothing to wait for
        ended = time.monotonic()
        give_back()
        sleep(1 / EVENTS_PER_S)  # so that a label given meanwhile is not yet learned by chance
        self.wait(self.caught_up, CAUGHT_UP_WITHIN_S)
        return {"began": began, "ended": ended}

    def caught_up(self) -> bool:
        """Whether nothing is due, and answers have the newest pulse."""
        with closing(open_buffer(self.place.config, read_only=True)) as buffer:
            due, number = buffer.fast.due_count(FEED), buffer.fast.last_number(FEED)
        return due == 0 and self.probes.newest() >= number

    def all_there(self) -> bool:
        """Whether every label that was given made an example."""
        return self.up.counts().examples >= self.warm + len(self.feeder.given)

    def wait(self, happened: Callable[[], bool], within_s: float) -> None:
        """RuntimeError with the end of the log if it does not happen in time, or the feeder broke."""
        self.place.require(self.up.started, lambda: happened() or self.feeder.broken is not None, within_s)
        if self.feeder.broken is not None:
            raise self.feeder.broken


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 and the greatest."""
    found = np.quantile(values, [0.5, 0.9, 0.99, 1.0]).round(3).tolist() if values else [None] * 4
    return dict(zip(("p50", "p90", "p99", "max"), found, strict=True))


def delays(drill: Drill, examples: Sequence[Example], began: float, ended: float) -> dict[str, Any]:
    """Of the labels given between these moments: from each to its pulse, and on to the first answer with it."""
    given, pulse_of = drill.feeder.given, drill.log.pulse_of()
    meant = [one for one in examples if not one.holdout and began <= given[one.event_id] < ended]
    learned = [(given[one.event_id], pulse_of[one.seq]) for one in meant if one.seq in pulse_of]
    answered = first_with(drill.probes.done, [pulse for _, pulse in learned])
    whole = [at - start for (start, _), at in zip(learned, answered, strict=True) if at is not None]
    seen = [drill.log.seen_at[pulse] - start for start, pulse in learned if pulse in drill.log.seen_at]
    last = max((at for at in answered if at is not None), default=ended)
    return {
        "labels": len(meant),
        "never_answered": len(meant) - len(whole),
        "label_to_answer_s": quantiles(whole),
        "of_it_label_to_pulse_s": quantiles(seen),
        "last_answered_after_s": round(last - ended, 3),
    }


def learned_once(drill: Drill, examples: Sequence[Example]) -> dict[str, int]:
    """Labels by how many pulses learned them; hold-outs belong to none."""
    counted = Counter(seq for seqs in drill.log.lessons.values() for seq in seqs)
    return {
        "labels": len(examples),
        "holdouts": sum(one.holdout for one in examples),
        "missing": sum(not counted[one.seq] for one in examples if not one.holdout),
        "twice": sum(counted[one.seq] > 1 for one in examples),
        "holdouts_learned": sum(bool(counted[one.seq]) for one in examples if one.holdout),
        "given_and_not_there": len(set(drill.feeder.given) - {one.event_id for one in examples}),
    }


def apply_ms(url: str) -> dict[str, float]:
    """How long pulses held the mixing of `serve`: how many, and the bound that 99 % of them stay below."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    buckets = {
        float(sample.labels["le"]): sample.value
        for family in families
        for sample in family.samples
        if sample.name == "driftline_pulse_apply_ms_bucket"
    }
    count = buckets[float("inf")]
    return {"pulses": int(count), "p99_at_most": min(le for le, n in buckets.items() if n >= 0.99 * count)}


def judged_answers(compared: Sequence[Compared]) -> dict[str, Any]:
    """How far the sampled answers are from fresh ones."""
    return {
        "compared": len(compared),
        "versions": len({one.version for one in compared}),
        "pulses": len({one.pulse for one in compared}),
        "max_difference": max((one.off for one in compared), default=None),
        "beyond_tolerance": sum(one.off > TOLERANCE for one in compared),
        "feature_rounded_otherwise": sum(one.rounded > 0 for one in compared),
        "max_difference_with_one_rounding": max((one.straight for one in compared), default=None),
        "other_label": sum(not one.same_label for one in compared),
        "max_difference_of_what_is_told": max((one.told for one in compared), default=None),
        "worst": [asdict(one) for one in sorted(compared, key=lambda one: -one.off)[:3]],
    }


def newest_everywhere(drill: Drill) -> bool:
    """Whether every replica, the scorer's too, says that it stands at the newest pulse."""
    with closing(build_registry(drill.place.config)) as registry:
        newest = registry.pulses.stored(FEED).number
        stands = [one.pulses.get(FEED) for one in registry.replicas()]
    return len(stands) >= 2 and set(stands) == {newest}


def play(drill: Drill, redis: RedisServer, labels: int, gone_s: float, sample: int) -> dict[str, Any]:
    """All of it, with figures."""
    steady = drill.steady(round(labels * HOLDOUTS))
    killed = drill.away(redis.kill, redis.start, gone_s)
    hung = drill.away(redis.freeze, redis.thaw, gone_s)
    drill.feeder.finish()
    drill.wait(drill.all_there, CAUGHT_UP_WITHIN_S)
    drill.wait(drill.caught_up, CAUGHT_UP_WITHIN_S)
    newest = wait_for(lambda: newest_everywhere(drill), 10.0)
    applied = apply_ms(drill.place.url)
    drill.probes.stop()
    with closing(open_buffer(drill.place.config, read_only=True)) as buffer:
        all_examples = buffer.ledger.examples_after(FEED, 0)
        cycles = [row.outcome for row in buffer.ledger.cycles(FEED)]
    examples = [one for one in all_examples if one.event_id in drill.feeder.given]
    answered = [one for one in drill.probes.done if one.pulse]
    chosen = Random(0).sample(answered, min(sample, len(answered)))
    meanwhile = [one for one in drill.probes.done if steady["began"] <= one.received < steady["ended"]]
    return {
        "steady": delays(drill, examples, steady["began"], steady["ended"]),
        "promoted_meanwhile": steady["promoted"],
        "load_average": steady["load"],
        "cycles": dict(Counter(str(one) for one in cycles)),
        "probes_per_s": round(len(meanwhile) / (steady["ended"] - steady["began"]), 1),
        "resolution_s": quantiles(gaps_s(meanwhile)),
        "request_s": quantiles([one.received - one.sent for one in meanwhile]),
        "pulse_apply_ms": applied,
        "killed": delays(drill, examples, killed["began"], killed["ended"]),
        "hung": delays(drill, examples, hung["began"], hung["ended"]),
        "learned": learned_once(drill, examples),
        "replicas_at_the_newest_pulse": newest,
        "requests": len(drill.probes.done),
        "requests_failed": len(drill.probes.failures()),
        "failures": dict(Counter(str(one.failure) for one in drill.probes.failures())),
        "answers": judged_answers(FreshAnswers(drill.place.config, FEED).compare(chosen, drill.log))
        | {"sampled": len(chosen)},
    }


def verdicts(found: dict[str, Any]) -> dict[str, bool]:
    """What was promised, by name, and whether it held."""
    steady, learned, answers = found["steady"], found["learned"], found["answers"]
    delay, outages = steady["label_to_answer_s"], [found["killed"], found["hung"]]
    wrong = ("missing", "twice", "holdouts_learned", "given_and_not_there")
    return {
        "soon": not steady["never_answered"] and delay["p50"] <= P50_S and delay["p99"] <= P99_S,
        "while_updates_train": found["promoted_meanwhile"] >= PROMOTED,
        "applied_at_once": found["pulse_apply_ms"]["p99_at_most"] <= APPLY_MS,
        "none_failed": not found["requests_failed"],
        "answers_are_what_they_name": answers["compared"] == answers["sampled"] and not answers["beyond_tolerance"],
        "outages_lose_nothing": not any(one["never_answered"] for one in outages)
        and not any(learned[one] for one in wrong)
        and found["replicas_at_the_newest_pulse"],
    }


def run(*, quick: bool = False, labels: int | None = None, gone_s: float | None = None) -> dict[str, Any]:
    """The drill as one JSON-ready document. SetupError where there is no Java; RuntimeError without the stream."""
    if reason := missing_data(STREAM):
        raise RuntimeError(reason)
    labels, gone_s = labels or (60 if quick else LABELS), gone_s or (5.0 if quick else GONE_S)
    warm = 120 if quick else WARM_EVENTS
    events = [event for event in read_events(STREAM) if event["label"]]
    texts = [str(event["text"]) for event in events[5::47]]
    start = time.time()
    with tempfile.TemporaryDirectory(prefix="driftline-drill-") as name, servers(Path(name)) as (broker, redis):
        setting = Setting(redis_url=redis.url, bootstrap=broker.bootstrap, min_examples=None)
        with installation(Path(name) / "driftline", setting) as place:
            up = Up(place)
            place.require(up.started, lambda: is_ready(place.url))
            place.produce(events[:warm])
            place.require(up.started, lambda: up.promoted(), PROMOTED_WITHIN_S)
            with (
                recording(place.config, FEED) as log,
                probing(place.url, FEED, texts, ASKED_PER_S) as probes,
                feeding(place, events[warm:]) as feeder,
            ):
                drill = Drill(up, probes, feeder, log, warm)
                found = play(drill, redis, labels, gone_s, 50 if quick else SAMPLE)
            restarts = up.restarts()
    head = {"drill": "fast_clock", "stream": STREAM.name, "events_per_s": EVENTS_PER_S, "gone_s": gone_s}
    held = verdicts(found)
    return {
        **head,
        **found,
        "restarts": restarts,
        "verdicts": held,
        "ok": all(held.values()),
        "seconds": round(time.time() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, help="how many labels are measured (default 1,000)")
    parser.add_argument("--gone", type=float, help="seconds that Redis is gone, each time (default 30)")
    options = options_of(parser, "drill_fast_clock")
    result = run(quick=options.quick, labels=options.labels, gone_s=options.gone)
    announce_document("fast_clock", result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
