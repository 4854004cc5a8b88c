"""Whether a feed's topics have been read up to where they ended when reading began or went on.

Keeps a part of invariant 3: after an outage of ours, or a pause, what a record waits for may stand unread on another
topic. Until that is read, nothing may be given up for having waited too long.
"""

from collections.abc import Mapping

from driftline.errors import TopicUnavailable
from driftline.topics import Partition, Reader


class Progress:
    """Starts as not current; becomes current once, and stays so until `restart`."""

    def __init__(self) -> None:
        self._current = False
        self._ends: dict[Partition, int] | None = None

    def restart(self) -> None:
        """Reading went on after a pause: not current until the end as of now is reached."""
        self._current = False
        self._ends = None

    def is_current(self, reader: Reader, positions: Mapping[Partition, int]) -> bool:
        """`positions`: next offsets. Asks the reader for its lag only while not current; False if it cannot tell."""
        if not self._current:
            self._current = self._reached(reader, positions)
        return self._current

    def _reached(self, reader: Reader, positions: Mapping[Partition, int]) -> bool:
        try:
            lag = reader.lag()
        except TopicUnavailable:
            return False
        if self._ends is None:
            self._ends = {partition: positions.get(partition, 0) + behind for partition, behind in lag.items()}
        # the lag alone would never be 0 on a busy topic; the position alone never the end where markers stand last
        return all(not behind or positions.get(p, 0) >= self._ends.get(p, 0) for p, behind in lag.items())
