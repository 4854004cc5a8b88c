"""The log interface: append-only topics, read from positions we own. Two implementations: `files` and `kafka`.

One conformance suite (`tests/integration/test_topics.py`) runs against both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from driftline.records import DeadLetter, RawRecord

__all__ = ["MAX_RECORD_BYTES", "Outgoing", "Partition", "Reader", "Topics"]

MAX_RECORD_BYTES = 16 << 20
"""Where nobody says otherwise; `ingest.max_record_bytes` does."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Partition:
    """One partition of a topic; a topic file has only partition 0."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A record to append. `key` decides the Kafka partition; topic files ignore it."""

    value: bytes
    key: bytes | None = None


class Reader(Protocol):
    """Reads assigned partitions. One thread only. Never joins a group unless it was opened with `open_group`.

    Delivery: at least once; a reader opened at positions delivers everything from there on. Ordering: by offset within
    a partition. Atomicity: none, the caller stores positions with what it learned. Idempotency: reading has no effect.
    Errors: TopicUnavailable (retriable), PositionLost, TopicRecreated.
    """

    def poll(self, max_records: int, timeout_s: float) -> list[RawRecord]:
        """Up to `max_records` of the partitions that are not paused; [] after `timeout_s` without any.

        One that is larger than the topics' `max_record_bytes` comes without its value, as `skipped_bytes`.
        """

    def pause(self, topics: Iterable[str]) -> None:
        """Stop delivering these topics; everything else goes on. Idempotent. Also drops what was prefetched."""

    def resume(self, topics: Iterable[str]) -> None:
        """Undo `pause`. Idempotent."""

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Next offsets. With `open`: best effort, for lag tools only, never raises. With `open_group`: durable."""

    def lag(self) -> dict[Partition, int]:
        """Records (Kafka) or bytes (files) between this reader and the end of each partition."""

    def close(self) -> None: ...


class Topics(Protocol):
    """A cluster of topics.

    Delivery: `append` returns when the records are durable (files: fsync; Kafka: acks=all, idempotent producer).
    Ordering: records of one call and one key stay in order. Atomicity: each record alone; a crash may leave a prefix.
    Idempotency: none, readers join by id. Errors: TopicUnavailable (retriable: append again).
    """

    def ensure(self, topics: Iterable[str]) -> None:
        """Create what is missing."""

    def exists(self, topic: str) -> bool: ...

    def identity(self, topic: str) -> str:
        """An id that changes when the topic (or its cluster) is made anew."""

    def partitions(self, topic: str) -> list[int]:
        """Partition numbers, rising; [] if the topic does not exist."""

    def append(self, topic: str, records: Sequence[Outgoing]) -> None: ...

    def append_dead_letters(self, topic: str, letters: Sequence[DeadLetter]) -> None:
        """Kafka: original bytes as value; reason, detail, position as headers. Files: JSON (DESIGN §2)."""

    def committed(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Next offsets that `group` committed; partitions without a commit are absent."""

    def open(self, positions: Mapping[Partition, int | None], *, commit_as: str | None = None) -> Reader:
        """A reader assigned to exactly these partitions, each from its offset (None: the earliest there is)."""

    def open_group(self, topics: Iterable[str], group: str) -> Reader:
        """A reader that shares the topics with others of the group, from its committed offsets (else the earliest)."""

    def close(self) -> None: ...
