"""Reads events files (JSON lines, gzip or not) as a stream of items with a time that never goes backwards.

What ingest will refuse goes to the topic as it is, so that it is dead-lettered as it would be live: a line that is no
JSON object, an id of the wrong type, a label that is none of the feed's.
"""

import gzip
import itertools
import json
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from driftline.config import FeedConfig
from driftline.errors import UsageError
from driftline.topics import Outgoing
from driftline.topics.codec import COLLECTED, put_field
from driftline.topics.fields import Fields, Unusable
from driftline.topics.labels import LabelNames
from driftline.topics.times import TimeFormat

EPOCH = datetime.min.replace(tzinfo=UTC)
"""Where a replay's clock starts: before any event."""
UNDATED_START = datetime(2000, 1, 1, tzinfo=UTC)
"""The time of a first event that has none."""
LATEST = datetime(9000, 1, 1, tzinfo=UTC)
"""Times beyond (a typing error, then) are taken for this one, so that there is always a next tick."""
LABEL_AT = "label_at"
STEP = timedelta(seconds=1)
PROBED_LINES = 100
"""Of these at least one must be a JSON object, or it is another kind of file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamItem:
    """One line: the event as it goes onto the topic (its label taken out), its time, and the label that comes later.

    `event_id` None: ingest will refuse the event. `label_at` None: the label comes once the event is answered.
    """

    outgoing: Outgoing
    event_id: str | None
    at: datetime
    label: str | None
    label_at: datetime | None

    @property
    def due_at(self) -> datetime:
        """When the label comes, never before the event."""
        return max(self.label_at or self.at, self.at)


def check_events(paths: Sequence[Path]) -> int:
    """How many events the files hold, all of them read to the end: only there a gzip shows that it was cut short.

    UsageError if a file cannot be read or is no JSON lines, or if none of them holds an event.
    """
    found = sum(_check_lines(path) for path in paths)
    if not found:
        raise UsageError(f"no events in {', '.join(map(str, paths))}: name a file with one JSON object a line")
    return found


def _check_lines(path: Path) -> int:
    """How many the file has; blank ones do not count. Some may be dirty, the first too."""
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "no such file"
        raise UsageError(f"{path}: {wrong}: name an events file, JSON lines, gzip or not")
    lines = (line for line in read_lines(path) if line.strip())
    first = list(itertools.islice(lines, PROBED_LINES))
    if first and not any(_object(line) is not None for line in first):
        what = "its only line is not" if len(first) == 1 else f"none of its first {len(first)} lines is"
        raise UsageError(f"{path}: {what} a JSON object: name an events file, one JSON object a line, gzip or not")
    return len(first) + sum(1 for _ in lines)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as probe:
        return probe.read(2) == b"\x1f\x8b"


def read_lines(path: Path) -> Iterator[bytes]:
    """The file's lines without their ends; empty lines are left out. UsageError if it cannot be read."""
    try:
        opener = gzip.open if _is_gzip(path) else open
        with opener(path, "rb") as lines:
            for line in lines:
                if stripped := line.rstrip(b"\r\n"):
                    yield stripped
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be read ({error}): name an events file, JSON lines, gzip or not") from None


def stream_items(paths: Iterable[Path], section: FeedConfig, *, limit: int | None = None) -> Iterator[StreamItem]:
    """All files one after the other. `timestamp` null, absent or unreadable: the previous time + 1 s; never
    backwards."""
    reading = _Reading(section)
    previous: datetime | None = None
    lines = itertools.chain.from_iterable(read_lines(path) for path in paths)
    for number, line in enumerate(itertools.islice(lines, limit), start=1):
        item = reading.item(line, f"line-{number}", previous)
        previous = item.at
        yield item


class _Reading:
    """How the lines of one feed's files are read."""

    def __init__(self, section: FeedConfig) -> None:
        self._fields = section.fields
        self._labels = LabelNames.of(section)
        self._times = TimeFormat(section.fields.timestamp_format)
        self._label_times = TimeFormat()

    def item(self, line: bytes, fallback_id: str, previous: datetime | None) -> StreamItem:
        """One line, after one whose time was `previous`."""
        following = min(previous + STEP, LATEST) if previous else UNDATED_START
        record = _object(line)
        if record is None:
            return StreamItem(outgoing=Outgoing(value=line), event_id=None, at=following, label=None, label_at=None)
        record.pop(COLLECTED, None)  # answered over HTTP when it was recorded; here it is answered like all others
        at = _time(record, self._fields.timestamp, self._times) or following
        label_at = _time(record, LABEL_AT, self._label_times)
        label = self._take_label(record)
        event_id = _id(record, self._fields.id, fallback_id)
        return StreamItem(
            outgoing=Outgoing(value=json.dumps(record).encode()),
            event_id=event_id,
            at=max(at, previous) if previous else at,
            label=label,
            label_at=label_at,
        )

    def _take_label(self, record: dict[str, Any]) -> str | None:
        """The label, taken out of the record since it comes later, on the labels topic. What can be none stays."""
        try:
            label = Fields(record).label(self._fields.label, self._labels)
        except Unusable:
            return None
        if label is not None:
            *parents, last = self._fields.label.split(".")
            for parent in parents:
                record = record[parent]
            del record[last]
        return label


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.removeprefix(BOM_UTF8).decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _id(record: dict[str, Any], path: str, fallback_id: str) -> str | None:
    """The event's id; one is put in where there is none, since the label must name it. None for an unusable one."""
    try:
        found = Fields(record).id(path)
    except Unusable:
        return None
    if found is None:
        put_field(record, path, fallback_id)
    return found or fallback_id


def _time(record: dict[str, Any], path: str, times: TimeFormat) -> datetime | None:
    try:
        found = Fields(record).moment(path, times)
    except Unusable:
        return None
    return min(found, LATEST) if found else None
