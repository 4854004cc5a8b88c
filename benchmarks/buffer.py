"""What the buffer's operations cost as its history grows: a young file beside an old one, in turns.

    python -m benchmarks.buffer [--rounds 30] [--quick] [--out FILE]

The old file has a hundred times the events (10,000 and 1,000,000) and a thousand times the cycles (100 and 100,000) of
the young one; both have as many fresh examples, and each operation does the same work in both. Made and measured with
SQLite's `synchronous = OFF`, so that what the disk does does not cover what the statements do. A ratio is the median of
the rounds' own ratios of seconds, old to young: beyond 1.5 an operation costs more because there was more before.
"""

import argparse
import random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.record import options_of, write_result
from benchmarks.rounds import Spread, interleave
from driftline.buffer import Buffer, Outcome, feed_rules
from driftline.cli.output import print_table
from driftline.config import FeedConfig, FeedTopics, IngestConfig
from driftline.records import Cycle, DeadLetter, Event, Plan, Position, Prediction, Record

FEED = "reviews"
TOPICS = FeedTopics(events="e", labels="l", predictions="p", dead_letters="d")
LABELS = ("negative", "neutral", "positive")
SECTION = FeedConfig(labels=LABELS, evaluation={"segment_examples": 500})  # type: ignore[arg-type]
START = datetime(2026, 1, 1, tzinfo=UTC)
BATCH = 500
PER_CYCLE = 8
WAITING = 2000
ASKED = 250
LIMIT = 1.5
SIZES = {"young": (100, 10_000), "old": (100_000, 1_000_000)}
QUICK_SIZES = {"young": (10, 5_000), "old": (100, 15_000)}


@dataclass
class History:
    """A buffer with so much behind it, and what a learner and a registry would know of it."""

    buffer: Buffer
    events: int = 0
    version: int = 0
    line: list[int] = field(default_factory=lambda: [0])
    learned: list[int] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    @classmethod
    def made(cls, path: Path, cycles: int, events: int) -> "History":
        """Batches of events, and cycles spread evenly among them, one in four rejected; what waits too long retires."""
        made = cls(Buffer.open(path, {FEED: feed_rules(FEED, SECTION, TOPICS, IngestConfig())}, b"bench"))
        made.buffer._store._connection.execute("PRAGMA synchronous = OFF")
        made.buffer.labels.adopt(FEED, START)
        while made.events < events:
            made.append()
            while made.version * events < cycles * made.events:
                made.learn("rejected" if made.version % 4 == 3 else "promoted")
            made.close_segments()
            made.buffer.ledger.retire_overflow(FEED, keep=WAITING)
        return made

    def append(self) -> None:
        """A batch of labelled events, the answers to them, and a dead letter."""
        events = [_event(number) for number in range(self.events, self.events + BATCH)]
        self.events += BATCH
        records: list[Record] = [*events, *(_answer(event, self.line[-1]) for event in events), _letter(self.events)]
        self.buffer.intake.append(records, {}, _at(self.events))

    def learn(self, outcome: Outcome) -> None:
        """A cycle: taken, acknowledged, and what is live told to the buffer."""
        self._take()
        self.buffer.ledger.ack(str(self.version), outcome)
        if outcome == "promoted":
            self.line.append(self.version)
        self.reconcile()

    def _take(self) -> None:
        ledger = self.buffer.ledger
        fresh = tuple(one.seq for one in ledger.fresh(FEED, PER_CYCLE))
        retired = tuple(one.seq for one in ledger.retired(FEED, PER_CYCLE))
        replayed = tuple(self.chance.choices(self.learned, k=PER_CYCLE)) if self.learned else ()
        self.version += 1
        cycle = Cycle(
            cycle_id=str(self.version),
            feed=FEED,
            parent=self.line[-1],
            version=self.version,
            plan=Plan(fresh=fresh, replayed=replayed, retired=retired),
            seed=self.version,
            taken_at=_at(self.events),
        )
        ledger.take(cycle)
        self.learned += fresh

    def close_segments(self) -> None:
        """Those that are full."""
        for segment in self.buffer.exams.segments(FEED):
            if not segment.closed and segment.examples == SECTION.evaluation.segment_examples:
                index = next(one.index for one in self.buffer.exams.segments(FEED) if not one.closed)
                row = dict.fromkeys(range(index + 1), (1, 2))
                self.buffer.exams.close_segment(FEED, index, row, self.line[-1], _at(self.events))

    def size(self) -> int:
        """Bytes on the disk, what stands in the log included."""
        path = self.buffer._store.path
        return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))

    def reconcile(self) -> None:
        """What is live, as it is."""
        self.buffer.ledger.reconcile(FEED, self.line[-1], 0)

    def roll_back_and_return(self) -> None:
        """Two versions back, and forth again."""
        self.buffer.ledger.reconcile(FEED, self.line[-3], 0)
        self.reconcile()

    def some_examples(self) -> None:
        """So many of any age."""
        self.buffer.ledger.examples(FEED, self.chance.sample(range(1, self.events + 1), ASKED))


