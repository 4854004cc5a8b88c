"""The learner process: APScheduler says when, one worker thread does it, a lease per feed, and a watchdog.

Ticks never overlap and none is dropped (FINDINGS §4): a tick only marks its feed as due, and the worker clears the mark
once a turn was made, so ticks that came while busy, without Redis or without the lease count once. A feed whose lease
another process holds stands by. A cycle that hangs cannot be stopped inside the process, so the watchdog ends the
process; whoever supervises it starts it again, and the open cycle is repeated.

Errors: after a retriable one the feed is tried again, once as much time has passed as the failed attempt took (a cycle
may have been trained in vain). Any other error of ours stops that feed alone: `status` tells why, its lease is free,
and what waits there beyond its share goes to replay, so that ingest goes on for the others. It is tried again as soon
as its live record changes, as a rollback does, and besides at growing intervals, since what was damaged may be mended
anywhere. Only where every feed was stopped by its config, which is read at the start, does `run` raise it.
"""

import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from driftline import metrics
from driftline.config import FeedConfig
from driftline.errors import ConfigError, DriftlineError, LeaseLost
from driftline.journal import Journal
from driftline.records import LEARNER_ROLE, ReplicaStatus
from driftline.registry import Lease, Registry
from learner.cycle import CycleReport, Learner
from learner.schedule import trigger_for

