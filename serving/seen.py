"""The newest revision of each feed that this replica has seen, on disk: how it notices a registry that lost data.

Atomicity: the file is replaced whole, after fsync. Idempotency: noting an older revision changes nothing.
Errors: a file that cannot be written is logged; the revisions are then remembered until the process ends.
"""

import os
from pathlib import Path

import msgspec
import structlog

from driftline.records import LiveRecord
from driftline.registry import check_not_lost

log = structlog.get_logger()


class SeenRevisions:
    """One file per process role and replica, so that no two processes write the same one. One thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _read(path)

    def check(self, live: LiveRecord) -> None:
        """RegistryLost, with the remedy, if the live record is older than one seen before."""
        check_not_lost(live, self._seen.get(live.feed, 0))

    def note(self, live: LiveRecord) -> None:
        """Remember a live record's revision."""
        if live.revision <= self._seen.get(live.feed, 0):
            return
        self._seen[live.feed] = live.revision
        try:
            _write(self._path, msgspec.json.encode(self._seen))
        except OSError as error:
            log.error("seen_revisions_not_written", feed=live.feed, path=str(self._path), error=error.strerror)


def _read(path: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        log.error("seen_revisions_unreadable", path=str(path), error=str(error))
        return {}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
