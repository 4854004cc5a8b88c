"""The mixing thread: what the engine has computed, mixed with the feed's fast state; pulses come in between.

Guards: a request is answered entirely by one version and one pulse, the newest there is once its last text has been
through the engine; a pulse is taken over between two mixes, never during one; the engine thread waits for none of it:
n-grams, mixing and pulses are this thread's.

Delivery: every request that was added is answered or failed exactly once, also while closing. Ordering: as added, but
for those of one feed and version that wait together, which are mixed at once. Errors: where mixing fails, the head
alone answers; that is logged and counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import structlog

from driftline import metrics
from driftline.errors import NotReady, ServingError
from serving.answers import Answer, Request, heads_answers
from serving.fast_answers import MixedFeed, fast_answers
from serving.jobs import handed_over

__all__ = ["MixLoop"]

log = structlog.get_logger()

MOST_TEXTS = 256
"""Mixed at once, if more wait: it bounds how long a pulse waits."""


class MixLoop:
    """Thread-safe. `finish` is called once for each request, with its answers or the error. Without feeds there is no
    thread."""

    def __init__(
        self, feeds: Mapping[str, MixedFeed], finish: Callable[[Request, list[Answer] | ServingError], None]
    ) -> None:
        self._feeds = feeds
        self._finish = finish
        self._wake = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._jobs: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="mixing", daemon=True)

    def start(self) -> None:
        if self._feeds:
            self._thread.start()

    def close(self) -> None:
        """Answer what was added, then stop. Idempotent. Close the engine's thread first: it adds."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether what is added will be answered."""
        return not self._feeds or (self._thread.is_alive() and not self._stopping)

    def add(self, request: Request) -> None:
        """A request whose texts have all been computed. Never blocks; after the thread has died it fails at once."""
        with self._wake:
            dead = self._stopping and not self._thread.is_alive()
            if not dead:
                self._waiting.append(request)
                self._wake.notify_all()
        if dead:
            self._finish(request, ServingError("the mixing thread died"))

    def between(self, work: Callable[[], None]) -> None:
        """Run `work` while nothing is mixed; waits for it and raises what it did. NotReady when nothing runs."""
        job, done = handed_over(work)
        with self._wake:
            if self._stopping or not self._thread.is_alive():
                raise NotReady("the engine is stopping or was not started")
            self._jobs.append(job)
            self._wake.notify_all()
        done.result()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            log.exception("mixing_died")
            self._abandon(error)
            raise

    def _turn(self) -> bool:
        """All jobs and one mix; False when there is nothing left to do for ever."""
        with self._wake:
            while not (self._jobs or self._waiting or self._stopping):
                self._wake.wait()
            jobs, requests = list(self._jobs), self._next()
            self._jobs.clear()
        for job in jobs:
            job()
        if requests:
            self._answer(requests)
        return bool(jobs or requests)

    def _next(self) -> list[Request]:
        """The oldest request, and those of its feed and version that came right after it. Called under the lock."""
        chosen: list[Request] = []
        texts = 0
        while self._waiting and texts < MOST_TEXTS:
            head = self._waiting[0]
            if chosen and (head.feed, head.resident) != (chosen[0].feed, chosen[0].resident):
                break
            chosen.append(self._waiting.popleft())
            texts += len(head.texts)
        return chosen

    def _answer(self, requests: Sequence[Request]) -> None:
        started = time.perf_counter()
        try:
            answers = self._mixed(requests)
        except Exception as error:
            log.exception("answering_failed", feed=requests[0].feed, requests=len(requests))
            for request in requests:
                self._finish(request, ServingError(f"answering failed: {type(error).__name__}"))
            return
        metrics.MIXING_MS.observe((time.perf_counter() - started) * 1000)
        for request, own in zip(requests, answers, strict=True):
            self._finish(request, own)

    def _mixed(self, requests: Sequence[Request]) -> list[list[Answer]]:
        feed = self._feeds[requests[0].feed]
        try:
            return fast_answers(feed, requests)
        except Exception:
            log.exception("mixing_failed", feed=requests[0].feed, pulse=feed.replica.number)
            metrics.MIXING_FAILURES.labels(requests[0].feed).inc()
            return [heads_answers(request, 0) for request in requests]

    def _abandon(self, error: BaseException) -> None:
        """The thread dies of a bug: nobody may wait for it for ever."""
        with self._wake:
            self._stopping = True
            requests, jobs = list(self._waiting), list(self._jobs)
            self._waiting.clear()
            self._jobs.clear()
        for request in requests:
            self._finish(request, ServingError(f"the mixing thread died: {type(error).__name__}"))
        for job in jobs:
            job()
