"""Which decoder a raw record goes to. Pure, and never raises on content: what cannot be used is a `DeadLetter`.

The decoding itself is in `driftline.topics.codec`, because the scorer must read events exactly as ingest does.
"""

from driftline.config import FeedConfig, FeedTopics
from driftline.records import DeadLetter, Event, Label, Prediction, RawRecord
from driftline.topics.codec import decode_event, decode_label, decode_prediction

Decoded = Event | Label | Prediction | DeadLetter


class Decoder:
    """One feed's records, told apart by the topic they stand on."""

    def __init__(self, feed: str, section: FeedConfig, topics: FeedTopics) -> None:
        self._feed = feed
        self._section = section
        self._by_topic = {topics.labels: decode_label, topics.predictions: decode_prediction}

    def decode(self, raw: RawRecord) -> Decoded:
        """The record, or why there is none. What stands on neither labels nor predictions topic is an event."""
        decode = self._by_topic.get(raw.position.topic, decode_event)
        return decode(raw, self._feed, self._section)
