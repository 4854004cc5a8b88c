"""Pulses and snapshots as signed bytes (DESIGN §2). Guards that a replica takes over what a trusted key signed, only.

Covered: a changed byte, an unknown key, a manifest or a snapshot passed off as a pulse. Not covered: whether a pulse
comes in its place: whoever applies it compares `before` with the `mark` of the one it has.
"""

import hashlib
from typing import TypeVar

import msgspec

from driftline.artefact.manifest import Signer, Trust
from driftline.errors import ArtefactError
from driftline.records import Pulse, Snapshot

__all__ = ["mark", "open_pulse", "open_snapshot", "seal_pulse", "seal_snapshot"]

T = TypeVar("T", Pulse, Snapshot)
PULSE_DOMAIN = b"driftline pulse 1\n"
SNAPSHOT_DOMAIN = b"driftline snapshot 1\n"
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class _Sealed(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    document: bytes
    signature: bytes
    key_id: str


def mark(pulse: Pulse) -> bytes:
    """The sha256 of the pulse's document: by it the next one names it, and so on back to the epoch's beginning."""
    return hashlib.sha256(_encode(pulse)).digest()


def seal_pulse(pulse: Pulse, signer: Signer) -> bytes:
    """The pulse with its signature. Equal pulses and keys give equal bytes."""
    return _seal(pulse, PULSE_DOMAIN, signer)


def open_pulse(data: bytes, trust: Trust) -> Pulse:
    """The pulse, once its signature holds. ArtefactError: unreadable, untrusted_key, bad_signature."""
    return _open(data, PULSE_DOMAIN, trust, Pulse)


def seal_snapshot(snapshot: Snapshot, signer: Signer) -> bytes:
    """As `seal_pulse`."""
    return _seal(snapshot, SNAPSHOT_DOMAIN, signer)


def open_snapshot(data: bytes, trust: Trust) -> Snapshot:
    """As `open_pulse`."""
    return _open(data, SNAPSHOT_DOMAIN, trust, Snapshot)


def _seal(record: Pulse | Snapshot, domain: bytes, signer: Signer) -> bytes:
    document = _encode(record)
    return _encode(_Sealed(document, signer.signature(domain, document), signer.key_id))


def _open(data: bytes, domain: bytes, trust: Trust, kind: type[T]) -> T:
    try:
        sealed = msgspec.msgpack.decode(data, type=_Sealed)
        trust.check(domain, sealed.document, sealed.signature, sealed.key_id)
        return msgspec.msgpack.decode(sealed.document, type=kind)
    except msgspec.DecodeError as error:
        raise ArtefactError("unreadable", f"no {kind.__name__.lower()} of ours: {error}") from None
