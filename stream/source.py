"""One feed's topics as ingest reads them: which partitions, from where, and whether they are still the same topics.

Keeps invariant 1's precondition: positions belong to the topics they were read from. A topic that was made anew, or a
buffer that lost its positions, stops ingest with the remedy instead of reading everything twice or skipping something.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from driftline.buffer import Buffer
from driftline.config import FeedTopics, IngestConfig
from driftline.errors import BufferStoreError, TopicError
from driftline.records import RawRecord
from driftline.topics import Partition, Reader, Topics
from stream.progress import Progress


class Source:
    """The reader of one feed's events, labels and predictions. One thread only."""

    def __init__(self, feed: str, names: FeedTopics, topics: Topics, section: IngestConfig, prefix: str) -> None:
        """`prefix` (redis.prefix) keeps installations on one Kafka apart in the group's name."""
        self.feed = feed
        self.names = names
        self.group = f"{prefix}-ingest-{feed}"
        self.progress = Progress()
        self._topics = topics
        self._section = section
        self._reader: Reader | None = None
        self._positions: dict[Partition, int] = {}
        self.assigned: list[Partition] = []

    @property
    def reader(self) -> Reader:
        """The open reader."""
        assert self._reader is not None
        return self._reader

    def start(self, buffer: Buffer) -> None:
        """Bind the topics, check that the buffer knows where to read on, and open the reader there.

        TopicError, TopicRecreated, BufferStoreError; TopicUnavailable (retriable).
        """
        self._topics.ensure([*self.names.read, self.names.dead_letters])
        for topic in self.names.read:
            buffer.intake.bind_topic(topic, self._topics.identity(topic))
        self._check_ranks_fit()
        own = self.assigned = self.partitions()
        stored = buffer.intake.positions()
        self.check_known(own, stored)
        self._positions = {partition: stored[partition] for partition in own if partition in stored}
        self._reader = self._topics.open({p: self._positions.get(p) for p in own}, commit_as=self.group)

    def partitions(self) -> list[Partition]:
        """The partitions that fall to this ingest now."""
        ranks = self._section.of_ranks
        return [
            Partition(topic=topic, partition=number)
            for topic in self.names.read
            for number in self._topics.partitions(topic)
            if number % ranks == self._section.rank
        ]

    def _check_ranks_fit(self) -> None:
        """Scaled out, an event, its label and its prediction must fall to the same rank."""
        counts = {topic: len(self._topics.partitions(topic)) for topic in self.names.read}
        if self._section.of_ranks > 1 and len(set(counts.values())) > 1:
            raise TopicError(
                f"feed {self.feed!r}: ingest.of_ranks = {self._section.of_ranks} needs topics with equally many "
                f"partitions, but there are {counts}: add partitions, or set of_ranks to 1"
            )

    def check_known(self, own: Sequence[Partition], stored: Mapping[Partition, int]) -> None:
        """BufferStoreError if these partitions have been read before, and the buffer has `stored` no place in them."""
        if any(partition in stored for partition in own):
            return
        committed = self._topics.committed(self.group, own)
        if committed:
            topics = sorted({partition.topic for partition in committed})
            files = ", ".join(f"topics/{topic}/.groups/{self.group}.json" for topic in topics)
            options = f"--group {self.group} " + " ".join(f"--topic {topic}" for topic in topics)
            place = ", ".join(f"{p.topic}-{p.partition} up to {offset}" for p, offset in sorted(committed.items()))
            raise BufferStoreError(
                f"feed {self.feed!r}: the buffer is empty, but its group {self.group!r} has read {place} before: "
                "state.path is wrong, or the buffer was lost. Put the buffer back; or, to learn the topics from their "
                f"start into an empty buffer, delete the commits. With file topics: remove {files} under state.path. "
                f"On Kafka: kafka-consumer-groups.sh --bootstrap-server HOST:PORT --delete-offsets {options}"
            )

    def advance(self, records: Sequence[RawRecord]) -> None:
        """These records are in the buffer."""
        self._positions |= next_positions(records)

    def is_current(self, now: datetime) -> bool:
        """Whether everything was read that stood on the topics when reading began or went on. `now`: ingest's clock."""
        return self.progress.is_current(self.reader, self._positions, now)

    def commit(self) -> None:
        """Positions for lag tools, best effort."""
        if self._reader is not None and self._positions:
            self._reader.commit(self._positions)

    def close(self) -> None:
        """Close the reader. Idempotent."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def next_positions(records: Sequence[RawRecord]) -> Mapping[Partition, int]:
    """The position after the last record of each partition."""
    ends: dict[tuple[str, int], int] = {}
    for raw in records:
        place = (raw.position.topic, raw.position.partition)
        ends[place] = max(raw.next_offset, ends.get(place, 0))
    return {Partition(topic=topic, partition=partition): end for (topic, partition), end in ends.items()}
