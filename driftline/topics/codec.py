"""Bytes on topics ⇄ records (docs/topics.md). Pure.

Guards: no content of a value, a key or a mapped field makes a decoder raise; what cannot be used comes back as a
`DeadLetter` with a reason of `driftline.names.DEAD_LETTER_REASONS` and the original bytes. A label or a time that
cannot be used costs the event only that label or time. Details name fields and types and never quote what users wrote.
The same raw record always decodes to the same event, in every process.

Covered: UTF-8 JSON objects (a byte-order mark, NaN in unused fields and halves of surrogate pairs are tolerated),
plain text, tombstones, nested fields. Not covered: schema registries, Avro, other character sets.
"""

import hashlib
import json
from base64 import b64encode
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec

from driftline.config import FeedConfig, FieldsConfig
from driftline.records import DeadLetter, Event, Label, Prediction, RawRecord, iso
from driftline.topics import Outgoing
from driftline.topics.fields import Fields, Unusable
from driftline.topics.labels import LabelNames
from driftline.topics.text import clean_text
from driftline.topics.times import TimeFormat

__all__ = [
    "COLLECTED",
    "Codec",
    "clean_text",
    "encode_event",
    "encode_label",
    "encode_prediction",
    "labeller_name",
    "put_field",
    "text_sha256",
]

COLLECTED = "driftline_collected"
REPEATED = "driftline_repeated"
MAX_SOURCE_CHARACTERS = 256
MAX_FEATURE_BYTES = 32_768
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DEFAULT_FIELDS = FieldsConfig()
WRITTEN_BY_US = TimeFormat()
"""Times of labels and predictions, whose fields have fixed names."""


