"""Time as an argument: the same code runs on the wall clock and on the simulated clock of a replay."""

import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """now() is aware UTC. It may stand still (replay) and never goes backwards there."""

    def now(self) -> datetime: ...


class SystemClock:
    """The wall clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class SimulatedClock:
    """A clock that stands still until it is told the time; an earlier time is ignored."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance_to(self, moment: datetime) -> None:
        self._now = max(self._now, moment)


class Deadline:
    """One time limit for several waits. Monotonic; `remaining_s()` is never negative."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def remaining_s(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def expired(self) -> bool:
        return self.remaining_s() == 0.0


def sleep(seconds: float) -> None:
    """Wait. `time.sleep` computes when to wake up, and where libfaketime sets the clock back to before the machine was
    started it fails (OSError 22): processes then ended again and again. A lock's time-out does not."""
    threading.Event().wait(max(0.0, seconds))
