"""The classes that a feed's examples are of, and what becomes of the examples when the config's labels change.

Keeps what the buffer holds in step with the labels that the config consents to (`driftline.label_change`): examples of
a renamed class have its new name; those of a class that was given up are withdrawn, so that nothing trains on them and
nothing is measured on them; those of a class that came back are fresh again (or held out, as before).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from driftline.label_change import LabelChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What an adoption did: the change, and how many examples it renamed, withdrew and brought back."""

    change: LabelChange = field(default_factory=LabelChange)
    renamed: int = 0
    withdrawn: int = 0
    restored: int = 0

    def __bool__(self) -> bool:
        return bool(self.change or self.renamed or self.withdrawn or self.restored)


class Labels(Protocol):
    """Delivery: whoever opens the buffer first adopts; a process that still has other labels can write no more.
    Ordering: the config's. Atomicity: `adopt` is one transaction, so a crash leaves before or after. Idempotency:
    adopting the same labels again changes nothing. Errors: ConfigError for a class left out without a word (nothing is
    changed then), BufferStoreError, BufferFull. A feed that a read-only buffer does not hold knows no labels.
    """

    def known(self, feed: str) -> tuple[str, ...]:
        """The labels last adopted; of a feed that never said, those that its examples have."""

    def examples(self, feed: str) -> dict[str, int]:
        """Label → how many examples are to be learned from and measured on."""

    def set_aside(self, feed: str) -> dict[str, int]:
        """Label → how many examples are withdrawn."""

    def withdrawn(self, feed: str, seqs: Iterable[int]) -> set[int]:
        """Those of these examples that are withdrawn."""

    def adopt(self, feed: str, now: datetime, live: Sequence[str] = ()) -> Adopted:
        """Make the config's labels those of the feed. `live`: the live version's. ConfigError as `require_consent`."""
