"""The lock-step driver: one thread, one order of steps, a simulated clock, so that two runs give the same report.

Per batch (32 events, cut where a cycle is due): events onto the topic → answered by the engine → ingested with their
predictions → labels that are due onto the labels topic → ingested → segments closed → a due cycle, through to its swap.
"""

import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from driftline.cli.replay.pipeline import Pipeline
from driftline.cli.replay.rivals import Rivals
from driftline.cli.replay.source import StreamItem
from driftline.errors import ServingError
from driftline.topics.codec import encode_label
from learner.cycle import CycleReport
from learner.schedule import next_tick

BATCH_EVENTS = 32
MINIMUM_LAST_HOLDOUTS = 50


@dataclass(slots=True)
class Tally:
    """What a replay measured while it ran. Seconds are wall time, freshness is stream time."""

    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("ingest", "predict", "train", "evaluate", "baselines"), 0.0)
    )
    cycles: list[CycleReport] = field(default_factory=list)
    freshness_s: list[float] = field(default_factory=list)
    swaps: list[tuple[int, int]] = field(default_factory=list)
    trained_examples: int = 0
    events: int = 0
    requests_failed: int = 0


@dataclass(order=True, slots=True)
class _DueLabel:
    at: datetime
    order: int
    event_id: str = field(compare=False)
    label: str = field(compare=False)


class Pace:
    """Holds the stream back to `factor` times its own speed; None: as fast as it goes."""

    def __init__(self, factor: float | None) -> None:
        self._factor = factor
        self._start: tuple[datetime, float] | None = None

    @property
    def held_back(self) -> bool:
        """Whether the stream runs at a speed of its own, so that every event is answered as it comes."""
        return self._factor is not None

    def wait_for(self, moment: datetime) -> None:
        """Returns when the stream time `moment` has come."""
        if self._factor is None:
            return
        self._start = self._start or (moment, time.monotonic())
        due = (moment - self._start[0]).total_seconds() / self._factor
        remaining = self._start[1] + due - time.monotonic()
        if remaining > 0:
            time.sleep(remaining)


