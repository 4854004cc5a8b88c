"""Events topic → predictions topic: every event is answered by the version that is live when it is read.

Delivery: at least once; predictions are durable before their events' positions are committed, so a crash in between
answers again (readers take the first prediction of an id). Ordering: predictions of a partition in the order of its
events. Atomicity: none across a batch. Idempotency: none needed. Errors: retriable ones keep the batch in hand for the
next step; TopicError ends the process.

Skipped: events collected from /predict (they were answered there), and what ingest will dead-letter.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from driftline import metrics
from driftline.clock import Clock
from driftline.config import FeedConfig, FeedTopics
from driftline.errors import BadInput, DriftlineError, Overloaded, ServingError
from driftline.records import Event, Prediction, RawRecord
from driftline.topics import Partition, Reader, Topics
from driftline.topics.codec import Codec, encode_prediction, text_sha256
from serving.answers import Answer

log = structlog.get_logger()

BATCH_EVENTS = 256
POLL_S = 0.5
RETRY_S = 0.5


class Answering(Protocol):
    """What a scorer asks: the engine, or whoever passes its answers on."""

    @property
    def alive(self) -> bool:
        """See `Engine.alive`."""

    def predict(self, feed: str, texts: Sequence[str], /) -> list[Answer]:
        """See `Engine.predict`."""


class Scorer:
    """One feed's scorer. One thread. The reader is one of the feed's own consumer group.

    `failed`: events so far that were given up, because answering them alone failed too.
    """

    def __init__(
        self,
        topics: Topics,
        reader: Reader,
        engine: Answering,
        feed: str,
        section: FeedConfig,
        names: FeedTopics,
        replica: str,
        clock: Clock,
    ) -> None:
        self._topics = topics
        self._reader = reader
        self._engine = engine
        self.feed = feed
        self._codec = Codec(feed, section)
        self._features = section.serve.features
        self._names = names
        self._replica = replica
        self._clock = clock
        self._in_hand: list[RawRecord] = []
        self.failed = 0

    def step(self, timeout_s: float) -> int:
        """Read once and answer what came; returns the records read, answered or skipped. 0 after `timeout_s` of none.

        1. read  2. answer  3. append the predictions  4. commit the events' positions. After a retriable error in 2 or
        3 the next step starts over with the same records; after one in 4 it reads on, and they may come again.
        """
        if not self._in_hand:
            self._in_hand = self._reader.poll(BATCH_EVENTS, timeout_s)
        records = self._in_hand
        if not records:
            return 0
        events = self._events(records)
        predictions = self._answer(events)
        self._topics.append(self._names.predictions, [encode_prediction(one) for one in predictions])
        self._in_hand = []  # answered; if the commit fails, only a new poll can mend it (the group may have rebalanced)
        self.failed += len(events) - len(predictions)
        self._reader.commit(_next_positions(records))
        metrics.SCORED.labels(self.feed, "answered").inc(len(predictions))
        metrics.SCORED.labels(self.feed, "skipped").inc(len(records) - len(events))
        metrics.SCORED.labels(self.feed, "failed").inc(len(events) - len(predictions))
        return len(records)

    def run(self, stop: threading.Event, ready: Callable[[], bool]) -> None:
        """Score until `stop` is set. Nothing is read before `ready()`, so that no event is answered by version 0 only
        because this process has not read the registry yet."""
        while not stop.is_set():
            if not ready():
                stop.wait(0.1)
                continue
            try:
                self.step(POLL_S)
            except DriftlineError as error:
                if not error.retriable or not self._engine.alive:
                    raise
                log.warning("scoring_waits", feed=self.feed, waiting=len(self._in_hand), error=str(error))
                stop.wait(error.retry_after_s if isinstance(error, Overloaded) else RETRY_S)

    def close(self) -> None:
        """Leave the group. What was not committed is answered by the next reader."""
        self._reader.close()

    def _events(self, records: Sequence[RawRecord]) -> list[Event]:
        decoded = (self._codec.event(record) for record in records)
        return [event for event in decoded if isinstance(event, Event) and not event.collected]

    def _answer(self, events: Sequence[Event]) -> list[Prediction]:
        """One request for all; where that fails for good, each alone, so that one text cannot stop the feed."""
        try:
            answers = self._engine.predict(self.feed, [event.text for event in events])
            return [self._prediction(event, answer) for event, answer in zip(events, answers, strict=True)]
        except ServingError as error:
            if error.retriable or isinstance(error, BadInput):
                raise
            log.error("scoring_failed", feed=self.feed, events=len(events), error=str(error))
        return [] if len(events) < 2 else [one for event in events for one in self._answer([event])]

    def _prediction(self, event: Event, answer: Answer) -> Prediction:
        return Prediction(
            event_id=event.event_id,
            feed=self.feed,
            label=answer.label,
            scores=answer.scores,
            adapter_version=answer.adapter_version,
            replica=self._replica,
            predicted_at=self._clock.now(),
            occurred_at=event.occurred_at,
            source=event.source,
            text_sha256=text_sha256(event.text),
            pulse=answer.pulse,
            feature=answer.feature if self._features else None,
        )


def _next_positions(records: Sequence[RawRecord]) -> dict[Partition, int]:
    """The offset after the last record of each partition; records of a partition come in order."""
    return {
        Partition(topic=record.position.topic, partition=record.position.partition): record.next_offset
        for record in records
    }
