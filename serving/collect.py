"""Keeps what was asked over HTTP: the prediction goes to the predictions topic, then the event to the events topic.

Delivery: best effort in front of the queue (bounded; what does not fit is counted, the answer never waits), at least
once behind it. Ordering: a prediction is durable before its event, so that ingest can join them. Atomicity: none.
Idempotency: readers join by id and take the first. Errors: retriable ones are tried again, others drop the batch,
counted.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

import structlog

from driftline import metrics
from driftline.clock import Deadline, sleep
from driftline.config import FeedConfig, FeedTopics
from driftline.errors import TopicError
from driftline.records import Prediction
from driftline.topics import Topics
from driftline.topics.codec import clean_text, encode_event, encode_prediction, text_sha256

log = structlog.get_logger()

MAX_WAITING = 10_000
BATCH = 500
RETRY_S = 0.5
CLOSE_WITHIN_S = 10.0

Kept = tuple[Prediction, str]


class Collector:
    """One queue and one thread for all feeds with `collect = true`. Thread-safe."""

    def __init__(
        self,
        topics: Topics,
        feeds: Mapping[str, FeedConfig],
        names: Mapping[str, FeedTopics],
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """`feeds` and `names` map a feed to its config and topics."""
        self._topics = topics
        self._names = names
        self._fields = {feed: section.fields for feed, section in feeds.items() if section.serve.collect}
        self._max_waiting = max_waiting
        self._waiting: deque[Kept] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._closing = Deadline(0)
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)

    def wants(self, feed: str) -> bool:
        """Whether the feed's inputs are kept."""
        return feed in self._fields

    def start(self) -> None:
        self._thread.start()

    def offer(self, kept: Sequence[Kept]) -> None:
        """Queue (prediction, original text) pairs; never blocks. Those beyond the limit are dropped and counted."""
        with self._wake:
            room = max(0, self._max_waiting - len(self._waiting))
            self._waiting.extend(kept[:room])
            self._wake.notify_all()
        if len(kept) > room:
            _count(kept[room:], "overflow")
            log.warning("collect_overflow", feed=kept[0][0].feed, dropped=len(kept) - room)

    def close(self) -> None:
        """Write what waits, for at most ten seconds; count and log what could not be written."""
        with self._wake:
            self._stopping = True
            self._closing = Deadline(CLOSE_WITHIN_S)
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        if self._waiting:
            _count(list(self._waiting), "lost")
            log.error("collect_lost", inputs=len(self._waiting))

    def _run(self) -> None:
        while self._wait():
            with self._wake:
                batch = list(islice(self._waiting, BATCH))
            if self._written(batch):
                with self._wake:
                    for _ in batch:
                        self._waiting.popleft()
            elif self._stopping and self._closing.expired():
                return

    def _wait(self) -> bool:
        """Until something waits; False when closing and nothing does."""
        with self._wake:
            while not self._waiting and not self._stopping:
                self._wake.wait()
            return bool(self._waiting)

    def _written(self, batch: list[Kept]) -> bool:
        """Write a batch; False if it should be tried again."""
        try:
            for feed in dict.fromkeys(prediction.feed for prediction, _ in batch):
                self._write(feed, [kept for kept in batch if kept[0].feed == feed])
        except TopicError as error:
            log.warning("collect_failed", inputs=len(batch), retriable=error.retriable, error=str(error))
            if error.retriable:
                sleep(RETRY_S)
                return False
            _count(batch, "lost")
            return True
        _count(batch, "kept")
        return True

    def _write(self, feed: str, batch: list[Kept]) -> None:
        names = self._names[feed]
        self._topics.append(names.predictions, [encode_prediction(_of_its_event(*kept)) for kept in batch])
        events = [
            encode_event(
                prediction.event_id,
                text,
                timestamp=prediction.predicted_at,
                fields=self._fields[feed],
                collected=True,
            )
            for prediction, text in batch
        ]
        self._topics.append(names.events, events)


def _of_its_event(prediction: Prediction, text: str) -> Prediction:
    """With what it carries of the event that is collected. Cleaning takes a while, so it is done by this thread."""
    return replace(prediction, occurred_at=prediction.predicted_at, text_sha256=text_sha256(clean_text(text)))


def _count(kept: Sequence[Kept], outcome: str) -> None:
    for prediction, _ in kept:
        metrics.COLLECTED.labels(prediction.feed, outcome).inc()
