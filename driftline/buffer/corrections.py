"""Labels that replaced another one of the same example: written by the intake, named to whoever asks.

Keeps the rest of invariant 1 for them: an example whose label was corrected is learned again, and by that alone it does
not become learned that a version learned its wrong label. `relearn_after` is the newest version number that a cycle had
been taken for by then, so whatever plan holds the example under a greater number was trained with the right label.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from driftline.records import Correction


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCorrection:
    """A correction, and the versions that had learned the example, fresh or replayed, with the wrong label. The newest
    of them may have been in training when the label was corrected, and have learned the right one."""

    correction: Correction
    learned_by: tuple[int, ...]


class Corrections(Protocol):
    """Delivery: each correction stays. Ordering: as they were written. Atomicity: written in the intake's transaction,
    after the examples themselves. Idempotency: this face only reads. Errors: BufferStoreError.
    """

    def labels(self, feed: str, seqs: Iterable[int]) -> dict[int, str]:
        """The labels, as they are now, of those of these examples that were corrected."""

    def newest(self, feed: str, last: int | None = None) -> list[NamedCorrection]:
        """The feed's newest corrections (None: all), newest first, with the versions that learned the wrong label."""