log = structlog.get_logger()
HUNG_EXIT_CODE = 70
POLL_S = 1.0
LAST_RETRY_S = 60.0
IN_VAIN = 10
"""A stopped feed may use one part in so many of the worker's time for trying again."""
OUTCOMES = {
    EVENT_JOB_EXECUTED: "executed",
    EVENT_JOB_ERROR: "failed",
    EVENT_JOB_MISSED: "missed",
    EVENT_JOB_MAX_INSTANCES: "overlapped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLearner:
    """One feed in the service: its learner, config and lease."""

    section: FeedConfig
    learner: Learner
    lease: Lease


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why a feed was stopped, and the revision of its live record before it tried; None: Redis did not tell.

    `again_at`: when it is tried again (monotonic seconds), `wait_s` after it was stopped.
    """

    error: DriftlineError
    revision: int | None
    again_at: float
    wait_s: float

    @property
    def reason(self) -> str:
        return f"{type(self.error).__name__}: {self.error}"


class LearnerService:
    """Runs every feed's learner on its schedule until told to stop."""

    def __init__(self, feeds: Mapping[str, FeedLearner], registry: Registry, journal: Journal) -> None:
        self._feeds = feeds
        self._registry = registry
        self._journal = journal
        self._ticks = dict.fromkeys(feeds, 0)
        self._ticks_served = dict.fromkeys(feeds, 0)
        self._retry_at: dict[str, float] = {}
        self._stopped: dict[str, _Stop] = {}
        self._trying: dict[str, _Stop] = {}  # stopped before, and being tried again
        self._standing_by: set[str] = set()
        self._running: tuple[str, float] | None = None
        self._fatal: BaseException | None = None
        self._parent = os.getppid()
        self._stop = threading.Event()
        self._wake = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Blocks until `stop`; a running cycle is finished or, after the process's grace, repeated at the next start.

        Raises what is no error of ours, and a ConfigError that leaves no feed to learn.
        """
        self._stop = stop
        scheduler, worker = self._scheduler(), threading.Thread(target=self._work, name="learner", daemon=True)
        scheduler.start()
        worker.start()
        try:
            while not stop.wait(POLL_S):
                self._watch()
                self._tell_what_is_stopped()
        finally:
            scheduler.shutdown(wait=False)
            self._finish(worker)
        if self._fatal is not None:
            raise self._fatal

    def _finish(self, worker: threading.Thread) -> None:
        self._stop.set()
        self._wake.set()
        while worker.is_alive():
            worker.join(POLL_S)
            self._watch()
            self._leave_if_orphaned()
        for feed in self._feeds.values():
            feed.lease.release()

    def _leave_if_orphaned(self) -> None:
        """Whoever started this process was killed: nobody ends it any more, and who takes over would stand by until its
        cycle is done. The cycle is left open; the next learner repeats it."""
        if os.getppid() != self._parent and self._running is not None:
            log.warning("cycle_left", reason="the process that started this one is gone; the cycle is repeated")
            os._exit(0)

    # --- when

    def _scheduler(self) -> BackgroundScheduler:
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        for name, feed in self._feeds.items():
            scheduler.add_job(self._mark_due, trigger_for(feed.section.schedule), args=[name], id=f"{name}:tick")
        scheduler.add_listener(self._on_job, sum(OUTCOMES))
        return scheduler

    def _mark_due(self, name: str) -> None:
        self._ticks[name] += 1
        self._wake.set()

    def _on_job(self, event: JobEvent) -> None:
        metrics.JOBS.labels(OUTCOMES[event.code]).inc()

    # --- what: the worker's thread

    def _work(self) -> None:
        try:
            for name, feed in self._feeds.items():
                self._ticks[name] += feed.learner.missed_tick()
            while not self._stop.is_set():
                for name in self._feeds:
                    self._serve(name)
                self._wake.wait(POLL_S)
                self._wake.clear()
        except BaseException as error:  # noqa: BLE001  the thread's edge: `run` raises it
            self._fatal = error
            self._stop.set()

    def _serve(self, name: str) -> None:
        """What there is to do for one feed, if it is ours. Retriable errors: again later; the last feed's is raised."""
        start, lease = time.monotonic(), self._feeds[name].lease
        if self._stop.is_set() or start < self._retry_at.get(name, 0.0):
            return
        self._running = (name, start)
        if name in self._stopped:
            self._bound(name)
        revision = None  # read before the step, so that a rollback while it fails is a change
        try:
            revision = self._registry.live(name).revision
            if not self._still_stopped(name, revision) and self._is_ours(name):
                self._step(name)
                self._goes_on(name)
        except LeaseLost as error:
            log.warning("lease_lost", feed=name, error=str(error))
            lease.release()
        except DriftlineError as error:
            spent_s = time.monotonic() - start
            if error.retriable:
                log.error("turn_failed", feed=name, kind=type(error).__name__, error=str(error), retriable=True)
            else:
                self._stop_feed(name, error, revision, spent_s)
            self._retry_at[name] = time.monotonic() + min(LAST_RETRY_S, spent_s)
        finally:
            self._running = None

    def _is_ours(self, name: str) -> bool:
        """Whether the lease is ours now, if need be by taking it. Says once when another holds it, once when we do."""
        lease = self._feeds[name].lease
        ours = lease.held or lease.acquire()
        if ours and name in self._standing_by:
            self._standing_by.remove(name)
            log.info("took_over", feed=name)
        elif not ours and name not in self._standing_by:
            self._standing_by.add(name)
            log.info("standing_by", feed=name, reason="another learner holds the lease, or was killed a moment ago")
        return ours

    def _stop_feed(self, name: str, error: DriftlineError, revision: int | None, spent_s: float) -> None:
        """One feed that cannot go on does not stop the others. Told once for each reason."""
        before = self._trying.pop(name, None) or self._stopped.get(name)
        wait_s = min(LAST_RETRY_S, 2 * before.wait_s) if before is not None else POLL_S
        stop = _Stop(error, revision, time.monotonic() + max(wait_s, IN_VAIN * spent_s), wait_s)
        self._stopped[name] = stop
        self._feeds[name].lease.release()
        if before is None or before.reason != stop.reason:
            log.error("feed_stopped", feed=name, kind=type(error).__name__, error=str(error))
            self._journal.append("feed_stopped", feed=name, error=str(error))
        if self._stopped.keys() == self._feeds.keys() and all(
            isinstance(one.error, ConfigError) for one in self._stopped.values()
        ):
            raise error

    def _goes_on(self, name: str) -> None:
        before = self._trying.pop(name, None)
        if before is not None:
            log.info("stopped_feed_goes_on", feed=name, reason=before.reason)

    def _bound(self, name: str) -> None:
        """A stopped feed's fresh examples must not hold up the events of all: what exceeds its share goes to replay.

        Under the lease, because another process may be learning them; never by way of what stopped the feed.
        """
        feed = self._feeds[name]
        try:
            if feed.learner.overflows():
                with feed.lease as lease:
                    if lease.acquire():
                        feed.learner.retire_overflow()
        except DriftlineError as error:  # told already why the feed is stopped; the next poll tries again
            log.warning("overflow_not_retired", feed=name, error=str(error))

    def _still_stopped(self, name: str, revision: int) -> bool:
        """False also where it is time to try it again: then it counts as stopped until a whole step was made."""
        stop = self._stopped.get(name)
        if stop is None:
            return False
        if stop.revision == revision and time.monotonic() < stop.again_at:
            return True
        self._trying[name] = self._stopped.pop(name)
        return False

    def _tell_what_is_stopped(self) -> None:
        """For `status`; silence is enough while all is well."""
        told = self._trying.copy() | self._stopped.copy()
        refused = {name: stop.reason for name, stop in told.items()}
        if not refused:
            return
        learner = ReplicaStatus(
            replica=f"{socket.gethostname()}-{os.getpid()}",
            role=LEARNER_ROLE,
            url=None,
            serving={},
            revisions={},
            refused=refused,
            seen_at=datetime.now(UTC),
            pid=os.getpid(),
        )
        try:
            self._registry.heartbeat(learner)
        except DriftlineError as error:
            log.debug("heartbeat_failed", error=str(error))

    def _step(self, name: str) -> None:
        """Resume what is open; keep house; make the turn that somebody, or a tick, asked for."""
        learner = self._feeds[name].learner
        if learner.has_open_cycle():
            self._record(learner.turn())
        learner.keep_house()
        request, ticks = self._registry.update_request(name), self._ticks[name]
        if request is not None and not learner.awaits(request):  # a tick that comes meanwhile is served
            self._record(learner.turn(at_least=1))
            self._registry.clear_update_request(name, request)  # only now: a process that dies meanwhile leaves it
        elif ticks > self._ticks_served[name]:
            self._record(learner.turn())
            self._ticks_served[name] = ticks

    def _record(self, report: CycleReport | None) -> None:
        if report is None:
            return
        feed = report.cycle.feed
        metrics.CYCLES.labels(feed, report.outcome).inc()
        metrics.TRAINED_EXAMPLES.labels(feed).inc(report.trained_examples)
        metrics.CYCLE_SECONDS.labels(feed, "train").observe(report.train_seconds)
        metrics.CYCLE_SECONDS.labels(feed, "evaluate").observe(report.evaluate_seconds)
        self._journal.append(
            "cycle",
            feed=feed,
            version=report.cycle.version,
            outcome=report.outcome,
            fresh=len(report.cycle.plan.fresh),
            replayed=len(report.cycle.plan.replayed),
        )

    # --- the watchdog: the thread of `run`

    def _watch(self) -> None:
        running = self._running
        if running is None:
            return
        name, since = running
        limit = self._feeds[name].section.learner.max_cycle_s
        if time.monotonic() - since > limit:
            log.critical("cycle_hung", feed=name, limit_s=limit, remedy="the process ends; the cycle is repeated")
            os._exit(HUNG_EXIT_CODE)
