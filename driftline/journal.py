"""The journal: what happened, from every process, in one capped Redis stream. For people and the dashboard.

Delivery: best effort; an entry that Redis does not take is logged and dropped, so that writing history never stops the
work (the audit is what must not lose anything). Ordering: by arrival. Holds ids and numbers, never the text of users.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import structlog

from driftline.clock import Clock, SystemClock
from driftline.errors import RegistryError
from driftline.names import Keys
from driftline.records import iso, utc
from driftline.registry.client import Client

__all__ = ["Journal", "JournalEntry"]

MAX_ENTRIES = 10_000
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One thing that happened. `entry_id` rises; `fields` are JSON values."""

    entry_id: str
    kind: str
    at: datetime
    fields: dict[str, Any]


class Journal:
    """Append and read. The newest 10,000 entries (about) are kept."""

    def __init__(self, client: Client, keys: Keys, clock: Clock | None = None) -> None:
        self._client: Any = client  # redis-py types replies as unions over every decoding mode
        self._key = keys.journal()
        self._clock = clock or SystemClock()

    def append(self, kind: str, **fields: Any) -> bool:
        """Write one entry; `fields` must be JSON values, times or records. False if Redis did not take it."""
        entry: Any = {"kind": kind, "at": iso(self._clock.now()), "fields": msgspec.json.encode(fields)}
        try:
            self._client.xadd(self._key, entry, maxlen=MAX_ENTRIES, approximate=True)
        except RegistryError as error:
            log.warning("journal_entry_dropped", kind=kind, error=str(error))
            return False
        return True

    def read(self, count: int = 100) -> list[JournalEntry]:
        """The newest `count` entries, oldest first. RegistryUnavailable."""
        newest = self._client.xrevrange(self._key, count=count)
        return [_entry(entry_id, values) for entry_id, values in reversed(newest)]


def _entry(entry_id: bytes, values: dict[bytes, bytes]) -> JournalEntry:
    return JournalEntry(
        entry_id=entry_id.decode(),
        kind=values[b"kind"].decode(),
        at=utc(values[b"at"].decode()),
        fields=msgspec.json.decode(values[b"fields"]),
    )
