"""What the learner takes and acknowledges: cycles, their examples, and the lineage of their versions.

Keeps the buffer's part of invariants 1 (nothing is learned twice), 5 (the plan of an update is stored before it starts)
and 9 (examples that only rolled-back versions learned are set aside, counted, and can be made fresh again).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from driftline.records import Cycle, Example

Outcome = Literal["promoted", "rejected", "unjudged", "abandoned"]
"""How a cycle ended. `unjudged`: its version was registered as rejected for no fault of its own: the feed was paused,
or something else went live meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleRow:
    """A cycle and how it ended; None while it is open."""

    cycle: Cycle
    outcome: Outcome | None


class Ledger(Protocol):
    """From the buffer to the learner, and what became of it.

    Delivery: an example is in at most one open cycle, and is given back until a cycle that has it is promoted; after a
    crash `open_cycle` returns the same plan. Ordering: examples are numbered in the order they were joined in, and come
    out by number; a plan keeps its own order. Atomicity: each call is one transaction, durable when it returns.
    Idempotency: `ack` with the same outcome and `reconcile` with the same record change nothing. Errors: BufferFull
    (nothing was written: try again), BufferStoreError for what contradicts the books.
    """

    def fresh(self, feed: str, limit: int) -> list[Example]:
        """The oldest examples that may be taken: new ones, and those that a rejected cycle gave back."""

    def fresh_count(self, feed: str) -> int:
        """How many examples may be taken."""

    def new_count(self, feed: str) -> int:
        """How many of them no cycle has taken yet: what a tick goes by (a rejection alone starts no update)."""

    def example_count(self, feed: str) -> int:
        """How many examples the feed has had in all, hold-outs included."""

    def unanswered(self, feed: str) -> tuple[int, int] | None:
        """The least and the greatest number of the examples that wait for the answer that was served."""

    def retired(self, feed: str, limit: int) -> list[Example]:
        """The oldest examples that wait to be offered to the reservoir."""

    def retire_overflow(self, feed: str, keep: int) -> int:
        """Retire the oldest fresh examples beyond the `keep` newest; returns how many. For a paused feed."""

    def examples(self, feed: str, seqs: Sequence[int]) -> list[Example]:
        """These examples in this order. KeyError for a number that there is none of."""

    def examples_after(self, feed: str, seq: int) -> list[Example]:
        """The feed's examples with a greater number, hold-outs included, by number."""

    def take(self, cycle: Cycle) -> None:
        """Write the cycle, before anything is trained; its fresh and retired examples are taken.

        BufferStoreError if another cycle of the feed is open, or an example is not available (also: a replayed one that
        is held out); nothing is changed then.
        """

    def open_cycle(self, feed: str) -> Cycle | None:
        """The cycle that was taken and not acknowledged, if any: after a crash it is to be run again."""

    def ack(self, cycle_id: str, outcome: Outcome) -> None:
        """End a cycle. The same outcome again changes nothing; another one is a BufferStoreError.

        promoted: fresh → learned, retired → remembered. rejected: one attempt more, back to fresh, or retired after
        `max_attempts`. unjudged, and abandoned (nothing was published): back to fresh, no attempt counted.
        """

    def last_taken_at(self, feed: str) -> datetime | None:
        """When the feed's newest cycle was taken; None if there was none yet."""

    def last_version(self, feed: str) -> int:
        """The greatest version number that a cycle of the feed was taken for; 0 if none."""

    def has_version(self, feed: str, version: int) -> bool:
        """Whether a cycle of the feed was taken for this version from this buffer, as the file is now."""

    def cycles(self, feed: str) -> list[CycleRow]:
        """All cycles of the feed in the order they were taken."""

    def lineage(self, feed: str, version: int) -> list[int]:
        """The version, its parent, … down to 0."""

    def reconcile(self, feed: str, live_version: int, revision: int) -> bool:
        """After any change of the live record: examples that only versions outside its lineage learned are set aside,
        those that a version inside learned are learned; its revision is remembered. Idempotent.

        False, and nothing is changed, if a newer revision was seen: the record is out of date, so read it again.
        """

    def relearn(self, feed: str) -> int:
        """Make what was set aside fresh again; returns how many."""

    def remember_revision(self, feed: str, revision: int) -> None:
        """Remember the newest revision of the live record that was seen."""

    def seen_revision(self, feed: str) -> int:
        """The newest revision ever remembered; 0 at the start."""
