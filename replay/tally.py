"""What a replay measures while it runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from learner.cycle import CycleReport

ACTIVITIES = ("ingest", "predict", "adapt", "train", "evaluate", "promotions", "baselines")


class Swap(NamedTuple):
    """A version went live after so many events, of which so many were decodable and the first of their id."""

    version: int
    events: int
    distinct: int


@dataclass(slots=True)
class Tally:
    """Seconds are wall time by activity, freshness is stream time; `promotions` are by version, as `promotion_exam` has
    them."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(ACTIVITIES, 0.0))
    cycles: list[CycleReport] = field(default_factory=list)
    freshness_s: list[float] = field(default_factory=list)
    swaps: list[Swap] = field(default_factory=list)
    promotions: dict[int, dict[str, Any] | None] = field(default_factory=dict)
    trained_examples: int = 0
    pulses: int = 0
    events: int = 0
    requests_failed: int = 0

    @contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        """Add the wall time of the block to the activity's."""
        start = time.perf_counter()
        yield
        self.seconds[activity] += time.perf_counter() - start

    def add_cycle(self, report: CycleReport) -> None:
        """One turn of the learner that did something."""
        self.cycles.append(report)
        self.seconds["train"] += report.train_seconds
        self.seconds["evaluate"] += report.evaluate_seconds
        self.trained_examples += report.trained_examples
