"""Follows the pulses of all feeds that have a fast clock, so that a label counts in the next answers (DESIGN §3.7).

Guards that nothing is taken over but what a trusted key signed, in its place, and that a failure costs no answer: the
last good pulse stays, the reason is told, and the newest snapshot is tried again until it leads on. A replica that
starts again takes over nothing older than what it had (`serving.seen`), signed or not.

Ordering: by number. Idempotency: `sync` may be called at any time. Errors: `sync` raises none.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog

from driftline import metrics
from driftline.artefact.manifest import Trust
from driftline.artefact.pulse import open_pulse, open_snapshot
from driftline.errors import ArtefactError, DriftlineError, RegistryLost
from driftline.experts import Arrays
from driftline.records import Snapshot
from driftline.registry import Registry
from serving.fast import FastReplica
from serving.seen import SeenNumbers

__all__ = ["Follower", "code_of", "reason_of"]

log = structlog.get_logger()

WAIT_S = 1.0
RETRY_S = 0.5
MENDED_S = 10.0
"""After so long a damaged snapshot is fetched again: it may have been put again."""
Exclusive = Callable[[Callable[[], None]], None]
"""Runs work while nothing is mixed."""


class _Refusal(NamedTuple):
    """Why a snapshot's blob was refused, and until when (monotonic seconds) it is not fetched again."""

    sha256: str
    error: ArtefactError
    until: float


class Follower:
    """One thread calls `sync` or `run`; the rest may be asked from any. `seen`: the pulses of lives before."""

    def __init__(
        self,
        registry: Registry,
        trust: Trust,
        feeds: Mapping[str, FastReplica],
        exclusively: Exclusive,
        seen: SeenNumbers,
    ) -> None:
        self._registry = registry
        self._trust = trust
        self._feeds = feeds
        self._exclusively = exclusively
        self._seen = seen
        self._aside: dict[str, FastReplica] = {}  # where a feed that has not begun is by now
        self._refusals: dict[str, _Refusal] = {}
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
        number = self._feeds[feed].number
        self._seen.note(feed, number)
        metrics.LIVE_PULSE.labels(feed).set(number)
        return number

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
        if replica.number:
            self._follow(replica, self._exclusively)
        else:
            self._begin(replica)

    def _begin(self, replica: FastReplica) -> None:
        """Catch up aside, so that a process that starts again answers with nothing older than the one before did."""
        aside, seen = self._aside.setdefault(replica.feed, replica.anew()), self._seen.of(replica.feed)
        try:
            if not aside.number:
                self._start_over(aside, None, _at_once)
            self._follow(aside, _at_once)
            if aside.number < seen:
                raise self._lost(replica.feed, aside.number, seen)
        finally:
            if aside.number >= max(seen, 1):
                self._exclusively(lambda: replica.become(aside))
                del self._aside[replica.feed]

    def _follow(self, replica: FastReplica, exclusively: Exclusive) -> None:
        while self._start_over(replica, self._take_all(replica, exclusively), exclusively):
            pass

    def _take_all(self, replica: FastReplica, exclusively: Exclusive) -> ArtefactError | None:
        """The pulses that are there; what is wrong with the first that cannot be taken over."""
        try:
            while pulses := self._registry.pulses.after(replica.feed, replica.number):
                for number, sealed in pulses:
                    self._take(replica, number, sealed, exclusively)
        except ArtefactError as error:
            return error
        return None

    def _take(self, replica: FastReplica, number: int, sealed: bytes, exclusively: Exclusive) -> None:
        pulse = open_pulse(sealed, self._trust)
        if (pulse.feed, pulse.number) != (replica.feed, number):
            found = f"pulse {pulse.number} of feed {pulse.feed!r}"
            raise ArtefactError("bad_signature", f"pulse {number} of feed {replica.feed!r} is signed as {found}")
        if not replica.follows(pulse):
            raise ArtefactError("out_of_place", f"pulse {number} does not follow pulse {replica.number} that is here")
        replica.stage(replica.read(pulse))
        exclusively(lambda: _timed_take(replica))

    def _start_over(self, replica: FastReplica, why: ArtefactError | None, exclusively: Exclusive) -> bool:
        """Load the newest snapshot, if one is needed: because of `why`, or since pulses were trimmed, or it went in
        their place. False if none is. ArtefactError if there is none that leads further."""
        stored = self._registry.pulses.stored(replica.feed)
        if why is None and 0 < stored.number == replica.number:
            return False
        snapshot = None if stored.snapshot is None else open_snapshot(stored.snapshot, self._trust)
        if snapshot is not None and snapshot.number > replica.number:
            state = self._state_of(snapshot, replica)
            exclusively(lambda: replica.start_at(snapshot, state))
            log.info("fast_state_loaded", feed=replica.feed, pulse=snapshot.number)
            return True
        there = max(stored.number, 0 if snapshot is None else snapshot.number)
        if why is not None:
            raise why
        if there < replica.number:
            raise self._lost(replica.feed, there, replica.number)
        if there > replica.number and not self._registry.pulses.after(replica.feed, replica.number):
            raise ArtefactError(
                "missing_blob", f"pulse {stored.number} of feed {replica.feed!r} is out, but nothing leads to it yet"
            )
        return there > replica.number  # a pulse came meanwhile

    def _state_of(self, snapshot: Snapshot, replica: FastReplica) -> dict[str, Arrays]:
        """The snapshot's arrays, which fit. What was refused once is not fetched again: megabytes, twice a second."""
        replica.require_own(snapshot)
        refusal = self._refusals.get(replica.feed)
        if refusal is not None and refusal.sha256 == snapshot.sha256 and time.monotonic() < refusal.until:
            raise refusal.error
        try:
            return replica.read_snapshot(self._registry.get_blob(replica.feed, snapshot.sha256))
        except ArtefactError as error:
            until = time.monotonic() + (MENDED_S if error.code in ("missing_blob", "hash_mismatch") else math.inf)
            self._refusals[replica.feed] = _Refusal(snapshot.sha256, error, until)
            raise

    def _lost(self, feed: str, there: int, seen: int) -> RegistryLost:
        return RegistryLost(
            f"registry_lost: feed {feed} is at pulse {there}, but pulse {seen} was seen before: Redis lost data, was "
            "set back, or redis.url or redis.prefix names another registry. With the next label that it learns `adapt` "
            "publishes what it knows; where its buffer was set back, too, and what is there is what shall be answered "
            f"with, stop this process, remove {self._seen.path} and start it again"
        )

    def _fail(self, feed: str, error: Exception) -> None:
        reason = reason_of(error)
        if self._failures.get(feed) != reason:
            log.warning("pulse_refused", feed=feed, pulse=self._feeds[feed].number, reason=reason)
            metrics.REFUSALS.labels(feed, "pulse").inc()
        self._failures[feed] = reason


def code_of(error: Exception) -> str:
    """What kind of refusal it is."""
    if isinstance(error, ArtefactError):
        return error.code
    return "registry_lost" if isinstance(error, RegistryLost) else type(error).__name__


def reason_of(error: Exception) -> str:
    """The refusal in words, its code first."""
    code = code_of(error)
    return str(error) if str(error).startswith(f"{code}: ") else f"{code}: {error}"


def _at_once(work: Callable[[], None]) -> None:
    work()


def _timed_take(replica: FastReplica) -> None:
    started = time.perf_counter()
    replica.take()
    metrics.PULSE_APPLY_MS.observe((time.perf_counter() - started) * 1000)
