"""Whether what an update was asked to wait for has come: read by ingest, and its labelled events answered.

Asks the buffer only. Bounded by the request's `wait_s` from when this process first saw it, so that a feed whose ingest
is dead is updated all the same, with what it has; a process that starts anew waits anew.
"""

from dataclasses import dataclass

import structlog

from driftline.buffer import Buffer
from driftline.clock import Deadline
from driftline.update_requests import wanted

log = structlog.get_logger()


@dataclass(slots=True)
class _Wait:
    request: str
    deadline: Deadline
    newest: int | None = None


class Arrivals:
    """Of one feed. One thread only."""

    def __init__(self, feed: str, buffer: Buffer, max_examples: int) -> None:
        """`max_examples`: of one update; with so many waiting, nothing that comes would be in it."""
        self._feed = feed
        self._buffer = buffer
        self._max_examples = max_examples
        self._wait: _Wait | None = None

    def awaited(self, request: str) -> bool:
        """Whether the request should wait on. Says once that it waits, and when it gives up."""
        what = wanted(request)
        if not what.positions or self._buffer.ledger.fresh_count(self._feed) >= self._max_examples:
            return False
        if self._wait is None:
            self._wait = _Wait(request, Deadline(what.wait_s))
        elif self._wait.request != request:  # asked again before the first was met: that prolongs nothing
            self._wait = _Wait(request, self._wait.deadline)
        missing = self._missing(self._wait)
        if missing and not self._wait.deadline.expired():
            return True
        if missing:
            log.warning("update_waits_no_longer", feed=self._feed, waited_s=what.wait_s, missing=missing)
        self._wait = None
        return False

    def _missing(self, wait: _Wait) -> str | None:
        """What is not there yet; events that came later than what was asked for do not prolong it."""
        stored, what = self._buffer.intake.positions(), wanted(wait.request)
        if any(stored.get(place, 0) < end for place, end in what.positions.items()):
            return "ingest has not read all that stood on the topics: does it run?"
        unanswered = self._buffer.ledger.unanswered(self._feed)
        if unanswered is None:
            return None
        if wait.newest is None:
            wait.newest = unanswered[1]
        return "examples without the answer that was served: does score run?" if unanswered[0] <= wait.newest else None
