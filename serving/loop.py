"""The engine thread: one loop over jobs and micro-batches, the only place that runs the model.

Guards: a job (a swap, a probe, writing a slot) runs between two batches, never during one; an exception in a batch
fails the requests in it and nothing else; every request that was taken in is answered or failed exactly once.

Ordering: the oldest waiting row is always in the next batch; jobs go before batches. Closing drains what was taken in.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
import torch

from driftline import metrics
from driftline.base import Base
from driftline.errors import NotReady, Overloaded, ServingError
from serving.answers import Request, Result, Row, results_of
from serving.bank import AdapterBank
from serving.batches import WINDOW_ROWS, choose_rows
from serving.jobs import handed_over

log = structlog.get_logger()
T = TypeVar("T")


class BatchLoop:
    """A queue of rows and a queue of jobs, and the thread that works them off. Thread-safe.

    For each request either `on_computed` is called once, when the last of its rows has its result, or `on_failed`;
    neither may take long.
    """

    def __init__(
        self,
        base: Base,
        bank: AdapterBank,
        *,
        max_batch_tokens: int,
        max_queue_inputs: int,
        threads: int | None,
        on_computed: Callable[[Request], None],
        on_failed: Callable[[Request, ServingError], None],
    ) -> None:
        self._base = base
        self._bank = bank
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_inputs = max_queue_inputs
        self._threads = threads
        self._on_computed = on_computed
        self._on_failed = on_failed
        self._wake = threading.Condition()
        self._rows: deque[Row] = deque()
        self._jobs: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._rows_per_s = 100.0

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Take nothing more in, finish what is there, stop. Idempotent."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether requests are taken in and will be answered."""
        return self._thread.is_alive() and not self._stopping

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return len(self._rows)

    def check_room(self, inputs: int) -> None:
        """Overloaded if so many more may not wait. A request that finds the queue empty always fits."""
        waiting = len(self._rows)
        if waiting and waiting + inputs > self._max_queue_inputs:
            metrics.OVERLOADED.inc()
            message = f"{waiting} inputs wait already, {self._max_queue_inputs} may (serve.max_queue_inputs): try later"
            raise Overloaded(message, max(0.1, waiting / self._rows_per_s))

    def add(self, request: Request, tokens: Sequence[list[int]]) -> None:
        """Queue a request's rows, all at once. Overloaded, NotReady: nothing was queued."""
        with self._wake:
            self._check_running()
            self.check_room(len(tokens))
            self._rows.extend(Row(request, index, ids) for index, ids in enumerate(tokens))
            metrics.QUEUED_INPUTS.set(len(self._rows))
            self._wake.notify_all()

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` on the engine thread between two batches; waits for it and returns or raises what it did."""
        job, done = handed_over(work)
        with self._wake:
            self._check_running()
            self._jobs.append(job)
            self._wake.notify_all()
        return done.result()

    def forward(self, tokens: Sequence[list[int]], slots: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The heads' outputs (B, R_max) and the features (B, d), fp32 on the CPU. Engine thread only."""
        input_ids, attention_mask = self._base.collate(tokens, self._base.device)  # (B, T) each
        outputs, features = self._bank.forward(input_ids, attention_mask, slots)
        return outputs.cpu(), features.cpu()

    def _check_running(self) -> None:
        if not self.alive:
            raise NotReady("the engine is stopping or was not started")

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)
        try:
            while self._turn():
                pass
        except BaseException as error:
            log.exception("engine_died")
            self._abandon(error)
            raise

    def _turn(self) -> bool:
        """One job or one batch; False when there is nothing left to do for ever."""
        with self._wake:
            while not (self._jobs or self._rows or self._stopping):
                self._wake.wait()
            job = self._jobs.popleft() if self._jobs else None
            batch = self._next_batch() if job is None else []
        if job is not None:
            job()
        elif batch:
            self._answer(batch)
        return job is not None or bool(batch)

    def _next_batch(self) -> list[Row]:
        """Take the next batch off the queue; [] when it is empty. Called under the lock."""
        head = [self._rows.popleft() for _ in range(min(len(self._rows), WINDOW_ROWS))]
        if not head:
            return []
        chosen = choose_rows([len(row.tokens) for row in head], self._max_batch_tokens)
        left = set(range(len(head))).difference(chosen)
        self._rows.extendleft(head[index] for index in sorted(left, reverse=True))
        metrics.QUEUED_INPUTS.set(len(self._rows))
        return [head[index] for index in chosen]

    def _answer(self, batch: list[Row]) -> None:
        started = time.perf_counter()
        try:
            outputs, features = self.forward([row.tokens for row in batch], [row.request.slot for row in batch])
            for row, result in zip(batch, results_of(batch, outputs, features), strict=True):
                self._take(row, result)
        except Exception as error:
            log.exception("batch_failed", rows=len(batch))
            self._fail(batch, f"the batch failed: {type(error).__name__}")
            return
        seconds = time.perf_counter() - started
        self._rows_per_s += 0.1 * (len(batch) / seconds - self._rows_per_s)
        metrics.BATCH_ROWS.observe(len(batch))
        metrics.BATCH_SECONDS.observe(seconds)

    def _take(self, row: Row, result: Result | None) -> None:
        request = row.request
        if request.future.done():  # another row of it failed
            return
        if result is None:
            message = f"version {request.version} of feed {request.feed!r} gives no finite scores for a text"
            self._fail([row], message)
            return
        request.results[row.index] = result
        request.left -= 1
        if request.left == 0:
            self._on_computed(request)

    def _fail(self, rows: Sequence[Row], message: str) -> None:
        """Fail the requests of these rows, and take their other rows off the queue."""
        waiting = [row.request for row in rows if row.request.left and not row.request.future.done()]
        requests = {id(request): request for request in waiting}
        with self._wake:
            self._rows = deque(row for row in self._rows if id(row.request) not in requests)
        for request in requests.values():
            self._on_failed(request, ServingError(message))

    def _abandon(self, error: BaseException) -> None:
        """The thread dies of a bug: nobody may wait for it for ever."""
        with self._wake:
            self._stopping = True
            rows, jobs = list(self._rows), list(self._jobs)
            self._jobs.clear()
        self._fail(rows, f"the engine died: {type(error).__name__}")
        for job in jobs:
            job()