class Driver:
    """Runs one feed's stream through a pipeline. `on_step` is told after every batch and every cycle."""

    def __init__(self, pipeline: Pipeline, pace: Pace, on_step: Callable[["Driver"], None] | None = None) -> None:
        self.pipeline = pipeline
        self.tally = Tally()
        self.rivals = Rivals(pipeline.feed, pipeline.section.labels, pipeline.base, pipeline.engine)
        self._pace = pace
        self._schedule = pipeline.section.schedule
        self._on_step = on_step or (lambda _: None)
        self._labels: list[_DueLabel] = []
        self._order = itertools.count()
        self._tick: datetime | None = None
        self._last_seq = 0

    def run(self, items: Iterable[StreamItem]) -> None:
        """To the end of the stream; then the labels still to come, and the last segment."""
        stream = _Peekable(iter(items))
        while (head := stream.peek()) is not None:
            self._until(head.at)
            self._batch(list(self._cut(stream)))
        while self._labels:
            self._until(self._labels[0].at)
            self._deliver(self._labels[0].at)
        self.pipeline.learner.close_segments(minimum_open=MINIMUM_LAST_HOLDOUTS)

    def _cut(self, stream: "_Peekable") -> Iterator[StreamItem]:
        """Up to 32 items: none at or after a tick at which a cycle may be due, or at a label that may make it due."""
        limit = self._cycle_may_start_at()
        for _ in range(BATCH_EVENTS):
            head = stream.peek()
            if head is None or (limit is not None and _ > 0 and head.at >= limit):
                return
            yield stream.take()
            if self._pace.held_back:
                return

    def _cycle_may_start_at(self) -> datetime | None:
        missing = self._missing()
        if missing <= 0:
            return self._tick
        if missing > len(self._labels):
            return None
        return heapq.nsmallest(missing, self._labels)[-1].at

    def _until(self, moment: datetime) -> None:
        """Let the clock reach `moment`: labels that come before it, and the ticks in between, in their order."""
        self._tick = self._tick or next_tick(self._schedule, moment)
        while (step := min(self._tick, self._next_label_at() or self._tick)) <= moment:
            self.pipeline.clock.advance_to(step)
            self._deliver(step)
            if self._tick <= step:
                self._turn()
                self._tick = self._tick_after(step, horizon=min(moment, self._next_label_at() or moment))
        self._pace.wait_for(moment)
        self.pipeline.clock.advance_to(moment)

    def _tick_after(self, tick: datetime, horizon: datetime) -> datetime:
        """The next tick; where too few examples wait, the ticks before `horizon`, which bring nothing, are skipped."""
        following = next_tick(self._schedule, tick)
        if self._missing() <= 0 or following >= horizon:
            return following
        if self._schedule.cron is not None:
            return next_tick(self._schedule, horizon - timedelta(microseconds=1))
        period = following - tick
        return following + (horizon - following) // period * period

    def _next_label_at(self) -> datetime | None:
        return self._labels[0].at if self._labels else None

    def _missing(self) -> int:
        """How many more fresh examples make a cycle due."""
        return self._schedule.min_examples - self.pipeline.buffer.fresh_count(self.pipeline.feed)

    def _batch(self, batch: list[StreamItem]) -> None:
        pipe = self.pipeline
        pipe.clock.advance_to(batch[-1].at)
        pipe.topics.append(pipe.names.events, [item.outgoing for item in batch])
        with self._timed("predict"):
            self.tally.requests_failed += pipe.answer_waiting(len(batch))
        with self._timed("ingest"):
            pipe.ingest_waiting()
        with self._timed("baselines"):
            events = [event for item in batch if (event := pipe.decode(item)) is not None]
            self.rivals.answer([event.event_id for event in events], [event.text for event in events])
        self.tally.events += len(batch)
        for item in batch:
            if item.label is not None and item.event_id is not None:
                due = max(item.label_at or item.at, item.at)
                heapq.heappush(self._labels, _DueLabel(due, next(self._order), item.event_id, item.label))
        self._deliver(pipe.clock.now())
        self._on_step(self)

    def _deliver(self, now: datetime) -> None:
        """Put the labels that are due onto their topic and learn of them."""
        due = []
        while self._labels and self._labels[0].at <= now:
            due.append(heapq.heappop(self._labels))
        if not due:
            return
        pipe = self.pipeline
        pipe.topics.append(pipe.names.labels, [encode_label(d.event_id, d.label, d.at, None) for d in due])
        with self._timed("ingest"):
            pipe.ingest_waiting()
        with self._timed("baselines"):
            examples = pipe.buffer.examples_after(pipe.feed, self._last_seq)
            self.rivals.learn(examples)
        self._last_seq = examples[-1].seq if examples else self._last_seq
        with self._timed("evaluate"):
            pipe.learner.close_segments()

    def _turn(self) -> None:
        report = self.pipeline.learner.turn() if self._missing() <= 0 else None
        if report is None:
            return
        self.tally.cycles.append(report)
        self.tally.seconds["train"] += report.train_seconds
        self.tally.seconds["evaluate"] += report.evaluate_seconds
        self.tally.trained_examples += report.trained_examples
        if report.outcome == "promoted":
            self._swap(report)
        self._on_step(self)

    def _swap(self, report: CycleReport) -> None:
        pipe = self.pipeline
        pipe.watcher.sync(pipe.feed)
        if pipe.engine.active(pipe.feed)[0] != report.cycle.version:
            raise ServingError(f"version {report.cycle.version} was refused: {pipe.watcher.refused.get(pipe.feed)}")
        now = pipe.clock.now()
        self.tally.swaps.append((report.cycle.version, self.tally.events))
        self.rivals.first_version = self.rivals.first_version or report.cycle.version
        fresh = pipe.buffer.examples(report.cycle.plan.fresh)
        self.tally.freshness_s += [(now - example.labelled_at).total_seconds() for example in fresh]

    def _timed(self, activity: str) -> "_Timed":
        return _Timed(self.tally.seconds, activity)


class _Timed:
    def __init__(self, seconds: dict[str, float], activity: str) -> None:
        self._seconds, self._activity = seconds, activity

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._activity] += time.perf_counter() - self._start


class _Peekable:
    """An iterator whose next item can be looked at."""

    def __init__(self, items: Iterator[StreamItem]) -> None:
        self._items = items
        self._head = next(items, None)

    def peek(self) -> StreamItem | None:
        return self._head

    def take(self) -> StreamItem:
        head, self._head = self._head, next(self._items, None)
        assert head is not None
        return head
