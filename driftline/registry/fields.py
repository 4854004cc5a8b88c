"""How the registry's records look inside Redis: hash fields and stream entries to records, and back. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, cast

import msgspec

from driftline.errors import RegistryError
from driftline.records import AuditEntry, LiveRecord, PublishOutcome, ReplicaStatus, utc

__all__ = [
    "audit_entry",
    "count",
    "damaged",
    "live_record",
    "pairs",
    "publish_outcome",
    "readable",
    "replica_status",
    "replica_value",
    "text_fields",
]

_json = msgspec.json.Encoder()
MOST = 10**9
"""No version and no revision comes near it: a greater one was not counted up to, and must not be remembered as seen."""


def damaged(key: str, what: str, remedy: str = "") -> RegistryError:
    """Something stands in Redis that Driftline did not write; `remedy` beside the one that always helps."""
    first = f"{remedy}; or " if remedy else ""
    return RegistryError(
        f"the Redis key {key} {what}: it was damaged, or another program uses redis.prefix. {first}restore it from the "
        "append-only file or a backup; Driftline goes on by itself once it is mended"
    )


@contextmanager
def readable(key: str) -> Iterator[None]:
    """RegistryError that names the key, where what stands in it cannot be decoded."""
    try:
        yield
    except (ValueError, KeyError, TypeError, msgspec.MsgspecError) as error:
        raise damaged(key, f"cannot be read ({type(error).__name__})") from None


def count(text: str | bytes) -> int:
    """A version or revision. ValueError beyond 0..10⁹."""
    number = int(text)
    if not 0 <= number <= MOST:
        raise ValueError("beyond what can have been counted")
    return number


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A flat field, value, … reply as a mapping."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def text_fields(raw: Mapping[bytes, bytes]) -> dict[str, str]:
    """Decode field names and values."""
    return {name.decode(): value.decode() for name, value in raw.items()}


def live_record(feed: str, raw: Mapping[bytes, bytes]) -> LiveRecord:
    """The live record from its hash; an empty hash is version 0 at revision 0."""
    values = text_fields(raw)
    changed_at = values.get("changed_at")
    return LiveRecord(
        feed=feed,
        version=count(values.get("version", "0")),
        revision=count(values.get("revision", "0")),
        anchor=count(values.get("anchor", "0")),
        paused=values.get("paused") == "1",
        pause_reason=values.get("pause_reason"),
        changed_at=utc(changed_at) if changed_at else None,
        actor=values.get("actor"),
    )


def audit_entry(feed: str, entry_id: bytes, raw: Mapping[bytes, bytes]) -> AuditEntry:
    """One entry of the audit stream."""
    values = text_fields(raw)
    return AuditEntry(
        entry_id=entry_id.decode(),
        feed=feed,
        action=values["action"],
        version=count(values["version"]),
        from_version=count(values["from_version"]),
        revision=count(values["revision"]),
        actor=values["actor"],
        reason=values["reason"],
        at=utc(values["at"]),
    )


def publish_outcome(recorded: bytes) -> PublishOutcome:
    """What the publish script wrote beside the cycle id."""
    values = msgspec.json.decode(recorded)
    status = cast(Literal["promoted", "rejected"], values["status"])
    return PublishOutcome(status=status, version=int(values["version"]), revision=int(values["revision"]))


def replica_value(status: ReplicaStatus) -> bytes:
    """A heartbeat as stored (the script puts the server's time in front)."""
    return _json.encode(status)


def replica_status(value: bytes) -> tuple[int, ReplicaStatus]:
    """(server time in ms, status) of a stored heartbeat. RegistryError if it is none of ours."""
    seen_ms, _, document = value.partition(b" ")
    try:
        return int(seen_ms), msgspec.json.decode(document, type=ReplicaStatus)
    except (ValueError, msgspec.DecodeError):
        raise RegistryError("a replica's heartbeat cannot be read: is redis.prefix used by another program?") from None
