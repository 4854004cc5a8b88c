"""What ingest appends: records of topics, and how far each was read. Keeps invariants 1, 3 and 4 with `joining`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from driftline.records import Record
from driftline.topics import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeCounts:
    """What one `append` did, over all feeds. `skipped` records had been taken before."""

    records: int = 0
    skipped: int = 0
    events: int = 0
    examples: int = 0
    duplicates: int = 0
    dead_letters: int = 0


class Intake(Protocol):
    """From the topics into the buffer.

    Delivery: a record counts once however often it is offered, because records before the stored position of their
    partition are skipped and the position moves with them. Ordering: records are applied in the order given, which
    within a partition must be topic order. Atomicity: all of a batch, its positions included, or nothing, also under
    SIGKILL and power loss; durable when the call returns (`expire`: one transaction for each 5,000 rows). Idempotency:
    the same batch again changes nothing. Errors: BufferFull (nothing was written: try again), BufferStoreError.
    """

    def positions(self) -> dict[Partition, int]:
        """The next offset of every partition of the feeds' topics that was ever read for that feed."""

    def bind_topic(self, topic: str, identity: str) -> None:
        """Remember which topic its feed's positions belong to. TopicRecreated if it is another one now."""

    def append(
        self,
        records: Sequence[Record],
        positions: Mapping[Partition, int],
        now: datetime,
        *,
        retried: Sequence[int] = (),
    ) -> IntakeCounts:
        """Take the records and move the positions (next offsets), in one transaction.

        Records before the stored position of their partition are skipped, for partitions named in `positions`.
        `retried`: the records come from these dead letters, one each, and `positions` is empty.
        """

    def expire(self, now: datetime, *, current: Iterable[str] | None = None) -> None:
        """Apply waits and bounds to every feed.

        `current`: feeds whose topics are read up to date (None: all). Of the others nothing is given up for waiting too
        long, because what it waits for may stand unread on a topic; examples are offered and bounds hold all the same.
        """

    def waiting_examples(self) -> int:
        """Examples that wait to be taken, or for their prediction: what back-pressure looks at. Of the config's feeds
        only: nothing would ever take those of others."""
