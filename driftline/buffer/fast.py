"""What the fast clock takes and what it leaves behind: examples once each, its pulses, and the state to go on from.

Keeps the buffer's part of invariants 1 (nothing is learned twice, on either clock) and 5 (a pulse is a function of the
state before and the ordered examples): what each pulse learned is recorded with it, so that the state after any pulse
can be made again from the last one that was kept whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from driftline.records import Pulse

__all__ = ["FastClockBooks", "KeptState", "Learned", "Lesson"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A labelled text as the fast clock learns it. `feature` and `version`: what was served with its answer, and by
    which version; None where there was no answer, or none with a feature."""

    seq: int
    text: str
    label: str
    feature: bytes | None
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What one pulse learned, in its order."""

    number: int
    lessons: tuple[Lesson, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptState:
    """A whole fast state after the pulse `number`. `pulse` is that pulse, sealed."""

    epoch: str
    number: int
    pulse: bytes
    state: bytes


class FastClockBooks(Protocol):
    """From the buffer to the fast clock, and what became of it.

    Delivery: an example is due until a pulse that learned it is recorded; hold-outs, withdrawn and set-aside examples
    never are. It becomes due once its answer came or was waited for in vain, and again when its label is corrected or
    when what was set aside is to be learned again. Features are kept as long as their example is due.
    Ordering: by number among those that are due. Atomicity: each call is one transaction, durable when it returns.
    Idempotency: a pulse that is recorded already is refused, so nothing is learned twice. Errors: BufferFull (nothing
    was written: try again), BufferStoreError for what contradicts the books, or where another process has adopted other
    labels.
    """

    def due(self, feed: str, limit: int) -> list[Lesson]:
        """The first examples that the fast clock has not learned, by number."""

    def due_count(self, feed: str) -> int:
        """How many there are."""

    def record(self, feed: str, pulse: Pulse, sealed: bytes, lessons: Sequence[Lesson]) -> None:
        """The next pulse, and what it learned, which is due no more. BufferStoreError if it is not the next."""

    def keep(self, feed: str, kept: KeptState) -> None:
        """The state to go on from: of the newest pulse, or of a new epoch's first. What led to it is dropped."""

    def kept(self, feed: str) -> KeptState | None:
        """The state to go on from; None before the first."""

    def since_kept(self, feed: str) -> list[Learned]:
        """What the pulses after that state learned, in their order, with labels as they were learned."""

    def last_pulse(self, feed: str) -> bytes | None:
        """The newest recorded pulse, sealed: it may not have been published."""

    def last_number(self, feed: str) -> int:
        """The number of the newest pulse; 0 before the first."""
