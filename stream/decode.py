"""Which decoder a raw record goes to. Pure, and never raises on content: what cannot be used is a `DeadLetter`.

The decoding itself is in `driftline.topics.codec`, because the scorer must read events exactly as ingest does.
"""

from driftline.config import FeedConfig, FeedTopics
from driftline.records import RawRecord, Record
from driftline.topics.codec import Codec


class Decoder:
    """One feed's records, told apart by the topic they stand on."""

    def __init__(self, feed: str, section: FeedConfig, topics: FeedTopics) -> None:
        self._codec = Codec(feed, section)
        self._topics = topics

    def decode(self, raw: RawRecord) -> Record:
        """The record, or why there is none."""
        decode = {"label": self._codec.label, "prediction": self._codec.prediction, "event": self._codec.event}
        return decode[self._topics.kind_of(raw.position.topic)](raw)

    def decode_again(self, raw: RawRecord, kind: str | None) -> Record:
        """A record whose letter is of this kind: where only the label inside an event was refused, that label."""
        if kind == "label" and raw.position.topic == self._topics.events:
            return self._codec.label_of_event(raw)
        return self.decode(raw)