class Codec:
    """One feed's records: bytes in, records out. Made once per feed, since what it looks names and times up in is."""

    def __init__(self, feed: str, section: FeedConfig) -> None:
        self._feed = feed
        self._section = section
        self._labels = LabelNames.of(section)
        self._event_times = TimeFormat(section.fields.timestamp_format)

    def event(self, raw: RawRecord) -> Event | DeadLetter:
        """The event in `raw`, its text cleaned, or why there is none.

        An event without id gets its position as id; one without a readable timestamp gets the record's (None in a topic
        file). A source beyond 256 characters is cut. A label that cannot be used is the event's `refused_label`.
        """
        try:
            value = _value(raw)
            return self._text_event(raw, value) if self._section.format == "text" else self._event(raw, value)
        except Unusable as problem:
            return _dead_letter(raw, self._feed, problem)

    def label_of_event(self, raw: RawRecord) -> Label | DeadLetter:
        """Only the label inside the event in `raw`, for one that was refused while the event itself was taken."""
        event = self.event(raw)
        if isinstance(event, DeadLetter):
            return replace(event, kind="label")
        if event.label is None:
            missing = Unusable("missing_field", f"field {self._section.fields.label!r} is absent or null")
            return event.refused_label or replace(_dead_letter(raw, self._feed, missing), kind="label")
        return Label(
            event_id=event.event_id,
            feed=self._feed,
            label=event.label,
            labelled_at=event.labelled_at,
            labeller=None,
            position=raw.position,
            value=raw.value,
        )

    def label(self, raw: RawRecord) -> Label | DeadLetter:
        """The label in `raw` (fields id, label, timestamp, labeller, never mapped), or why there is none."""
        try:
            fields = Fields(_parse(_value(raw)))
            labelled_at, fell_back = _moment(fields, "timestamp", WRITTEN_BY_US, raw.timestamp)
            return Label(
                event_id=fields.required_id("id"),
                feed=self._feed,
                label=fields.required_label("label", self._labels),
                labelled_at=labelled_at,
                labeller=labeller_name(fields.name("labeller")),
                position=raw.position,
                value=raw.value,
                time_fell_back=fell_back,
                repeated=fields.flag(REPEATED),
            )
        except Unusable as problem:
            return _dead_letter(raw, self._feed, problem)

    def prediction(self, raw: RawRecord) -> Prediction | DeadLetter:
        """The prediction in `raw`, or why there is none. Its label may be None at version 0 only, and is without a
        pulse."""
        try:
            return self._prediction(raw, Fields(_parse(_value(raw))))
        except Unusable as problem:
            return _dead_letter(raw, self._feed, problem)

    def _event(self, raw: RawRecord, value: bytes) -> Event:
        names = self._section.fields
        document = _parse(value)
        fields = Fields(document)
        label, refused = self._own_label(raw, fields)
        occurred_at, fell_back = _moment(fields, names.timestamp, self._event_times, raw.timestamp)
        return Event(
            event_id=fields.id(names.id) or str(raw.position),
            feed=self._feed,
            text=_cleaned(fields.required_text(names.text), self._section.max_text_bytes),
            occurred_at=occurred_at,
            source=_cut(fields.name(names.source)),
            position=raw.position,
            label=label,
            labelled_at=occurred_at if label is not None else None,
            collected=document.get(COLLECTED) is True,
            value=raw.value,
            refused_label=refused,
            time_fell_back=fell_back,
        )

    def _own_label(self, raw: RawRecord, fields: Fields) -> tuple[str | None, DeadLetter | None]:
        """The label inside an event, and why it cannot be used, if so."""
        try:
            return fields.label(self._section.fields.label, self._labels), None
        except Unusable as problem:
            return None, replace(_dead_letter(raw, self._feed, problem), kind="label")

    def _text_event(self, raw: RawRecord, value: bytes) -> Event:
        try:
            text = value.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unusable("undecodable", f"not UTF-8 at byte {error.start}") from None
        return Event(
            event_id=str(raw.position),
            feed=self._feed,
            text=_cleaned(text, self._section.max_text_bytes),
            occurred_at=raw.timestamp,
            source=None,
            position=raw.position,
            value=raw.value,
        )

    def _prediction(self, raw: RawRecord, fields: Fields) -> Prediction:
        version = fields.count("adapter_version")
        pulse = fields.count("pulse") if fields.has("pulse") else 0
        predicted_at, fell_back = _moment(fields, "timestamp", WRITTEN_BY_US, raw.timestamp)
        if predicted_at is None:
            reason, what = ("bad_timestamp", "no time that can be read") if fell_back else ("missing_field", "absent")
            raise Unusable(reason, f"field 'timestamp' is {what}")
        return Prediction(
            event_id=fields.required_id("id"),
            feed=self._feed,
            label=self._served_label(fields, version, pulse),
            scores=fields.scores("scores"),
            adapter_version=version,
            replica=fields.required_id("replica"),
            predicted_at=predicted_at,
            position=raw.position,
            occurred_at=_moment(fields, "event_timestamp", WRITTEN_BY_US, None)[0],
            source=_extra_name(fields, "source"),
            text_sha256=_extra_name(fields, "text_sha256"),
            time_fell_back=fell_back,
            pulse=pulse,
            feature=fields.packed("feature", MAX_FEATURE_BYTES),
        )

    def _served_label(self, fields: Fields, version: int, pulse: int) -> str | None:
        label = fields.served_label("label", self._labels)
        if label is None and version > 0:
            raise Unusable("missing_field", "field 'label' is absent or null, which only version 0 answers")
        if label is not None and version == pulse == 0:
            raise Unusable("wrong_type", "field 'label' must be null at version 0 without a pulse")
        return label


def encode_event(
    event_id: str,
    text: str,
    label: str | None = None,
    timestamp: datetime | None = None,
    source: str | None = None,
    fields: FieldsConfig = DEFAULT_FIELDS,
    collected: bool = False,
) -> Outgoing:
    """An event as JSON under the mapped field names (dots nest), without what is None. The key is the event's id."""
    document: dict[str, Any] = {}
    put_field(document, fields.id, event_id)
    put_field(document, fields.text, text)
    put_field(document, fields.label, label)
    put_field(document, fields.timestamp, iso(timestamp) if timestamp else None)
    put_field(document, fields.source, source)
    if collected:
        document[COLLECTED] = True
    return _outgoing(event_id, document)


def encode_label(
    event_id: str, label: str, timestamp: datetime | None, labeller: str | None, *, repeated: bool = False
) -> Outgoing:
    """A label as JSON, without what is None. The key is the event's id."""
    document = {
        "id": event_id,
        "label": label,
        "timestamp": iso(timestamp) if timestamp else None,
        "labeller": labeller,
        REPEATED: True if repeated else None,
    }
    return _outgoing(event_id, {name: value for name, value in document.items() if value is not None})


