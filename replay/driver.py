"""The lock-step driver: one thread, one order of steps, a simulated clock, so that two runs give the same report.

Per batch (32 events, cut where a cycle may be due): events onto the topic → answered by the engine → ingested with
their predictions → labels that have come onto the labels topic → ingested → learned by the fast clock, whose pulse the
engine takes over → full segments closed. Between batches time passes: labels come and ticks start cycles, in their
order; a due cycle runs through to its swap, in no time.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

from driftline.errors import ServingError
from driftline.topics import Outgoing
from driftline.topics.codec import encode_label
from learner.cycle import CycleReport
from replay.experts import Experts
from replay.labels import DueLabel, Forecast, LabelQueue, TakenTexts
from replay.pace import Pace
from replay.pipeline import Pipeline
from replay.promotion import promotion_exam
from replay.rivals import Rivals
from replay.source import LATEST, StreamItem
from replay.tally import Swap, Tally
from replay.ticks import Ticks

__all__ = ["Driver", "Pace"]

BATCH_EVENTS = 32
MINIMUM_LAST_HOLDOUTS = 50


class Driver:
    """Runs one feed's stream through a pipeline. `on_step` is told after every batch and every cycle."""

    def __init__(self, pipeline: Pipeline, pace: Pace, on_step: Callable[["Driver"], None] | None = None) -> None:
        self.pipeline = pipeline
        self.tally = Tally()
        self.rivals = Rivals(pipeline.feed, pipeline.section.labels, pipeline.base, pipeline.engine)
        self.experts = Experts(pipeline.section)
        self._pace = pace
        self._on_step = on_step or (lambda _: None)
        self._labels = LabelQueue()
        self._taken = TakenTexts()
        self._ticks: Ticks
        self._last_seq = 0

    def run(self, items: Iterable[StreamItem]) -> None:
        """To the end of the stream; then the labels still to come, and the last segment."""
        stream = _Peekable(iter(items))
        if (head := stream.peek()) is not None:
            self._ticks = Ticks(self.pipeline.section.schedule, head.at)
        while (head := stream.peek()) is not None:
            self._until(head.at)
            self._answer(list(self._cut(stream)))
        while (at := self._labels.next_at) is not None:
            self._until(at)
        with self.tally.timed("ingest"):
            self.pipeline.ingest_waiting()
            self.pipeline.ingest.drain_dead_letters()
        self._adapt()
        with self.tally.timed("evaluate"):
            self.pipeline.learner.close_segments(minimum_open=MINIMUM_LAST_HOLDOUTS)

    # --- time passes

    def _until(self, moment: datetime) -> None:
        """Let the clock reach `moment`: labels that come before it, and the ticks in between, in their order."""
        while (step := self._next_step(moment)) <= moment:
            self._advance(step)
            self._deliver()
            if self._ticks.next <= step:
                self._ticks.skip_beyond(step)
                self._turn()
        self._advance(moment)

    def _next_step(self, moment: datetime) -> datetime:
        """The next label or tick; of the ticks up to `moment` only one that may bring a cycle."""
        label_at = self._labels.next_at
        if self._missing() > 0:
            self._ticks.skip_to(min(moment, label_at or moment))
        return min(self._ticks.next, label_at or self._ticks.next)

    def _advance(self, moment: datetime) -> None:
        self._pace.wait_for(moment)
        self.pipeline.clock.advance_to(moment)

    def _missing(self) -> int:
        """How many more examples make a cycle due."""
        pipe = self.pipeline
        wanted = pipe.section.schedule.enough(pipe.buffer.ledger.example_count(pipe.feed))
        return wanted - pipe.buffer.ledger.new_count(pipe.feed)

    # --- events come

    def _cut(self, stream: "_Peekable") -> Iterator[StreamItem]:
        """Up to 32 items, the first in any case; none at or after a tick at which a cycle may be due.

        That is the next one if enough examples wait, else the first at which as many labels as are missing have come.
        """
        missing = self._missing()
        forecast = self._labels.forecast(max(missing, 1))
        for position in range(BATCH_EVENTS):
            head = stream.peek()
            if head is None or (position and head.at >= self._limit(missing, forecast)):
                return
            yield stream.take()
            if self._pace.held_back:
                return
            if head.label is not None:
                forecast.add(head.due_at)

    def _limit(self, missing: int, forecast: Forecast) -> datetime:
        if missing <= 0:
            return self._ticks.next
        return LATEST if forecast.at is None else self._ticks.first_from(forecast.at)

    def _answer(self, batch: list[StreamItem]) -> None:
        """The batch onto the topic, through the scorer and the rivals, into the buffer; then the labels that came."""
        pipe, tally = self.pipeline, self.tally
        self._advance(batch[-1].at)
        self._ticks.skip_beyond(batch[-1].at)
        pipe.topics.append(pipe.names.events, [item.outgoing for item in batch])
        with tally.timed("predict"):
            tally.requests_failed += pipe.answer_waiting(len(batch))
        with tally.timed("ingest"):
            pipe.ingest_waiting()
        with tally.timed("baselines"):
            decoded = [(item, event) for item in batch if (event := pipe.decode(item)) is not None]
            self.rivals.answer([event.event_id for _, event in decoded], [event.text for _, event in decoded])
        self.experts.listen([event for _, event in decoded], pipe.overheard.answers)
        tally.events += len(batch)
        for item, event in decoded:
            repeated = self._taken.seen(event.event_id)
            if self._taken.take(event.event_id, event.text) and item.label is not None:
                self._labels.push(item.due_at, event.event_id, item.label, repeated=repeated)
        self._deliver()
        self._on_step(self)

    # --- labels come

    def _deliver(self) -> None:
        """Put the labels that have come onto their topic and learn of them."""
        pipe, due = self.pipeline, self._labels.pop_due(self.pipeline.clock.now())
        if not due:
            return
        pipe.topics.append(pipe.names.labels, [_encoded(one) for one in due])
        with self.tally.timed("ingest"):
            pipe.ingest_waiting()
        self._adapt()
        with self.tally.timed("baselines"):
            examples = pipe.buffer.ledger.examples_after(pipe.feed, self._last_seq)
            self.rivals.learn(examples)
        self._last_seq = examples[-1].seq if examples else self._last_seq
        with self.tally.timed("evaluate"):
            pipe.learner.close_segments()

    def _adapt(self) -> None:
        with self.tally.timed("adapt"):
            self.tally.pulses += self.pipeline.adapt()

    # --- a tick comes

    def _turn(self) -> None:
        report = self.pipeline.learner.turn() if self._missing() <= 0 else None
        if report is None:
            return
        self.tally.add_cycle(report)
        if report.outcome == "promoted":
            self._swap(report)
        self._on_step(self)

    def _swap(self, report: CycleReport) -> None:
        pipe, version = self.pipeline, report.cycle.version
        pipe.watcher.sync(pipe.feed)
        if pipe.engine.active(pipe.feed)[0] != version:
            raise ServingError(f"version {version} was refused: {pipe.watcher.refused.get(pipe.feed)}")
        self._adapt()
        with self.tally.timed("promotions"):
            self.tally.promotions[version] = promotion_exam(pipe, version)
        now = pipe.clock.now()
        self.tally.swaps.append(Swap(version, self.tally.events, len(self.rivals.order)))
        self.rivals.keep_first(version)
        fresh = pipe.buffer.ledger.examples(pipe.feed, report.cycle.plan.fresh)
        self.tally.freshness_s += [(now - example.labelled_at).total_seconds() for example in fresh]


def _encoded(due: DueLabel) -> Outgoing:
    return encode_label(due.event_id, due.label, due.at, None, repeated=due.repeated)


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
