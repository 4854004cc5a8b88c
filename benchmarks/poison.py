"""What labels that came loose from their texts do to the answers, and how soon the watch over the fast state sees it.

    python -m benchmarks.poison [--seed 0] [--quick] [--out FILE]

The first 5,200 events of the sentiment stream, replayed; the labels of events 3,000 to 4,000 are permuted among
themselves. The version's head alone answers the same events: it is what is served without a fast clock (but that the
slow clock, too, learned the permuted labels). No other rival answers, to save their time. Accuracy is told twice: by
the labels that came, and by the true ones, which is what users get.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import CONFIG, STREAM, missing_data, read_events
from benchmarks.record import announce_document, options_of, write_result
from driftline.cli.output import print_table
from driftline.clock import SimulatedClock
from driftline.config import load_config
from driftline.records import Example
from replay.driver import Driver, Pace
from replay.pipeline import open_pipeline, replay_config
from replay.rivals import Rivals
from replay.source import EPOCH, stream_items

EVENTS = 5200
POISONED = range(3000, 4000)
QUICK_EVENTS, QUICK_POISONED = 700, range(400, 500)
WINDOW_EVENTS = 250


def poison(events: Sequence[dict[str, Any]], poisoned: range, seed: int) -> list[dict[str, Any]]:
    """The events, those of the range with each other's labels."""
    labels = [events[number]["label"] for number in poisoned]
    random.Random(seed).shuffle(labels)
    changed = dict(zip(poisoned, labels, strict=True))
    return [event | {"label": changed.get(number, event["label"])} for number, event in enumerate(events)]


class NoRivals(Rivals):
    """Keeps the order of the events, and nothing else."""

    def answer(self, event_ids: list[str], texts: list[str]) -> None:  # noqa: ARG002
        """Nobody answers."""
        for event_id in event_ids:
            self.order.setdefault(event_id, len(self.order))

    def learn(self, examples: list[Example]) -> None:
        """Nobody learns."""

    def keep_first(self, version: int) -> None:
        """Nobody keeps it."""


@dataclass(slots=True, kw_only=True)
class Turns:
    """When answers fell back to the head and came again, in events; a block's resolution. `told`: whether the replica's
    heartbeat, from which `status` has it, said so each time."""

    at: list[tuple[int, bool]] = field(default_factory=list)
    told: bool = True

    def look(self, driver: Driver) -> None:
        """After a batch."""
        pipe = driver.pipeline
        assert pipe.fast is not None
        fell_back = pipe.fast.state.watch.fell_back
        if fell_back != bool(self.at and self.at[-1][1]):
            self.at.append((driver.tally.events, fell_back))
            self.told &= (pipe.watcher.status().fell_back == (pipe.feed,)) == fell_back


def labels_until(rows: Sequence[tuple[int, bool]], start: int, end: int) -> int:
    """Labels that the fast clock learned of events from `start` to before `end`; rows are (event, held out)."""
    return sum(start <= event < end and not holdout for event, holdout in rows)


def worst_below(ours: Sequence[bool], theirs: Sequence[bool], size: int) -> float:
    """The most points that ours are below theirs over any `size` answers in a row; below 0 where they never are."""
    gained = np.cumsum([0, *(int(a) - int(b) for a, b in zip(theirs, ours, strict=True))])
    return 100 * float((gained[size:] - gained[:-size]).max()) / size


def windows(answers: Mapping[str, Sequence[bool]], size: int) -> list[dict[str, float]]:
    """Accuracy of each in every window of `size` answers; `end` is the number of answers until then."""
    count = len(next(iter(answers.values())))
    return [
        {"end": start + size} | {name: float(np.mean(right[start : start + size])) for name, right in answers.items()}
        for start in range(0, count - size + 1, size)
    ]


