"""How the registry's records look inside Redis: hash fields and stream entries to records, and back. Pure."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import msgspec

from driftline.errors import RegistryError
from driftline.records import AuditEntry, LiveRecord, PublishOutcome, ReplicaStatus, utc

__all__ = ["audit_entry", "live_record", "pairs", "publish_outcome", "replica_status", "replica_value", "text_fields"]

_json = msgspec.json.Encoder()


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
        version=int(values.get("version", 0)),
        revision=int(values.get("revision", 0)),
        anchor=int(values.get("anchor", 0)),
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
        version=int(values["version"]),
        from_version=int(values["from_version"]),
        revision=int(values["revision"]),
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
