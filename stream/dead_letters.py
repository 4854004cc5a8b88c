"""Dead letters between the buffer's outbox and their topics, and back in on a retry.

Keeps invariant 3. Delivery: at least once onto the dead-letter topic, keyed by position; a retry takes each marked
letter once. Ordering: by letter number. Atomicity: a retry is one transaction; sending and marking are two steps, so a
crash between them sends again. Errors: TopicUnavailable and BufferFull (retriable; letters stay where they are).
"""

from collections.abc import Mapping
from datetime import datetime

import structlog

from driftline import metrics
from driftline.buffer import Buffer
from driftline.config import FeedTopics
from driftline.names import RECORD_TOO_LARGE
from driftline.records import DeadLetter, RawRecord, Record
from driftline.topics import Topics
from stream.decode import Decoder

log = structlog.get_logger()

LETTERS_AT_ONCE = 500


class DeadLetters:
    """`drain` and `retry` may run in different threads."""

    def __init__(
        self,
        topics: Topics,
        buffer: Buffer,
        decoders: Mapping[str, Decoder],
        topic_names: Mapping[str, FeedTopics],
    ) -> None:
        self._topics = topics
        self._buffer = buffer
        self._decoders = decoders
        self._names = topic_names

    def drain(self) -> int:
        """Send all that wait; returns how many."""
        sent = 0
        while count := self.send():
            sent += count
        return sent

    def send(self) -> int:
        """Send the oldest ones, at most `LETTERS_AT_ONCE`; returns how many."""
        letters = self._buffer.letters.to_send(LETTERS_AT_ONCE)
        for feed in dict.fromkeys(letter.feed for _, letter in letters):
            own = [(number, letter) for number, letter in letters if letter.feed == feed]
            self._topics.append_dead_letters(self._names[feed].dead_letters, [letter for _, letter in own])
            self._buffer.letters.mark_sent(own)
            for _, letter in own:
                metrics.INGEST_DEAD_LETTERS.labels(feed, letter.reason).inc()
            log.info("dead_letters_sent", feed=feed, count=len(own))
        return len(letters)

    def retry(self, now: datetime) -> int:
        """Decode and take all that are marked; returns how many were decoded."""
        retried = 0
        while letters := self._buffer.letters.to_retry(LETTERS_AT_ONCE):
            records = [self._again(letter) for _, letter in letters]
            counts = self._buffer.intake.append(records, {}, now, retried=[number for number, _ in letters])
            log.info("dead_letters_retried", count=len(letters), dead_again=counts.dead_letters)
            retried += len(letters)
        return retried

    def _again(self, letter: DeadLetter) -> Record:
        """Decoded once more; a letter whose bytes were never kept stays what it is."""
        if letter.reason == RECORD_TOO_LARGE:
            return letter
        return self._decoders[letter.feed].decode_again(as_it_came(letter), letter.kind)


def as_it_came(letter: DeadLetter) -> RawRecord:
    """The record as it stood on its topic. Its time on the broker is not kept: when it was first refused stands in, so
    that a label without a time of its own does not count as later than what came since."""
    value = None if letter.reason == "tombstone" else letter.value
    return RawRecord(position=letter.position, next_offset=letter.position.offset + 1, value=value, timestamp=letter.at)