def measure(poisoned: range, count: int, seed: int) -> dict[str, Any]:
    """One replay, and its figures."""
    config = load_config(CONFIG)
    feed = next(iter(config.feed))
    true = list(read_events(STREAM))[:count]
    turns = Turns()
    with tempfile.TemporaryDirectory(prefix="driftline-poison-") as folder:
        path = Path(folder) / "events.jsonl"
        lines = (json.dumps(event) + "\n" for event in poison(true, poisoned, seed))
        path.write_text("".join(lines), encoding="utf-8")
        start = time.perf_counter()
        with open_pipeline(replay_config(config, feed, Path(folder) / "state"), feed, SimulatedClock(EPOCH)) as pipe:
            driver = Driver(pipe, Pace(None), turns.look)
            driver.rivals = NoRivals(feed, pipe.section.labels, pipe.base, pipe.engine)
            driver.run(stream_items([path], pipe.section))
            return figures(driver, turns, true, poisoned) | {"seconds": round(time.perf_counter() - start, 1)}


def figures(driver: Driver, turns: Turns, true: Sequence[dict[str, Any]], poisoned: range) -> dict[str, Any]:
    """What a finished replay shows."""
    scored = driver.pipeline.buffer.exams.scored(driver.pipeline.feed)
    order, truth = driver.rivals.order, {event["id"]: event["label"] for event in true}
    rows = [(order[one.event_id], one.holdout) for one in scored]
    head = driver.experts.alone("head")
    answered = {
        "served": [one.predicted for one in scored],
        "head": [head.get(one.event_id) for one in scored],
    }
    given = {name: [a == one.label for a, one in zip(own, scored, strict=True)] for name, own in answered.items()}
    right = {
        name: [a == truth[one.event_id] for a, one in zip(own, scored, strict=True)] for name, own in answered.items()
    }
    falls = [event for event, fell_back in turns.at if fell_back]
    fell = next((event for event in falls if event > poisoned.start), None)
    back = next((event for event, fell_back in turns.at if not fell_back and event > poisoned.stop), None)
    return {
        "events": len(true),
        "poisoned": [poisoned.start, poisoned.stop],
        "turns": turns.at,
        "alarms_outside": sum(not poisoned.start < event <= poisoned.stop + WINDOW_EVENTS for event in falls),
        "fell_back_after_labels": None if fell is None else labels_until(rows, poisoned.start, fell),
        "back_after_labels": None if back is None else labels_until(rows, poisoned.stop, back),
        "told_by_the_replica": turns.told,
        "worst_points_below_head": round(worst_below(given["served"], given["head"], WINDOW_EVENTS), 2),
        "worst_points_below_head_by_true_labels": round(worst_below(right["served"], right["head"], WINDOW_EVENTS), 2),
        "windows": windows(given, WINDOW_EVENTS),
        "windows_by_true_labels": windows(right, WINDOW_EVENTS),
        "cycles": [report.outcome for report in driver.tally.cycles],
        "requests_failed": driver.tally.requests_failed,
        "seconds_of": {name: round(seconds, 1) for name, seconds in driver.tally.seconds.items()},
    }


def run(*, quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """The figures as one JSON-ready document. RuntimeError without the stream."""
    if reason := missing_data(STREAM):
        raise RuntimeError(reason)
    found = measure(*((QUICK_POISONED, QUICK_EVENTS) if quick else (POISONED, EVENTS)), seed)
    return {"benchmark": "poison", "stream": STREAM.name, "seed": seed, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the permutation")
    options = options_of(parser, "poison")
    result = run(quick=options.quick, seed=options.seed)
    shown = {name: value for name, value in result.items() if not name.startswith("windows")}
    announce_document("poison", shown)
    for name in ("windows", "windows_by_true_labels"):
        rows = [(f"{row['end']:.0f}", *(f"{row[one]:.3f}" for one in list(row)[1:])) for row in result[name]]
        print_table(("events", *(f">{one}" for one in list(result[name][0])[1:])), rows, title=name.replace("_", " "))
    write_result(options.out, result)


if __name__ == "__main__":
    main()
