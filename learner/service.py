"""The learner process: APScheduler ticks, one worker thread, a lease per feed, and a watchdog.

Ticks never overlap and are never dropped for being late (FINDINGS §4): one worker, `coalesce`, no misfire limit. A feed
whose lease another process holds stands by. A cycle that hangs cannot be stopped inside the process, so the watchdog
ends the process; the supervisor starts it again and the open cycle is repeated.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from driftline import metrics
from driftline.config import FeedConfig
from driftline.errors import DriftlineError, LeaseLost
from driftline.journal import Journal
from driftline.registry import Lease, Registry
from learner.cycle import CycleReport, Learner
from learner.schedule import trigger_for

log = structlog.get_logger()
HUNG_EXIT_CODE = 70
OUTCOMES = {EVENT_JOB_ERROR: "failed", EVENT_JOB_MISSED: "missed", EVENT_JOB_MAX_INSTANCES: "overlapped"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLearner:
    """One feed in the service: its learner, config and lease."""

    section: FeedConfig
    learner: Learner
    lease: Lease


class LearnerService:
    """Runs every feed's learner on its schedule until told to stop."""

    def __init__(self, feeds: Mapping[str, FeedLearner], registry: Registry, journal: Journal) -> None:
        self._feeds = feeds
        self._registry = registry
        self._journal = journal
        self._running_since: dict[str, float] = {}
        self._fatal: DriftlineError | None = None
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Blocks until `stop`; a running cycle is finished or, after the process's grace, repeated at the next start.

        Raises the first error that trying again cannot mend.
        """
        self._stop = stop
        scheduler = self._scheduler()
        scheduler.start()
        try:
            while not stop.wait(1.0):
                self._watch()
        finally:
            scheduler.shutdown(wait=True)
            for feed in self._feeds.values():
                feed.lease.release()
        if self._fatal is not None:
            raise self._fatal

    def _scheduler(self) -> BackgroundScheduler:
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        for name, feed in self._feeds.items():
            scheduler.add_job(
                self._guarded, trigger_for(feed.section.schedule), args=[self._tick, name], id=f"{name}:tick"
            )
            scheduler.add_job(self._guarded, "interval", seconds=1, args=[self._poll, name], id=f"{name}:poll")
        scheduler.add_listener(self._on_trouble, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        return scheduler

    def _guarded(self, work: Callable[[str], None], name: str) -> None:
        """One job. Retriable errors wait for the next run of the job; others stop the process."""
        if self._stop.is_set() or not self._holds_lease(name):
            return
        self._running_since[name] = time.monotonic()
        try:
            work(name)
        except LeaseLost as error:
            log.warning("lease_lost", feed=name, error=str(error))
            self._feeds[name].lease.release()
        except DriftlineError as error:
            log.error("turn_failed", feed=name, kind=type(error).__name__, error=str(error), retriable=error.retriable)
            if not error.retriable:
                self._fatal = error
                self._stop.set()
        finally:
            self._running_since.pop(name, None)

    def _holds_lease(self, name: str) -> bool:
        lease = self._feeds[name].lease
        try:
            return lease.held or lease.acquire()
        except DriftlineError as error:
            log.warning("lease_unavailable", feed=name, error=str(error))
            return False

    def _tick(self, name: str) -> None:
        self._record(self._feeds[name].learner.turn())

    def _poll(self, name: str) -> None:
        learner = self._feeds[name].learner
        learner.close_segments()
        if learner.has_open_cycle():
            self._record(learner.turn())
        elif self._registry.take_update_request(name):
            self._record(learner.turn(at_least=1))

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

    def _watch(self) -> None:
        for name, since in list(self._running_since.items()):
            limit = self._feeds[name].section.learner.max_cycle_s
            if time.monotonic() - since > limit:
                log.critical("cycle_hung", feed=name, limit_s=limit, remedy="the process ends; the cycle is repeated")
                os._exit(HUNG_EXIT_CODE)

    def _on_trouble(self, event: JobEvent) -> None:
        metrics.JOBS.labels(OUTCOMES[event.code]).inc()
        if event.code != EVENT_JOB_ERROR:
            log.debug("job_late", job=event.job_id, outcome=OUTCOMES[event.code])
            return
        log.critical("job_crashed", job=event.job_id, error=repr(getattr(event, "exception", None)))
        self._fatal = DriftlineError(f"the learner's job {event.job_id} crashed: {getattr(event, 'exception', None)!r}")
        self._stop.set()
