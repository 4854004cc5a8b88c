"""Dead letters: the outbox to the dead-letter topic, and the place that `dead-letters retry` works on (invariant 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from driftline.records import DeadLetter


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterRow:
    """A dead letter as it stands. `state`: to_send | sent | retry | resolved (its value is gone then)."""

    id: int
    letter: DeadLetter
    state: str
    at: datetime


class Letters(Protocol):
    """Records that were refused; written by the intake, in the transaction that refuses them.

    Delivery: at least once to the topic (`to_send`, then `mark_sent`), keyed by position. Ordering: by letter number,
    within a feed. Atomicity: each call is one transaction. Idempotency: one row per feed and position; a letter that
    fails again after a retry returns to its row, and is sent again only if its reason changed. Errors: BufferFull.
    States: to_send → sent → (marked) retry → resolved, or back to sent or to_send. What was sent, or resolved, is let
    go after a while (`Intake.expire`): then it is only counted. What is still to be done is kept however long it takes.
    """

    def to_send(self, feed: str, limit: int) -> list[tuple[int, DeadLetter]]:
        """The feed's oldest dead letters that are not on its topic yet, at most about 16 MiB of them."""

    def mark_sent(self, feed: str, letters: Sequence[tuple[int, DeadLetter]], now: datetime) -> None:
        """These, as `to_send` gave them, are durable on the topic."""

    def to_retry(self, feed: str, limit: int) -> list[tuple[int, DeadLetter]]:
        """The feed's oldest dead letters marked for retry, at most about 16 MiB of them."""

    def mark_for_retry(self, feed: str, ids: Sequence[int] | None) -> int:
        """Mark dead letters (these numbers, or all), so that ingest tries them again; how many it marked now."""

    def newest(self, feed: str, limit: int, reason: str | None = None) -> list[LetterRow]:
        """The feed's newest dead letters that are kept and not resolved, of one reason or all, newest first."""

    def numbers(self, feed: str) -> list[int]:
        """The numbers of the feed's dead letters that are kept and not resolved, those marked for retry included."""

    def reasons(self, feed: str) -> dict[str, dict[str, int]]:
        """How many dead letters are not resolved: kind (event, label, prediction) → reason → number."""
