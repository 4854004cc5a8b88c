"""Bytes on topics ⇄ records (DESIGN §2). Pure.

Guards: no content of a value, a key or a mapped field makes a decoder raise; what cannot be used comes back as a
`DeadLetter` with a reason of `driftline.names.DEAD_LETTER_REASONS` and the original bytes. Details name fields and
types and never quote what users wrote. The same raw record always decodes to the same event, in every process.

Covered: UTF-8 JSON objects (a byte-order mark, NaN in unused fields and halves of surrogate pairs are tolerated),
plain text, tombstones, nested fields. Not covered: schema registries, Avro, other character sets.
"""

import json
from datetime import datetime
from typing import Any

import msgspec

from driftline.config import FeedConfig, FieldsConfig
from driftline.records import DeadLetter, Event, Label, Prediction, RawRecord, iso
from driftline.topics import Outgoing
from driftline.topics.fields import Fields, Unusable
from driftline.topics.text import clean_text

__all__ = [
    "COLLECTED",
    "clean_text",
    "decode_event",
    "decode_label",
    "decode_prediction",
    "encode_event",
    "encode_label",
    "encode_prediction",
    "put_field",
]

COLLECTED = "driftline_collected"
MAX_SOURCE_CHARACTERS = 256
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DEFAULT_FIELDS = FieldsConfig()


def decode_event(raw: RawRecord, feed: str, section: FeedConfig) -> Event | DeadLetter:
    """The event in `raw`, its text cleaned, or why there is none.

    An event without id gets its position as id; one without timestamp gets the record's (None in a topic file). A
    source beyond 256 characters is cut.
    """
    try:
        value = _value(raw)
        return _text_event(raw, value, feed, section) if section.format == "text" else _event(raw, value, feed, section)
    except Unusable as problem:
        return _dead_letter(raw, feed, problem)


def decode_label(raw: RawRecord, feed: str, section: FeedConfig) -> Label | DeadLetter:
    """The label in `raw` (fields id, label, timestamp, labeller, never mapped), or why there is none."""
    try:
        fields = Fields(_parse(_value(raw)))
        return Label(
            event_id=fields.required_id("id"),
            feed=feed,
            label=fields.required_label("label", section.labels),
            labelled_at=fields.moment("timestamp") or raw.timestamp,
            labeller=_cut(fields.name("labeller")),
            position=raw.position,
            value=raw.value,
        )
    except Unusable as problem:
        return _dead_letter(raw, feed, problem)


def decode_prediction(raw: RawRecord, feed: str, section: FeedConfig) -> Prediction | DeadLetter:
    """The prediction in `raw`, or why there is none. Its label is None at version 0, and only there."""
    try:
        fields = Fields(_parse(_value(raw)))
        version = fields.count("adapter_version")
        predicted_at = fields.moment("timestamp") or raw.timestamp
        if predicted_at is None:
            raise Unusable("missing_field", "field 'timestamp' is absent")
        return Prediction(
            event_id=fields.required_id("id"),
            feed=feed,
            label=_served_label(fields, version, section.labels),
            scores=fields.scores("scores"),
            adapter_version=version,
            replica=fields.required_id("replica"),
            predicted_at=predicted_at,
            position=raw.position,
        )
    except Unusable as problem:
        return _dead_letter(raw, feed, problem)


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


def encode_label(event_id: str, label: str, timestamp: datetime | None, labeller: str | None) -> Outgoing:
    """A label as JSON, without what is None. The key is the event's id."""
    document = {
        "id": event_id,
        "label": label,
        "timestamp": iso(timestamp) if timestamp else None,
        "labeller": labeller,
    }
    return _outgoing(event_id, {name: value for name, value in document.items() if value is not None})


def encode_prediction(prediction: Prediction) -> Outgoing:
    """A prediction as JSON; `label` is null at version 0. The key is the event's id."""
    document = {
        "id": prediction.event_id,
        "label": prediction.label,
        "scores": prediction.scores,
        "adapter_version": prediction.adapter_version,
        "replica": prediction.replica,
        "timestamp": iso(prediction.predicted_at),
    }
    return _outgoing(prediction.event_id, document)


def _value(raw: RawRecord) -> bytes:
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


def _event(raw: RawRecord, value: bytes, feed: str, section: FeedConfig) -> Event:
    names = section.fields
    document = _parse(value)
    fields = Fields(document)
    label = fields.label(names.label, section.labels)
    occurred_at = fields.moment(names.timestamp) or raw.timestamp
    return Event(
        event_id=fields.id(names.id) or str(raw.position),
        feed=feed,
        text=_cleaned(fields.required_text(names.text), section.max_text_bytes),
        occurred_at=occurred_at,
        source=_cut(fields.name(names.source)),
        position=raw.position,
        label=label,
        labelled_at=occurred_at if label is not None else None,
        collected=document.get(COLLECTED) is True,
        value=raw.value,
    )


def _text_event(raw: RawRecord, value: bytes, feed: str, section: FeedConfig) -> Event:
    try:
        text = value.removeprefix(BYTE_ORDER_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unusable("undecodable", f"not UTF-8 at byte {error.start}") from None
    return Event(
        event_id=str(raw.position),
        feed=feed,
        text=_cleaned(text, section.max_text_bytes),
        occurred_at=raw.timestamp,
        source=None,
        position=raw.position,
        value=raw.value,
    )


def _cleaned(text: str, max_bytes: int) -> str:
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise Unusable("text_too_long", f"the text has {size} bytes, max_text_bytes is {max_bytes}")
    cleaned = clean_text(text)
    if not cleaned:
        raise Unusable("empty_text", "nothing is left of the text after cleaning")
    return cleaned


def _served_label(fields: Fields, version: int, labels: tuple[str, ...]) -> str | None:
    label = fields.label("label", labels)
    if label is None and version > 0:
        raise Unusable("missing_field", "field 'label' is absent or null, which only version 0 answers")
    if label is not None and version == 0:
        raise Unusable("wrong_type", "field 'label' must be null at version 0")
    return label


def _cut(name: str | None) -> str | None:
    return name[:MAX_SOURCE_CHARACTERS] if name else None


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