def _event(number: int) -> Event:
    return Event(
        event_id=f"event-{number * 7919 % 999_983:06d}-{number}",
        feed=FEED,
        text=f"what was said of thing {number % 977} in so many words, which are about as many as in a tweet: {number}",
        occurred_at=_at(number),
        source="shop",
        position=Position(topic="e", partition=0, offset=number),
        label=LABELS[number % 3],
        value=b"",
    )


def _answer(event: Event, version: int) -> Prediction:
    return Prediction(
        event_id=event.event_id,
        feed=FEED,
        label=LABELS[0] if version else None,
        scores={},
        adapter_version=version,
        replica="a",
        predicted_at=START,
        position=Position(topic="p", partition=0, offset=event.position.offset),
    )


def _letter(number: int) -> DeadLetter:
    place = Position(topic="l", partition=0, offset=number)
    return DeadLetter(feed=FEED, reason="unknown_label", detail="", position=place, value=b"x" * 200)


def _at(number: int) -> datetime:
    return START + timedelta(milliseconds=number)


OPERATIONS: Mapping[str, Callable[[History], object]] = {
    f"append {BATCH} events and their answers": History.append,
    "expire, nothing due": lambda h: h.buffer.intake.expire(_at(h.events)),
    "positions": lambda h: h.buffer.intake.positions(),
    "waiting examples": lambda h: h.buffer.intake.waiting_examples(),
    f"fresh, {ASKED}": lambda h: h.buffer.ledger.fresh(FEED, ASKED),
    "new count": lambda h: h.buffer.ledger.new_count(FEED),
    f"{ASKED} examples of any age": History.some_examples,
    "a cycle, promoted": lambda h: h.learn("promoted"),
    "a cycle, rejected": lambda h: h.learn("rejected"),
    "a cycle, abandoned": lambda h: h.learn("abandoned"),
    "reconcile, nothing changed": History.reconcile,
    "roll back by two, and return": History.roll_back_and_return,
    "last version, last taken": lambda h: (h.buffer.ledger.last_version(FEED), h.buffer.ledger.last_taken_at(FEED)),
    "counts": lambda h: h.buffer.counts(FEED),
    "scored, the last 1,000": lambda h: h.buffer.exams.scored(FEED, last=1000),
    "labelling, the last 1,000": lambda h: h.buffer.exams.labelling(FEED, last=1000, now=_at(h.events)),
    "segments": lambda h: h.buffer.exams.segments(FEED),
    "recent hold-outs": lambda h: h.buffer.exams.recent_holdouts(FEED, 200),
    "examples by label": lambda h: h.buffer.labels.examples(FEED),
    "labels adopted, no change": lambda h: h.buffer.labels.adopt(FEED, START),
    "corrections, the last 20": lambda h: h.buffer.corrections.newest(FEED, 20),
    "letters to send": lambda h: h.buffer.letters.to_send(FEED, 20),
    "letters, the newest 20": lambda h: h.buffer.letters.newest(FEED, 20),
}


def run(quick: bool = False, rounds: int | None = None) -> dict[str, Any]:
    """Every operation on both files as one JSON-ready document."""
    sizes, rounds = QUICK_SIZES if quick else SIZES, rounds or (3 if quick else 30)
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        files = {name: History.made(Path(folder) / f"{name}.sqlite3", *size) for name, size in sizes.items()}
        with closing(files["young"].buffer), closing(files["old"].buffer):
            return {
                "benchmark": "buffer",
                "rounds": rounds,
                "cycles": {name: cycles for name, (cycles, _) in sizes.items()},
                "events": {name: events for name, (_, events) in sizes.items()},
                "file_bytes": {name: one.size() for name, one in files.items()},
                "limit": LIMIT,
                "operations": {name: _measured(work, files, rounds) for name, work in OPERATIONS.items()},
            }


def _measured(work: Callable[[History], object], files: Mapping[str, History], rounds: int) -> dict[str, Any]:
    def contender(history: History) -> Callable[[], None]:
        def once() -> None:
            work(history)

        return once

    seconds = interleave({name: contender(history) for name, history in files.items()}, rounds)
    ratios = [old / young for young, old in zip(seconds["young"], seconds["old"], strict=True)]
    milliseconds = {name: Spread.of([1000 * one for one in taken]).document() for name, taken in seconds.items()}
    return {"ms": milliseconds, "ratio": Spread.of(ratios).document()}


def beyond(result: Mapping[str, Any]) -> list[str]:
    """The operations that cost more than the limit allows because there was more before."""
    return [name for name, one in result["operations"].items() if one["ratio"]["median"] > result["limit"]]


def announce(result: dict[str, Any]) -> None:
    """The figures as a table."""
    rows = []
    for name, one in result["operations"].items():
        young, old = (f"{one['ms'][which]['median']:.3f}" for which in SIZES)
        rows.append((name, young, old, f"{one['ratio']['median']:.2f}"))
    title = " and ".join(f"{result['cycles'][name]:,} cycles, {result['events'][name]:,} events" for name in SIZES)
    print_table(("", ">ms, young", ">ms, old", ">ratio"), rows, title=f"The buffer's operations after {title}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, help="rounds that count (default 30)")
    options = options_of(parser, "buffer")
    result = run(options.quick, options.rounds)
    announce(result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
