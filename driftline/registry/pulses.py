"""Pulses of all feeds in Redis: a bounded stream each, and the snapshot to start from (DESIGN §3.6).

Delivery: what was published stays until a snapshot makes it unnecessary and `kept` later pulses follow it; who missed
some starts from the snapshot. Ordering: by number, without holes; a pulse stands in the stream as `<number>-0`.
Atomicity: a pulse is one script; a snapshot's blob comes first and is invisible until the script names it. Idempotency:
by number and bytes. Errors: LeaseLost (another process keeps the feed's fast clock by now), PulseGap,
RegistryUnavailable.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from driftline.errors import ArtefactError, LeaseLost, PulseGap
from driftline.names import Keys
from driftline.registry.client import Client, run_script
from driftline.registry.fields import count, readable
from driftline.registry.lease import Lease

__all__ = ["Pulses", "Stored"]

MAX_WAIT_S = 4.0
READ_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What there is of a feed: the newest pulse's number (0: none ever), and the sealed snapshot to start from."""

    number: int = 0
    snapshot: bytes | None = None


class Pulses:
    """Reads and writes sealed bytes; signatures are checked by who takes them over (`driftline.artefact.pulse`)."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client: Any = client  # redis-py types replies as unions over every decoding mode
        self._keys = keys

    def publish(self, feed: str, number: int, sealed: bytes, *, lease: Lease) -> bool:
        """Append the pulse `number`; False if it is there already, byte for byte, as the newest.

        PulseGap if it is not the next one: Redis lost the last ones or holds some that are not this clock's, and the
        way on is a snapshot.
        """
        status, *rest = self._run("publish_pulse", feed, lease, [], number, sealed)
        if status == b"gap":
            raise PulseGap(f"feed {feed}: Redis is at pulse {rest[0].decode()}, so {number} is not the next")
        return bool(status == b"done")

    def put_snapshot(
        self, feed: str, number: int, sealed: bytes, state: str, *, kept: int, lease: Lease, in_place: bool = False
    ) -> None:
        """Name the snapshot of the state after the pulse `number`, whose bytes are the blob `state`.

        The last `kept` pulses stay beside it, for replicas that are a little behind. `in_place`: that pulse will not be
        published, and all pulses that are there go. ArtefactError(missing_blob): put the blob again.
        """
        blobs = [self._keys.blobs(feed), self._keys.blob(feed, state)]
        reply = self._run("publish_snapshot", feed, lease, blobs, number, sealed, state, kept, int(in_place))
        if reply[0] == b"missing_blob":
            raise ArtefactError("missing_blob", f"feed {feed}: the snapshot {state[:12]} is not in the registry")

    def stored(self, feed: str) -> Stored:
        """The newest number and the snapshot. RegistryError where they cannot be read."""
        raw = self._client.hgetall(self._keys.fast(feed))
        with readable(self._keys.fast(feed)):
            return Stored(number=count(raw.get(b"number", b"0")), snapshot=raw.get(b"snapshot"))

    def snapshot(self, feed: str) -> bytes | None:
        """The sealed snapshot alone, whatever the number beside it looks like."""
        found = self._client.hget(self._keys.fast(feed), "snapshot")
        return None if found is None else bytes(found)

    def newest_first(self, feed: str) -> Iterator[bytes]:
        """Whatever stands as a pulse, sealed, from the newest on: for who does not believe the numbers."""
        before = "+"
        while found := self._client.xrevrange(self._keys.pulses(feed), before, "-", READ_AT_ONCE):
            yield from (bytes(fields[b"pulse"]) for _, fields in found if b"pulse" in fields)
            before = f"({found[-1][0].decode()}"

    def snapshot_blob(self, feed: str) -> str | None:
        """The blob that the snapshot needs, for who collects what nobody needs."""
        name = self._client.hget(self._keys.fast(feed), "blob")
        with readable(self._keys.fast(feed)):
            return None if name is None else name.decode("ascii")

    def after(self, feed: str, number: int) -> list[tuple[int, bytes]]:
        """(number, sealed pulse) of the pulses after `number` that are there, rising, 16 at most."""
        found = self._client.xrange(self._keys.pulses(feed), f"({number}-0", "+", READ_AT_ONCE)
        with readable(self._keys.pulses(feed)):
            return [_entry(one) for one in found]

    def wait(self, numbers: Mapping[str, int], timeout_s: float) -> set[str]:
        """The feeds that have a pulse after the given number, as soon as there is one; none after the time (4 s at
        most). A hint only."""
        feed_of = {self._keys.pulses(feed).encode(): feed for feed in numbers}
        streams: Any = {self._keys.pulses(feed): f"{number}-0" for feed, number in numbers.items()}
        block_ms = max(1, int(min(timeout_s, MAX_WAIT_S) * 1000))
        reply = self._client.xread(streams, count=1, block=block_ms) if streams else []
        return {feed_of[stream] for stream, _ in reply}

    def _run(self, script: str, feed: str, lease: Lease, more: list[str], *args: str | bytes | int) -> Any:
        """The script's answer, under the lease's fence."""
        keys = [self._keys.fence(feed, lease.name), self._keys.fast(feed), self._keys.pulses(feed), *more]
        reply = run_script(self._client, script, keys, lease.fence, *args)
        if reply[0] == b"lease_lost":
            raise LeaseLost(f"feed {feed}: another process keeps its fast clock by now; this one must not publish")
        return reply


def _entry(found: tuple[bytes, Mapping[bytes, bytes]]) -> tuple[int, bytes]:
    entry_id, fields = found
    return count(entry_id.partition(b"-")[0]), bytes(fields[b"pulse"])
