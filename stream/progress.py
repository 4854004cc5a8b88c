"""Whether a feed's topics have been read up to where they ended when reading began or went on.

Keeps a part of invariant 3: after an outage, ours or the broker's, or a pause, what a record waits for may stand unread
on another topic. Until that is read, nothing may be given up for having waited too long. A reader that is cut off says
nothing (its poll returns []), so being current has to be confirmed again and again.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from driftline.errors import TopicUnavailable
from driftline.topics import Partition, Reader

TRUSTED = timedelta(seconds=5)
"""How long an answered question for the lag counts. Asking at each expiry would hold the poll thread up on idle topics,
where the broker answers only after its fetch wait."""


class Progress:
    """Starts as not current; once current it stays so for `TRUSTED`, and then has to reach the end as of then."""

    def __init__(self) -> None:
        self._current = False
        self._ends: dict[Partition, int] | None = None
        self._answered: datetime | None = None

    def restart(self) -> None:
        """Reading went on after a pause: not current until the end as of now is reached."""
        self._current = False
        self._ends = None

    def is_current(self, reader: Reader, positions: Mapping[Partition, int], now: datetime) -> bool:
        """`positions`: next offsets. Asks the reader for its lag only while not current; False if it cannot tell."""
        if self._answered is None or not timedelta(0) <= now - self._answered < TRUSTED:
            self.restart()
        if not self._current:
            self._current = self._reached(reader, positions, now)
        return self._current

    def _reached(self, reader: Reader, positions: Mapping[Partition, int], now: datetime) -> bool:
        try:
            lag = reader.lag()
        except TopicUnavailable:
            self.restart()
            return False
        self._answered = now
        if self._ends is None:
            self._ends = {partition: positions.get(partition, 0) + behind for partition, behind in lag.items()}
        # the lag alone would never be 0 on a busy topic; the position alone never the end where markers stand last
        return all(not behind or positions.get(p, 0) >= self._ends.get(p, 0) for p, behind in lag.items())
