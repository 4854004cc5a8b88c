"""The process `adapt`: the fast clocks of all feeds in one thread, each under a lease, one feed's trouble its own.

Guards that a label counts within a second or two: due examples are looked for ten times a second, and a block waits for
others no longer than `block_s`. While a feed is paused nothing is learned; what comes meanwhile is learned afterwards.

Errors: after a retriable one the feed is tried again; any other error of ours stops that feed alone, and it is tried
again now and then, since what was damaged may be mended anywhere; `status` tells why.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from driftline import metrics
from driftline.errors import DriftlineError, LeaseLost
from driftline.records import ADAPT_ROLE, ReplicaStatus
from driftline.registry import Lease, Registry, check_not_lost
from learner.fast.clock import FastClock

__all__ = ["FastFeed", "FastService"]

log = structlog.get_logger()

POLL_S = 0.1
RETRY_S = 0.5
STOPPED_S = 10.0
TELL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FastFeed:
    """One feed in the service: its clock, its lease, how large and how old a block may get, and the newest revision of
    the live record that this installation has seen."""

    clock: FastClock
    lease: Lease
    block_examples: int
    block_s: float
    seen_revision: Callable[[], int]


@dataclass(slots=True)
class _Turn:
    """Where a feed stands: whether its clock was opened, when something was due first, when it is looked at again."""

    opened: bool = False
    due_since: float | None = None
    again_at: float = 0.0
    stopped: str | None = None


class FastService:
    """Runs every feed's fast clock until told to stop."""

    def __init__(self, feeds: Mapping[str, FastFeed], registry: Registry) -> None:
        self._feeds = feeds
        self._registry = registry
        self._turns = {name: _Turn() for name in feeds}
        self._told_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Blocks until `stop`; what is in hand is finished."""
        try:
            while not stop.is_set():
                learned = sum(self._serve(name) for name in self._feeds)
                self._tell()
                if not learned:
                    stop.wait(POLL_S)
        finally:
            for feed in self._feeds.values():
                feed.lease.release()

    def _serve(self, name: str) -> int:
        """One block of the feed, if there is one; how many examples it had."""
        turn, feed = self._turns[name], self._feeds[name]
        if time.monotonic() < turn.again_at or not (feed.lease.held or self._takes(name)):
            return 0
        try:
            learned = self._step(feed, turn)
            turn.stopped = None
            return learned
        except LeaseLost as error:
            log.warning("lease_lost", feed=name, error=str(error))
            feed.lease.release()
            turn.opened = False
        except DriftlineError as error:
            self._fail(name, error)
        except Exception as error:  # a bug that one feed meets stops no other
            log.exception("adapting_failed", feed=name)
            self._fail(name, DriftlineError(f"{type(error).__name__}: {error}"))
        return 0

    def _takes(self, name: str) -> bool:
        try:
            taken = self._feeds[name].lease.acquire()
        except DriftlineError as error:
            self._fail(name, error)
            return False
        self._turns[name].again_at = 0.0 if taken else time.monotonic() + RETRY_S
        return taken

    def _step(self, feed: FastFeed, turn: _Turn) -> int:
        if not turn.opened:
            feed.clock.open()
            turn.opened = True
        seen = feed.seen_revision()  # first: a newer one seen meanwhile must not make the record look lost
        live = self._registry.live(feed.clock.feed)
        check_not_lost(live, seen)  # a registry that lost its record names version 0: the way back to nothing
        feed.clock.follow(live.version)
        feed.clock.publish()  # what Redis was away for, also while paused
        if live.paused or not self._is_ripe(feed, turn):
            return 0
        turn.due_since = None
        learned = feed.clock.step()
        metrics.PULSES.labels(feed.clock.feed).inc()
        metrics.ADAPTED.labels(feed.clock.feed).inc(learned)
        return learned

    def _is_ripe(self, feed: FastFeed, turn: _Turn) -> bool:
        """Whether a whole block is due, or the first of it for as long as it may wait."""
        waiting = feed.clock.waiting()
        if not waiting:
            turn.due_since = None
            return False
        turn.due_since = turn.due_since or time.monotonic()
        return waiting >= feed.block_examples or time.monotonic() - turn.due_since >= feed.block_s

    def _fail(self, name: str, error: DriftlineError) -> None:
        turn, reason = self._turns[name], f"{type(error).__name__}: {error}"
        turn.again_at = time.monotonic() + (RETRY_S if error.retriable else STOPPED_S)
        turn.opened &= error.retriable  # else the books may be another process's by now
        if reason != turn.stopped:
            log.error("adapting_waits", feed=name, error=reason, retriable=error.retriable)
        turn.stopped = reason

    def _tell(self) -> None:
        """For `status`: the pulse of each feed, and why one stands still."""
        if time.monotonic() - self._told_at < TELL_S:
            return
        self._told_at = time.monotonic()
        opened = {name: self._feeds[name].clock for name, turn in self._turns.items() if turn.opened}
        status = ReplicaStatus(
            replica=f"{socket.gethostname()}-{os.getpid()}",
            role=ADAPT_ROLE,
            url=None,
            serving={},
            revisions={},
            pulses={name: clock.state.number for name, clock in opened.items()},
            fell_back=tuple(name for name, clock in opened.items() if clock.state.watch.fell_back),
            refused={name: turn.stopped for name, turn in self._turns.items() if turn.stopped is not None},
            seen_at=datetime.now(UTC),
            pid=os.getpid(),
        )
        try:
            self._registry.heartbeat(status)
        except DriftlineError as error:
            log.debug("heartbeat_failed", error=str(error))
