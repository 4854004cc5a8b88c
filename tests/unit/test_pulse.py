"""Pulses and snapshots as signed bytes: what comes back, and what is refused."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from driftline.artefact.manifest import Signer, Trust
from driftline.artefact.pulse import mark, open_pulse, open_snapshot, seal_pulse, seal_snapshot
from driftline.errors import ArtefactError
from driftline.records import Pulse, Snapshot

SIGNER, STRANGER = Signer(Ed25519PrivateKey.generate()), Signer(Ed25519PrivateKey.generate())
TRUST = Trust.of(SIGNER.public_key)
PULSE = Pulse(feed="r", epoch="e", number=7, before=b"\x00\xff", last_seq=90, fell_back=False, change=b"\x01" * 40)
SNAPSHOT = Snapshot(
    feed="r", epoch="e", number=7, mark=mark(PULSE), last_seq=90, fell_back=True, labels=("a", "ä"), sha256="0" * 64
)
OTHERS: list[dict[str, Any]] = [
    {"feed": "s"},
    {"epoch": "f"},
    {"number": 8},
    {"before": b""},
    {"last_seq": 91},
    {"fell_back": True},
    {"change": b""},
]


def refused(data: bytes) -> str:
    with pytest.raises(ArtefactError) as caught:
        open_pulse(data, TRUST)
    return caught.value.code


def test_what_was_sealed_comes_back() -> None:
    assert open_pulse(seal_pulse(PULSE, SIGNER), TRUST) == PULSE
    assert open_snapshot(seal_snapshot(SNAPSHOT, SIGNER), TRUST) == SNAPSHOT
    assert seal_pulse(PULSE, SIGNER) == seal_pulse(replace(PULSE), SIGNER)


def test_every_changed_byte_is_seen() -> None:
    sealed = seal_pulse(PULSE, SIGNER)
    for place in range(len(sealed)):
        data = bytearray(sealed)
        data[place] ^= 1
        assert refused(bytes(data)) in {"bad_signature", "untrusted_key", "unreadable"}


@pytest.mark.parametrize("data", [b"", b"\xc1", seal_pulse(PULSE, SIGNER)[:-1], msgspec.msgpack.encode([1, 2, 3])])
def test_what_is_no_pulse_is_unreadable(data: bytes) -> None:
    assert refused(data) == "unreadable"


def test_a_strangers_pulse_is_refused() -> None:
    assert refused(seal_pulse(PULSE, STRANGER)) == "untrusted_key"


def test_a_snapshot_does_not_pass_for_a_pulse() -> None:
    assert refused(seal_snapshot(SNAPSHOT, SIGNER)) == "bad_signature"


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: next(iter(other)))
def test_the_mark_tells_pulses_apart(other: dict[str, Any]) -> None:
    assert mark(replace(PULSE, **other)) != mark(PULSE)
