"""What versions are measured on: hold-outs, segments, the accuracy matrix, and answers as they were served.

Keeps the buffer's part of invariants 4 (a prediction is scored as served) and 10 (the gate compares on hold-outs that
nothing trains on, and those of a closed segment stay the same until it is merged).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

Cell = tuple[int, int] | None
"""(correct, n) on a segment's hold-outs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A stretch of a feed's examples, first to last number inclusive. The last one may be open.

    `holdouts` are the kept ones, rising, without withdrawn ones; `holdouts_seen` counts all; `merged` says how many
    segments it consists of.
    """

    index: int
    first_seq: int
    last_seq: int
    examples: int
    holdouts: tuple[int, ...]
    closed: bool
    holdouts_seen: int = 0
    merged: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """An example and its answer. `answered` False: none came, or none that counts; version and predicted are None then.

    An answer from when nothing was known yet has predicted None: it counts as wrong, as does a missing answer (if the
    feed has a scorer).
    """

    seq: int
    event_id: str
    source: str | None
    label: str
    predicted: str | None
    version: int | None
    holdout: bool
    occurred_at: datetime
    answered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelling:
    """How soon and how many of the events get a label.

    `delays_s`: from event to label, of the newest labelled events, rising; below 0 where a clock is wrong.
    `labelled` and `pending`: of the events received since the oldest of these, those of the last minute aside, how many
    have a label and how many still wait for one (up to 100,000). Events that were let go as unlabelled are not counted.
    """

    delays_s: tuple[float, ...]
    labelled: int
    pending: int

    @property
    def coverage(self) -> float | None:
        """The share that has a label, 0..1; None of nothing."""
        return self.labelled / (self.labelled + self.pending) if self.labelled + self.pending else None


class Exams(Protocol):
    """What is measured, and on what.

    Delivery: every hold-out is in one segment; each segment is closed once. Ordering: segments follow the examples'
    numbers and close in that order. Atomicity: each call is one transaction. Idempotency: answers of a version may be
    cached again; they never change. Errors: BufferFull (nothing was written: try again), BufferStoreError for closing
    out of order.
    """

    def scored(self, feed: str, *, last: int | None = None) -> list[Scored]:
        """Examples with the answer each is scored by, in the order their events arrived, without withdrawn ones.

        `last`: only those of the newest so many; None reads the whole feed.
        """

    def labelling(self, feed: str, *, last: int, now: datetime) -> Labelling:
        """How soon and how many of the events get a label, by the newest `last` labelled ones."""

    def segments(self, feed: str) -> list[Segment]:
        """All segments in order; the closed ones come first, only the last may still grow."""

    def recent_holdouts(self, feed: str, n: int) -> list[int]:
        """Numbers of the newest n hold-outs, rising."""

    def close_segment(
        self, feed: str, index: int, row: Mapping[int, tuple[int, int]], version: int, at: datetime
    ) -> None:
        """Close the first segment that is open, with its matrix row (segment index → correct, n) of `version`.

        When more than `max_segments` are closed, neighbours are merged in pairs and all indices change: read the
        segments again. BufferStoreError for any other segment than the first open one.
        """

    def matrix(self, feed: str) -> list[list[Cell]]:
        """a[i][j] = (correct, n) on the hold-outs of segment j when segment i closed; square, None for j > i."""

    def cached_predictions(self, feed: str, version: int) -> dict[int, str | None]:
        """What `cache_predictions` stored of the version: example number → label."""

    def cache_predictions(self, feed: str, version: int, predictions: Mapping[int, str | None]) -> None:
        """Store answers of a version on hold-outs, beside those already there."""

    def forget_predictions(self, feed: str, *, versions: Collection[int], seqs: Collection[int]) -> None:
        """Drop all stored answers but those of these versions on these hold-outs."""
