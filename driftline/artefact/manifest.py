"""Signed manifests: canonical JSON, Ed25519 signatures, and whom to trust. Guards DESIGN §3.7, the part without torch.

Covered: a manifest changed by one byte, signed by an unknown key, or not decodable is refused. Documents of older
formats stay as they were signed, and are read as what they say today. Not covered: whether
the signed manifest is the one that was asked for (`Registry.manifest` compares feed and version) and whether the
tensors fit it (`driftline.artefact.weights`).
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from driftline.artefact.parts import BODY, HEAD, TRAINER_STATE
from driftline.config import TrustConfig
from driftline.errors import ArtefactError, ConfigError
from driftline.names import StateFiles
from driftline.records import MANIFEST_FORMAT, Manifest

__all__ = [
    "SignedManifest",
    "Signer",
    "Trust",
    "decode_manifest",
    "decode_signed",
    "encode_manifest",
    "encode_signed",
    "load_or_create_keys",
    "load_trust",
    "own_signer",
]

SIGNING_DOMAIN = b"driftline manifest 1\n"
_json = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedManifest:
    """A manifest's canonical bytes, the Ed25519 signature over them (hex), and which key made it."""

    document: bytes
    signature: str
    key_id: str


class _Header(msgspec.Struct):
    feed: str
    version: int
    format: int = 1


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    document: str
    signature: str
    key_id: str


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical JSON: sorted keys, no blanks, UTF-8, shortest floats. Equal manifests give equal bytes.

    Of today's format only: what an older one says stays in the document that was signed. ArtefactError(not_finite) if a
    number in it is NaN or infinite: JSON has no such thing.
    """
    assert manifest.format == MANIFEST_FORMAT, "an older manifest is passed on as it was signed, never written again"
    in_utc = replace(manifest, created_at=manifest.created_at.astimezone(UTC))
    try:
        document = _json.encode(decode_manifest(_json.encode(in_utc)))
    except ArtefactError:
        raise ArtefactError("not_finite", f"{_name(manifest)}: a number in its manifest is not finite") from None
    if decode_manifest(document) != manifest:
        raise ArtefactError("unreadable", f"{_name(manifest)}: its manifest does not survive encoding; check its types")
    return document


def decode_manifest(document: bytes) -> Manifest:
    """The inverse of `encode_manifest`, exact, also for documents of older formats; `format` tells which. Checks no
    signature. ArtefactError(unreadable) for anything else."""
    try:
        header = msgspec.json.decode(document, type=_Header)
        if header.format <= MANIFEST_FORMAT:
            fields = _with_parts(msgspec.json.decode(document), header.format)
            return msgspec.convert(fields, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
        raise ArtefactError("unreadable", f"the manifest cannot be read: {error}") from None
    raise ArtefactError(
        "unreadable",
        f"version {header.version} of feed {header.feed}: its manifest has format {header.format}, this Driftline "
        f"reads up to {MANIFEST_FORMAT}: use the Driftline that wrote it",
    )


def _with_parts(fields: dict[str, Any], written_in: int) -> dict[str, Any]:
    """The fields as today's document would have them. Before format 3 each of three parts had a field of its own."""
    fields["format"] = written_in
    if written_in < 3:
        named = {name: fields.pop(f"{name}_sha256") for name in (BODY, HEAD, TRAINER_STATE)}
        fields["parts"] = {name: sha256 for name, sha256 in named.items() if sha256 is not None}
    return fields


def encode_signed(signed: SignedManifest) -> bytes:
    """One JSON object that holds document, signature and key id: what the registry and `manifest.json` store."""
    envelope = _Envelope(document=signed.document.decode(), signature=signed.signature, key_id=signed.key_id)
    return _json.encode(envelope)


def decode_signed(data: bytes) -> SignedManifest:
    """The inverse of `encode_signed`. ArtefactError(unreadable)."""
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtefactError("unreadable", f"the signed manifest cannot be read: {error}") from None
    return SignedManifest(document=envelope.document.encode(), signature=envelope.signature, key_id=envelope.key_id)


