"""How fast a replay goes."""

import time
from datetime import datetime

from driftline.clock import sleep


class Pace:
    """Holds the stream back to `factor` times its own speed; None: as fast as it goes."""

    def __init__(self, factor: float | None) -> None:
        self._factor = factor
        self._start: tuple[datetime, float] | None = None

    @property
    def held_back(self) -> bool:
        """Whether the stream runs at a speed of its own, so that every event is answered as it comes."""
        return self._factor is not None

    def wait_for(self, moment: datetime) -> None:
        """Returns when the stream time `moment` has come."""
        if self._factor is None:
            return
        self._start = self._start or (moment, time.monotonic())
        due = (moment - self._start[0]).total_seconds() / self._factor
        remaining = self._start[1] + due - time.monotonic()
        if remaining > 0:
            sleep(remaining)