def encode_prediction(prediction: Prediction) -> Outgoing:
    """A prediction as JSON; `label` is null at version 0, what the event does not have is left out. The key is the
    event's id."""
    document = {
        "id": prediction.event_id,
        "label": prediction.label,
        "scores": prediction.scores,
        "adapter_version": prediction.adapter_version,
        "replica": prediction.replica,
        "timestamp": iso(prediction.predicted_at),
    }
    extra = {
        "event_timestamp": iso(prediction.occurred_at) if prediction.occurred_at else None,
        "source": prediction.source,
        "text_sha256": prediction.text_sha256,
        "pulse": prediction.pulse or None,
        "feature": None if prediction.feature is None else b64encode(prediction.feature).decode("ascii"),
    }
    document |= {name: value for name, value in extra.items() if value is not None}
    return _outgoing(prediction.event_id, document)


def _value(raw: RawRecord) -> bytes:
    if raw.skipped_bytes is not None:
        size = f"the record has {raw.skipped_bytes:,} bytes, more than ingest.max_record_bytes"
        raise Unusable("record_too_large", f"{size}; they are not kept")
    if raw.value is None:
        raise Unusable("tombstone", "the record has no value")
    return raw.value


def _parse(value: bytes) -> dict[str, Any]:
    document = _parse_json(value.removeprefix(BYTE_ORDER_MARK))
    if not isinstance(document, dict):
        raise Unusable("wrong_type", "the value is JSON, but not an object")
    return document


def _parse_json(value: bytes) -> Any:
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):
        pass
    try:  # slower, and tolerates NaN and lone surrogates, which Python's own json writes
        return json.loads(value.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Unusable("undecodable", f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise Unusable("undecodable", f"not JSON at character {error.pos}: {error.msg}") from None
    except (ValueError, RecursionError):
        raise Unusable("undecodable", "JSON nested too deep, or a number with too many digits") from None


def _moment(fields: Fields, path: str, times: TimeFormat, otherwise: datetime | None) -> tuple[datetime | None, bool]:
    """The record's time, and whether one was there and could not be read: then, or without one, it is `otherwise`."""
    try:
        return fields.moment(path, times) or otherwise, False
    except Unusable:
        return otherwise, True


def _extra_name(fields: Fields, path: str) -> str | None:
    """A name that nothing depends on: None where it cannot be read."""
    try:
        return _cut(fields.name(path))
    except Unusable:
        return None


def _cleaned(text: str, max_bytes: int) -> str:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise Unusable("text_too_long", f"the text has {size} bytes, max_text_bytes is {max_bytes}")
    cleaned = clean_text(text)
    if not cleaned:
        raise Unusable("empty_text", "nothing is left of the text after cleaning")
    return cleaned


def labeller_name(name: str | None) -> str | None:
    """A labeller as it is compared and kept."""
    return _cut(name)


def text_sha256(cleaned: str) -> str:
    """What predictions carry of a cleaned text: hex digits over its UTF-8."""
    return hashlib.sha256(cleaned.encode("utf-8", "surrogatepass")).hexdigest()


def _cut(name: str | None) -> str | None:
    """Without NULs, where databases and C cut strings, and of at most 256 characters; None if nothing is left."""
    return (name.replace("\0", "")[:MAX_SOURCE_CHARACTERS] or None) if name else None


def _dead_letter(raw: RawRecord, feed: str, problem: Unusable) -> DeadLetter:
    return DeadLetter(
        feed=feed, reason=problem.reason, detail=problem.detail, position=raw.position, value=raw.value or b""
    )


def put_field(document: dict[str, Any], path: str, value: str | None) -> None:
    """Set a field at a dotted path, making the objects on the way (null counts as absent); None sets nothing."""
    if value is None:
        return
    *parents, last = path.split(".")
    for part in parents:
        if document.get(part) is None:
            document[part] = {}
        document = document[part]
    document[last] = value


def _outgoing(event_id: str, document: dict[str, Any]) -> Outgoing:
    key = event_id.encode("utf-8", "replace")
    try:
        return Outgoing(value=msgspec.json.encode(document), key=key)
    except UnicodeEncodeError:  # half of a surrogate pair: write it escaped, as Python's json does
        return Outgoing(value=json.dumps(document).encode("ascii"), key=key)