class Signer:
    """Holds the private key; lives with the learner only."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.public_key = private_key.public_key()
        self.key_id = key_id(self.public_key)

    def sign(self, manifest: Manifest) -> SignedManifest:
        """Encode and sign. Ed25519 is deterministic: the same manifest gives the same signature."""
        document = encode_manifest(manifest)
        signature = self.signature(SIGNING_DOMAIN, document).hex()
        return SignedManifest(document=document, signature=signature, key_id=self.key_id)

    def signature(self, domain: bytes, document: bytes) -> bytes:
        """Over a document of one kind: what is signed as one kind never passes for another."""
        return self._private_key.sign(domain + document)


class Trust:
    """The public keys whose manifests may be served."""

    def __init__(self, public_keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._public_keys = dict(public_keys)

    @classmethod
    def of(cls, *public_keys: Ed25519PublicKey) -> "Trust":
        """Trust exactly these keys."""
        return cls({key_id(key): key for key in public_keys})

    def knows(self, key_id: str) -> bool:
        """Whether what this key signed may be served."""
        return key_id in self._public_keys

    def verify(self, signed: SignedManifest) -> Manifest:
        """The manifest, once its signature holds.

        ArtefactError: untrusted_key, bad_signature, or unreadable (a trusted key signed something we cannot read).
        """
        key = self._key(
            signed.key_id,
            "the manifest is ",
            "; add its public key to trust.public_keys, or import the adapter again and re-sign it",
        )
        try:
            key.verify(bytes.fromhex(signed.signature), SIGNING_DOMAIN + signed.document)
        except (InvalidSignature, ValueError):
            raise ArtefactError("bad_signature", "the manifest was changed after it was signed") from None
        return decode_manifest(signed.document)

    def check(self, domain: bytes, document: bytes, signature: bytes, key_id: str) -> None:
        """Nothing, if a trusted key signed it as one of this kind. ArtefactError: untrusted_key, bad_signature."""
        key = self._key(key_id)
        try:
            key.verify(signature, domain + document)
        except InvalidSignature:
            raise ArtefactError("bad_signature", "it was changed after it was signed, or is of another kind") from None

    def _key(self, key_id: str, what: str = "", remedy: str = "") -> Ed25519PublicKey:
        if key_id not in self._public_keys:
            known = ", ".join(sorted(self._public_keys)) or "none"
            told = f"{what}signed by key {key_id!r:.40}, which is not trusted (trusted: {known}){remedy}"
            raise ArtefactError("untrusted_key", told)
        return self._public_keys[key_id]


def key_id(public_key: Ed25519PublicKey) -> str:
    """First 16 hex digits of the sha256 of the raw public key."""
    raw = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def load_or_create_keys(files: StateFiles) -> Signer:
    """The signing key under the state folder; the first process makes the pair (0600, under flock).

    Atomic: the private key appears complete or not at all. A lost one is never replaced. ConfigError as `own_signer`.
    """
    files.keys_lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(files.keys_lock):
        signer = own_signer(files)
        if signer is None:
            _write_private(files.signing_key, _pem(Ed25519PrivateKey.generate()))
            signer = Signer(_load_private(files.signing_key))
        if not files.public_key.exists():
            _write_private(files.public_key, _public_pem(signer.public_key))
            files.public_key.chmod(0o644)
    return signer


def own_signer(files: StateFiles) -> Signer | None:
    """This installation's signing key; None if it has none yet. Makes nothing.

    ConfigError, each with the remedy: the private key is lost (a public one is there), can be read by others or is no
    Ed25519 key; the public key is no key, or another pair's.
    """
    if not files.signing_key.exists():
        if files.public_key.exists():
            raise ConfigError(
                f"{files.signing_key} is lost, but {files.public_key} is there: restore it; or, to start anew, move "
                f"{files.public_key.name} away: versions signed by the old key must then be imported again with "
                "--re-sign"
            )
        return None
    signer = Signer(_load_private(files.signing_key))
    if files.public_key.exists() and _public_key(files.public_key) != signer.public_key:
        raise ConfigError(
            f"{files.public_key} is not the public key of {files.signing_key.name} beside it: restore the two that "
            f"belong together; if {files.signing_key.name} is the right one, move {files.public_key.name} away and it "
            "is made again"
        )
    return signer


def load_trust(section: TrustConfig, files: StateFiles) -> Trust:
    """The keys named in the config, else this machine's own pair, made if there is none. ConfigError names the file."""
    if section.public_keys:
        return Trust.of(*(_load_public(path) for path in section.public_keys))
    return Trust.of(load_or_create_keys(files).public_key)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_private(path: Path, data: bytes) -> None:
    """0600 from its first byte on, complete or absent. Callers hold the lock, so the draft's name is theirs."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _pem(private_key: Ed25519PrivateKey) -> bytes:
    return private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(public_key: Ed25519PublicKey) -> bytes:
    return public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _load_private(path: Path) -> Ed25519PrivateKey:
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: the signing key can be read by others: chmod 600 {path}")
    try:
        private_key: Any = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        private_key = None
    if not isinstance(private_key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 private key in PEM; restore it, or move both keys away")
    return private_key


def _load_public(path: Path) -> Ed25519PublicKey:
    try:
        public_key = _public_key(path)
    except OSError as error:
        raise ConfigError(f"trust.public_keys: {path} cannot be read ({error.strerror})") from None
    if public_key is None:
        raise ConfigError(f"trust.public_keys: {path} is not an Ed25519 public key in PEM")
    return public_key


def _public_key(path: Path) -> Ed25519PublicKey | None:
    """The key in the file; None if it holds no Ed25519 public key in PEM."""
    try:
        public_key: Any = serialization.load_pem_public_key(path.read_bytes())
    except ValueError:
        return None
    return public_key if isinstance(public_key, Ed25519PublicKey) else None


def _name(manifest: Manifest) -> str:
    return f"version {manifest.version} of feed {manifest.feed}"
