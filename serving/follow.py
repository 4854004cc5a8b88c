"""Follows the pulses of all feeds that have a fast clock, so that a label counts in the next answers (DESIGN §3.7).

Guards that nothing is taken over but what a trusted key signed, in its place, and that a failure costs no answer: the
last good pulse stays, the reason is told, and the newest snapshot is tried again until it leads on.

Ordering: by number. Idempotency: `sync` may be called at any time. Errors: `sync` raises none.
"""

import threading
import time
from collections.abc import Callable, Mapping

import structlog

from driftline import metrics
from driftline.artefact.manifest import Trust
from driftline.artefact.pulse import open_pulse, open_snapshot
from driftline.errors import ArtefactError, DriftlineError
from driftline.registry import Registry
from serving.fast import FastReplica

__all__ = ["Follower"]

log = structlog.get_logger()

WAIT_S = 1.0
RETRY_S = 0.5
Exclusive = Callable[[Callable[[], None]], None]
"""Runs work while nothing is mixed."""


class Follower:
    """One thread calls `sync` or `run`; the rest may be asked from any."""

    def __init__(
        self, registry: Registry, trust: Trust, feeds: Mapping[str, FastReplica], exclusively: Exclusive
    ) -> None:
        self._registry = registry
        self._trust = trust
        self._feeds = feeds
        self._exclusively = exclusively
        self._failures: dict[str, str] = {}
        self._looked: set[str] = set()

    @property
    def refused(self) -> dict[str, str]:
        """For each feed whose fast state stands still: why."""
        return dict(self._failures)

    def looked(self, feed: str) -> bool:
        """Whether the feed's pulses were asked for since this process started, if it has any: from then on an answer
        without them is no accident of the start."""
        return feed not in self._feeds or feed in self._looked

    def sync(self, feed: str) -> int:
        """Take over all pulses that are there; returns the number that the feed stands at then."""
        try:
            self._catch_up(feed)
            self._failures.pop(feed, None)
        except DriftlineError as error:
            self._fail(feed, error)
        except Exception as error:  # whatever a strange pulse breaks, the last good one goes on answering
            log.exception("pulse_failed", feed=feed)
            self._fail(feed, error)
        self._looked.add(feed)
        return self._feeds[feed].number

    def run(self, stop: threading.Event) -> None:
        """Follow until `stop` is set. Returns within about a second of that."""
        while self._feeds and not stop.is_set():
            for feed in self._feeds:
                self.sync(feed)
            self._wait(stop)

    def _wait(self, stop: threading.Event) -> None:
        """Until a feed has a new pulse. One that stands still is looked at again in a moment, and delays no other."""
        going = {feed: one.number for feed, one in self._feeds.items() if feed not in self._failures}
        try:
            if going:
                self._registry.pulses.wait(going, RETRY_S if self._failures else WAIT_S)
            else:
                stop.wait(RETRY_S)
        except DriftlineError:  # Redis is away: `sync` says so
            stop.wait(RETRY_S)
        except Exception:  # whatever it was, following must go on
            log.exception("pulses_not_awaited")
            stop.wait(RETRY_S)

    def _catch_up(self, feed: str) -> None:
        replica = self._feeds[feed]
        if replica.number == 0:
            self._start_over(replica, None)
        while self._start_over(replica, self._take_all(replica)):
            pass

    def _take_all(self, replica: FastReplica) -> ArtefactError | None:
        """The pulses that are there; what is wrong with the first that cannot be taken over."""
        try:
            while pulses := self._registry.pulses.after(replica.feed, replica.number):
                for number, sealed in pulses:
                    self._take(replica, number, sealed)
        except ArtefactError as error:
            return error
        return None

    def _take(self, replica: FastReplica, number: int, sealed: bytes) -> None:
        pulse = open_pulse(sealed, self._trust)
        if (pulse.feed, pulse.number) != (replica.feed, number):
            found = f"pulse {pulse.number} of feed {pulse.feed!r}"
            raise ArtefactError("bad_signature", f"pulse {number} of feed {replica.feed!r} is signed as {found}")
        if not replica.follows(pulse):
            raise ArtefactError("out_of_place", f"pulse {number} does not follow pulse {replica.number} that is here")
        replica.stage(replica.read(pulse))
        self._exclusively(lambda: _timed_take(replica))
        metrics.LIVE_PULSE.labels(replica.feed).set(pulse.number)

    def _start_over(self, replica: FastReplica, why: ArtefactError | None) -> bool:
        """Load the newest snapshot, if one is needed: because of `why`, or since pulses were trimmed, or it went in
        their place. False if none is. ArtefactError if there is none that leads further."""
        stored = self._registry.pulses.stored(replica.feed)
        if why is None and stored.number <= replica.number:
            return False
        snapshot = None if stored.snapshot is None else open_snapshot(stored.snapshot, self._trust)
        if snapshot is None or snapshot.number <= replica.number:
            if why is None and self._registry.pulses.after(replica.feed, replica.number):
                return True  # a pulse came meanwhile
            raise why or ArtefactError(
                "missing_blob", f"pulse {stored.number} of feed {replica.feed!r} is out, but nothing leads to it yet"
            )
        state = replica.read_snapshot(snapshot, self._registry.get_blob(replica.feed, snapshot.sha256))
        self._exclusively(lambda: replica.start_at(snapshot, state))
        metrics.LIVE_PULSE.labels(replica.feed).set(snapshot.number)
        log.info("fast_state_loaded", feed=replica.feed, pulse=snapshot.number)
        return True

    def _fail(self, feed: str, error: Exception) -> None:
        reason = f"{error.code if isinstance(error, ArtefactError) else type(error).__name__}: {error}"
        if self._failures.get(feed) != reason:
            log.warning("pulse_refused", feed=feed, pulse=self._feeds[feed].number, reason=reason)
            metrics.REFUSALS.labels(feed, "pulse").inc()
        self._failures[feed] = reason


def _timed_take(replica: FastReplica) -> None:
    started = time.perf_counter()
    replica.take()
    metrics.PULSE_APPLY_MS.observe((time.perf_counter() - started) * 1000)
