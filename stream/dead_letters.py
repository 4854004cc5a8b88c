"""Dead letters between the buffer's outbox and their topics, and back in on a retry.

Keeps invariant 3. Delivery: at least once onto the dead-letter topic, keyed by position; a retry takes each marked
letter once. Ordering: by letter number. Atomicity: a retry is one transaction; sending and marking are two steps, so a
crash between them sends again. Errors: BufferFull (retriable); a topic that cannot be written to is logged, its letters
stay where they are and hold up no other feed's.
"""

from collections.abc import Mapping
from datetime import datetime

import structlog

from driftline import metrics
from driftline.buffer import Buffer
from driftline.config import FeedTopics
from driftline.errors import TopicError
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

    def drain(self, now: datetime) -> int:
        """Send all that wait; returns how many. What cannot be sent is logged, and waits on."""
        return sum(self._drain(feed, now) for feed in self._names)

    def _drain(self, feed: str, now: datetime) -> int:
        """Those of one feed, whose topic may refuse them: that must not hold up another one's."""
        sent = 0
        try:
            while count := self._send(feed, now):
                sent += count
        except TopicError as error:
            log.warning("dead_letters_wait", feed=feed, error=str(error))
        return sent

    def _send(self, feed: str, now: datetime) -> int:
        """The oldest ones, as many at once as are there: a few at a time would sync the disk for each few."""
        letters = self._buffer.letters.to_send(feed, LETTERS_AT_ONCE)
        if letters:
            self._topics.append_dead_letters(self._names[feed].dead_letters, [letter for _, letter in letters])
            self._buffer.letters.mark_sent(feed, letters, now)
            log.info("dead_letters_sent", feed=feed, count=len(letters))
        for _, letter in letters:
            metrics.INGEST_DEAD_LETTERS.labels(feed, letter.reason).inc()
        return len(letters)

    def retry(self, now: datetime) -> int:
        """Decode and take all that are marked; returns how many were decoded."""
        return sum(self._retry(feed, now) for feed in self._names)

    def _retry(self, feed: str, now: datetime) -> int:
        retried = 0
        while letters := self._buffer.letters.to_retry(feed, LETTERS_AT_ONCE):
            records = [self._again(letter) for _, letter in letters]
            counts = self._buffer.intake.append(records, {}, now, retried=[number for number, _ in letters])
            log.info("dead_letters_retried", feed=feed, count=len(letters), dead_again=counts.dead_letters)
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
