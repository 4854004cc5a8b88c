"""The greatest number of each feed that this replica has seen, on disk: how it notices a registry that lost data, or
that somebody set back. Revisions of live records are such numbers, and pulses, which count on over all epochs.

Atomicity: the file is replaced whole, after fsync. Idempotency: noting a smaller number changes nothing.
Errors: a file that cannot be written is logged; the numbers are then remembered until the process ends.
"""

import os
from pathlib import Path

import msgspec
import structlog

log = structlog.get_logger()


class SeenNumbers:
    """One file per kind of number, process role and replica, so that no two threads or processes write the same one.
    One thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = _read(path)

    def of(self, feed: str) -> int:
        """The greatest that was noted; 0 before the first."""
        return self._seen.get(feed, 0)

    def note(self, feed: str, number: int) -> None:
        """Remember it, if it is greater."""
        if number <= self.of(feed):
            return
        self._seen[feed] = number
        try:
            _write(self.path, msgspec.json.encode(self._seen))
        except OSError as error:
            log.error("seen_numbers_not_written", feed=feed, path=str(self.path), error=error.strerror)


def _read(path: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        log.error("seen_numbers_unreadable", path=str(path), error=str(error))
        return {}


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
