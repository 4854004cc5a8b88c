"""Reads events files (JSON lines, gzip or not) as a stream of items with a time that never goes backwards.

A line that is no JSON object goes to the topic as it is, so that ingest dead-letters it as it would live.
"""

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from driftline.config import FieldsConfig
from driftline.errors import UsageError
from driftline.topics import Outgoing
from driftline.topics.codec import put_field
from driftline.topics.fields import Fields, Unusable

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamItem:
    """One line: the event as it goes onto the topic (its label taken out), its time, and the label that comes later."""

    outgoing: Outgoing
    event_id: str | None
    at: datetime
    label: str | None
    label_at: datetime | None


def read_lines(path: Path) -> Iterator[bytes]:
    """The file's lines without their ends; empty lines are left out. UsageError if it cannot be read."""
    try:
        with path.open("rb") as probe:
            opener = gzip.open if probe.read(2) == b"\x1f\x8b" else open
        with opener(path, "rb") as lines:
            for line in lines:
                if stripped := line.rstrip(b"\r\n"):
                    yield stripped
    except (OSError, EOFError) as error:
        raise UsageError(f"{path}: cannot be read ({error}): name an events file, JSON lines, gzip or not") from None


def stream_items(paths: Iterable[Path], fields: FieldsConfig, *, limit: int | None = None) -> Iterator[StreamItem]:
    """All files one after the other. `timestamp` null or absent: the previous time + 1 s."""
    previous: datetime | None = None
    lines = ((path, number, line) for path in paths for number, line in enumerate(read_lines(path), start=1))
    for path, number, line in itertools.islice(lines, limit):
        item = _item(line, f"{path.name.split('.')[0]}-{number}", fields, previous)
        previous = item.at
        yield item


def _item(line: bytes, fallback_id: str, fields: FieldsConfig, previous: datetime | None) -> StreamItem:
    following = previous + timedelta(seconds=1) if previous else EPOCH
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        return StreamItem(outgoing=Outgoing(value=line), event_id=None, at=following, label=None, label_at=None)
    at = _time(record, fields.timestamp) or following
    label_at = _time(record, "label_at")
    label = _take_label(record, fields.label)
    event_id = _name(record, fields.id) or fallback_id
    put_field(record, fields.id, event_id)
    return StreamItem(
        outgoing=Outgoing(value=json.dumps(record).encode()),
        event_id=event_id,
        at=max(at, previous) if previous else at,
        label=label,
        label_at=label_at,
    )


def _take_label(record: dict[str, Any], path: str) -> str | None:
    """The label as its text; it is taken out of the record, since it comes later, on the labels topic."""
    *parents, last = path.split(".")
    for parent in parents:
        inner = record.get(parent)
        if not isinstance(inner, dict):
            return None
        record = inner
    label = record.pop(last, None)
    return None if label is None else str(label)


def _time(record: dict[str, Any], path: str) -> datetime | None:
    try:
        return Fields(record).moment(path)
    except Unusable:
        return None


def _name(record: dict[str, Any], path: str) -> str | None:
    try:
        return Fields(record).name(path)
    except Unusable:
        return None
