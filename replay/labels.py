"""Labels on their way: what came with an event that ingest takes, and becomes known later. Pure."""

import heapq
import itertools
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b


@dataclass(order=True, frozen=True, slots=True)
class DueLabel:
    """A label and when it comes; `order` keeps labels of one time in the events' order."""

    at: datetime
    order: int
    event_id: str = field(compare=False)
    label: str = field(compare=False)
    repeated: bool = field(compare=False, default=False)


class TakenTexts:
    """Tells the events that ingest takes from those it refuses as conflicting duplicates: the first text of an id wins.

    Live, a refused event takes its label with it; without this, that label would go to the first event of the id.
    """

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}

    def seen(self, event_id: str) -> bool:
        """Whether an event of this id was asked for before."""
        return event_id in self._digests

    def take(self, event_id: str, text: str) -> bool:
        """Whether ingest takes this event (a repeated one too); `text` is cleaned. To be asked in topic order."""
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        return self._digests.setdefault(event_id, digest) == digest


class LabelQueue:
    """Labels by the time they come."""

    def __init__(self) -> None:
        self._heap: list[DueLabel] = []
        self._order = itertools.count()

    @property
    def next_at(self) -> datetime | None:
        """When the next one comes; None if there is none."""
        return self._heap[0].at if self._heap else None

    def push(self, at: datetime, event_id: str, label: str, *, repeated: bool = False) -> None:
        """One more. `repeated`: the event had come before."""
        heapq.heappush(self._heap, DueLabel(at, next(self._order), event_id, label, repeated))

    def pop_due(self, now: datetime) -> list[DueLabel]:
        """Those that have come by `now`, in the order of their times."""
        due: list[DueLabel] = []
        while self._heap and self._heap[0].at <= now:
            due.append(heapq.heappop(self._heap))
        return due

    def forecast(self, missing: int) -> "Forecast":
        """When the `missing`-th from now (at least 1) will have come."""
        return Forecast(missing, heapq.nsmallest(missing, (due.at for due in self._heap)))


class Forecast:
    """The time at which so many labels will have come, as far as their times are known."""

    def __init__(self, missing: int, times: Iterable[datetime]) -> None:
        self._missing = missing
        self._times = sorted(times)

    def add(self, at: datetime) -> None:
        """Another label's time became known."""
        insort(self._times, at)
        del self._times[self._missing :]

    @property
    def at(self) -> datetime | None:
        """None while too few are known."""
        return self._times[-1] if len(self._times) == self._missing else None
