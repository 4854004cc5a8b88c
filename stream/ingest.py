"""Topics → buffer. One thread polls, decodes and writes; another one drains the dead letters.

Keeps invariants 1 (positions and examples in one transaction; reading goes on from the stored positions), 2 (the poll
thread does nothing else, and when too many examples wait only the events topics are paused) and 3 (with the buffer).

Delivery: every record once, also under SIGKILL. Ordering: within a partition. Atomicity: a step's records and positions
are one transaction. Idempotency: records that come again are skipped. Errors: TopicUnavailable and BufferFull
(retriable: nothing is lost, step again); TopicRecreated, PositionLost, BufferStoreError, BufferInUse stop it.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import structlog

from driftline import metrics
from driftline.buffer import Buffer
from driftline.clock import Clock
from driftline.config import FeedConfig, FeedTopics, IngestConfig
from driftline.errors import BufferInUse, DriftlineError
from driftline.locks import hold
from driftline.records import RawRecord, Record
from driftline.topics import Topics
from stream.dead_letters import DeadLetters
from stream.decode import Decoder
from stream.quality import Quality
from stream.source import Source, next_positions

log = structlog.get_logger()

EXPIRE_EVERY = timedelta(seconds=1)
COMMIT_EVERY_S = 1.0
HOUSEKEEPING_EVERY_S = 1.0
PARTITIONS_EVERY_S = 60.0
MAX_BACK_OFF_S = 10.0
POLL_S = 0.5


class Ingest:
    """All feeds of one buffer. `step` from one thread only; `drain_dead_letters` may run in another one."""

    def __init__(
        self,
        topics: Topics,
        buffer: Buffer,
        feeds: Mapping[str, FeedConfig],
        topic_names: Mapping[str, FeedTopics],
        section: IngestConfig,
        clock: Clock,
        *,
        lock: Path,
        prefix: str = "driftline",
    ) -> None:
        """Takes the lock (BufferInUse), binds the topics and opens the readers. `prefix`: of the consumer groups."""
        self._buffer = buffer
        self._section = section
        self._clock = clock
        self._decoders = {name: Decoder(name, feed, topic_names[name]) for name, feed in feeds.items()}
        self._sources = {name: Source(name, topic_names[name], topics, section, prefix) for name in feeds}
        self._letters = DeadLetters(topics, buffer, self._decoders, topic_names)
        self._quality = Quality(buffer, feeds)
        self._in_hand: dict[str, list[RawRecord]] = {}
        self._paused = False
        self._grown = threading.Event()
        self._broken: BaseException | None = None
        self._expired_at: datetime | None = None
        self._committed_at = 0.0
        self._lock = _hold(lock)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def paused(self) -> bool:
        """Whether back-pressure holds the events topics."""
        return self._paused

    def step(self, timeout_s: float) -> int:
        """Read once and write one transaction; apply waits, bounds and back-pressure. Returns how many were read.

        After BufferFull or TopicUnavailable the records in hand are kept: step again.
        """
        if self._grown.is_set():
            self._restart()
        self._press_back()
        if not self._in_hand:
            self._poll(timeout_s)
        count = self._write()
        self._expire()
        self._commit(at_least_s=COMMIT_EVERY_S)
        return count

    def drain_dead_letters(self) -> int:
        """Put waiting dead letters onto their topics, and mark them. At least once. Returns how many."""
        return self._letters.drain(self._clock.now())

    def retry_dead_letters(self) -> int:
        """Decode marked dead letters again and take them under their original positions. Returns how many."""
        return self._letters.retry(self._clock.now())

    def run(self, stop: threading.Event) -> None:
        """Step until told to stop. What is retriable is retried with back-off; everything else is raised."""
        ended = threading.Event()
        keeper = threading.Thread(target=self._keep_house, args=(ended,), name="ingest-housekeeping")
        keeper.start()
        back_off_s = 0.0
        try:
            while not stop.wait(back_off_s) and self._broken is None:
                back_off_s = self._careful_step(back_off_s)
        finally:
            ended.set()
            keeper.join()
        if self._broken is not None:
            raise self._broken

    def close(self) -> None:
        """Commit for lag tools, close the readers, release the lock. Idempotent."""
        self._commit(at_least_s=0.0)
        for source in self._sources.values():
            source.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _start(self) -> None:
        for source in self._sources.values():
            source.start(self._buffer)

    def _restart(self) -> None:
        """Partitions were added: open the readers anew, at the stored positions."""
        for source in self._sources.values():
            source.close()
            source.progress.restart()
        self._in_hand = {}
        self._start()
        self._grown.clear()
        if self._paused:
            self._pause()

    def _poll(self, timeout_s: float) -> None:
        """Take in hand what is there, of all feeds; waits only if there is nothing."""
        self._poll_each(0.0)
        if not self._in_hand and timeout_s > 0:
            self._poll_each(timeout_s / len(self._sources))

    def _poll_each(self, timeout_s: float) -> None:
        for feed, source in self._sources.items():  # a later feed's error must not lose what an earlier one gave
            if records := source.reader.poll(self._section.batch_records, 0.0 if self._in_hand else timeout_s):
                self._in_hand[feed] = records

    def _write(self) -> int:
        if not self._in_hand:
            return 0
        records = [self._decoders[feed].decode(raw) for feed, raws in self._in_hand.items() for raw in raws]
        positions = next_positions([raw for raws in self._in_hand.values() for raw in raws])
        with metrics.INGEST_TRANSACTION_SECONDS.time():
            self._buffer.intake.append(records, positions, self._clock.now())
        for feed, raws in self._in_hand.items():
            self._sources[feed].advance(raws)
        self._in_hand = {}
        _count(records)
        return len(records)

    def _press_back(self) -> None:
        limit = self._section.max_waiting_examples
        waiting = self._buffer.intake.waiting_examples()
        if not self._paused and waiting >= limit:
            self._pause()
            log.info("events_paused", waiting_examples=waiting, limit=limit)
        elif self._paused and waiting < self._section.resume_below_examples:
            self._resume()
            log.info("events_resumed", waiting_examples=waiting, limit=limit)

    def _pause(self) -> None:
        self._paused = True
        metrics.INGEST_PAUSED.set(1)
        for source in self._sources.values():
            source.reader.pause([source.names.events])

    def _resume(self) -> None:
        self._paused = False
        metrics.INGEST_PAUSED.set(0)
        for source in self._sources.values():
            source.reader.resume([source.names.events])
            source.progress.restart()

    def _expire(self) -> None:
        now = self._clock.now()
        if self._expired_at is not None and timedelta(0) <= now - self._expired_at < EXPIRE_EVERY:  # not if set back
            return
        current = [] if self._paused else [feed for feed, source in self._sources.items() if source.is_current(now)]
        self._buffer.intake.expire(now, current=current)
        self._expired_at = now

    def _commit(self, at_least_s: float) -> None:
        if time.monotonic() - self._committed_at >= at_least_s:
            for source in self._sources.values():
                source.commit()
            self._committed_at = time.monotonic()

    def _careful_step(self, back_off_s: float) -> float:
        """A step, and how long to wait before the next one."""
        try:
            self.retry_dead_letters()
            self.step(POLL_S)
        except DriftlineError as error:
            if not error.retriable:
                raise
            back_off_s = min(MAX_BACK_OFF_S, max(0.25, 2 * back_off_s))
            log.warning("ingest_waits", error=str(error), back_off_s=back_off_s)
            return back_off_s
        return 0.0

    def _keep_house(self, ended: threading.Event) -> None:
        """What may block on the broker, away from the poll thread."""
        look_at = time.monotonic() + PARTITIONS_EVERY_S
        try:
            while not ended.wait(HOUSEKEEPING_EVERY_S):
                look_at = self._careful_housekeeping(look_at)
        except BaseException as error:  # noqa: BLE001  the thread's edge: `run` raises it
            self._broken = error

    def _careful_housekeeping(self, look_at: float) -> float:
        """Measure, drain, and look for new partitions when it is time; returns when that is next. What fails is tried
        again next time, and holds up nothing else."""
        duties: list[Callable[[], object]] = [self._measure, self.drain_dead_letters]
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + PARTITIONS_EVERY_S
            duties.append(self._look_for_partitions)
        for duty in duties:
            try:
                duty()
            except DriftlineError as error:
                log.warning("housekeeping_waits", error=str(error))
        return look_at

    def _measure(self) -> None:
        for feed in self._sources:
            metrics.WAITING_EXAMPLES.labels(feed).set(self._buffer.ledger.fresh_count(feed))
        self._quality.measure(self._clock.now())

    def _look_for_partitions(self) -> None:
        if any(set(source.partitions()) - set(source.assigned) for source in self._sources.values()):
            log.info("partitions_added")
            self._grown.set()


def _count(records: list[Record]) -> None:
    for (feed, kind), n in Counter((record.feed, type(record).__name__.lower()) for record in records).items():
        metrics.INGEST_RECORDS.labels(feed, kind).inc(n)


def _hold(path: Path) -> int | None:
    """The lock that keeps a second ingest out; it falls with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        hold(lock)
    except BlockingIOError:
        os.close(lock)
        raise BufferInUse(
            f"another ingest holds {path}: one ingest writes one buffer; stop it, or give this one another state.path"
        ) from None
    return lock
