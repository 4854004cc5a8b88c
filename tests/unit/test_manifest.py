"""Signed manifests: exact round trip, canonical bytes, and that nothing altered or unknown is believed."""

import json
import stat
import subprocess
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from driftline.artefact.manifest import (
    SIGNING_DOMAIN,
    SignedManifest,
    Signer,
    Trust,
    decode_manifest,
    decode_signed,
    encode_manifest,
    encode_signed,
    load_or_create_keys,
    load_trust,
    own_signer,
)
from driftline.artefact.probe import PROBE_TEXTS
from driftline.config import TrustConfig
from driftline.errors import ArtefactError, ConfigError
from driftline.figures import Figures, Recall
from driftline.names import StateFiles
from driftline.records import MANIFEST_FORMAT, ExampleRanges, GateDecision, GateReason, Manifest, Probe

POOLED = Figures(accuracy=1 / 3, n=120, macro_f1=0.25, recall={"a": Recall(recall=1 / 3, n=120)})


def full_manifest() -> Manifest:
    """Every field set to something that is hard to keep: odd floats, other scripts, quotes, microseconds."""
    reason = GateReason(
        code="not_worse",
        holds=True,
        against="incumbent",
        reference="segment:3",
        n=200,
        candidate_accuracy=0.1 + 0.2,
        reference_accuracy=2 / 3,
        p_value=1e-300,
        detail='a "quoted" ü 日本 👍🏽 \\ / \u2028',
    )
    return Manifest(
        feed="reviews",
        version=7,
        parent=6,
        cycle_id="c-7",
        parts={"head": "b" * 64, "body": "a" * 64, "another": "c" * 64},
        base_fingerprint="f" * 64,
        task="classification",
        labels=("negativ", "neutral", "très bien"),
        rank=8,
        alpha=16.0,
        target_modules=("encoder.layer.0.attention.self.query",),
        max_tokens=64,
        pooling="mean",
        config_sha256="c" * 64,
        seed=2**62,
        threads=2,
        libraries={"torch": "2.15.0", "numpy": "2"},
        examples=ExampleRanges(fresh=((1, 250), (260, 260)), replayed=()),
        fresh_examples=251,
        replayed_examples=0,
        evaluation={"pooled": POOLED, "recent": Figures(accuracy=1.0, n=50)},
        decision=GateDecision(promote=True, reasons=(reason,), becomes_anchor=True),
        probe=Probe(logits=tuple((0.1 * i, -3.4028234663852886e38, 5e-324) for i in range(8))),
        created_at=datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC),
        imported_from=None,
    )


@pytest.fixture
def signer() -> Signer:
    return Signer(Ed25519PrivateKey.generate())


def test_round_trip_is_exact() -> None:
    manifest = full_manifest()
    document = encode_manifest(manifest)
    assert decode_manifest(document) == manifest
    assert encode_manifest(decode_manifest(document)) == document


def test_the_document_is_canonical_json() -> None:
    """Independent oracle: Python's own JSON module, sorted and compact, reads and writes the same text."""
    document = encode_manifest(full_manifest()).decode()
    pairs = json.loads(document)
    assert list(pairs) == sorted(field.name for field in fields(Manifest))
    assert document.count("\n") == 0
    assert ": " not in document.replace(pairs["decision"]["reasons"][0]["detail"], "")


def test_a_manifest_of_format_1_has_no_macro_f1_and_three_fields_for_its_parts() -> None:
    old = json.loads(encode_manifest(full_manifest()))
    for later in ("format", "dtype", "broken_words", "parts"):
        del old[later]
    old |= {"body_sha256": "a" * 64, "head_sha256": "b" * 64, "trainer_state_sha256": None}
    old["evaluation"] = {"pooled": {"accuracy": 0.75, "n": 60.0}}
    manifest = decode_manifest(json.dumps(old).encode())
    assert manifest.evaluation == {"pooled": Figures(accuracy=0.75, n=60)}
    assert (manifest.format, manifest.broken_words, manifest.evaluation["pooled"].macro_f1) == (1, None, None)
    assert manifest.parts == {"body": "a" * 64, "head": "b" * 64}, "an imported one has no trainer state"
    del old["head_sha256"]
    with pytest.raises(ArtefactError, match="head_sha256"):
        decode_manifest(json.dumps(old).encode())


def test_a_newer_format_is_told_whatever_is_in_it() -> None:
    newer = {"format": MANIFEST_FORMAT + 1, "feed": "reviews", "version": 7, "what": "nobody knows"}
    with pytest.raises(ArtefactError, match=f"version 7 of feed reviews: .* format {MANIFEST_FORMAT + 1}, .*wrote it"):
        decode_manifest(json.dumps(newer).encode())


def test_equal_manifests_give_equal_bytes_whatever_their_order_and_number_types() -> None:
    manifest = full_manifest()
    other = replace(
        manifest,
        libraries=dict(reversed(manifest.libraries.items())),
        evaluation={"recent": Figures(n=50.0, accuracy=1), "pooled": replace(POOLED, n=120.0)},
        created_at=manifest.created_at.astimezone(timezone(timedelta(hours=5))),
    )
    assert other == manifest
    assert encode_manifest(other) == encode_manifest(manifest)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    manifest = replace(full_manifest(), probe=Probe(logits=((number, 0.0, 0.0),)))
    with pytest.raises(ArtefactError) as caught:
        encode_manifest(manifest)
    assert caught.value.code == "not_finite"


@pytest.mark.parametrize("document", [b"", b"{}", b"null", b"\xff", b"[1", encode_manifest(full_manifest())[:-1]])
def test_what_is_no_manifest_is_unreadable(document: bytes) -> None:
    with pytest.raises(ArtefactError) as caught:
        decode_manifest(document)
    assert caught.value.code == "unreadable"


def test_envelope_round_trip(signer: Signer) -> None:
    signed = signer.sign(full_manifest())
    assert decode_signed(encode_signed(signed)) == signed
    for broken in (b"", b"{}", b'{"document": 1}', encode_signed(signed).replace(b"key_id", b"key")):
        with pytest.raises(ArtefactError) as caught:
            decode_signed(broken)
        assert caught.value.code == "unreadable"


def test_a_signed_manifest_is_believed(signer: Signer) -> None:
    assert Trust.of(signer.public_key).verify(signer.sign(full_manifest())) == full_manifest()


def test_the_signature_is_plain_ed25519_over_the_document(signer: Signer) -> None:
    signed = signer.sign(full_manifest())
    raw = signer.public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(signed.signature), SIGNING_DOMAIN + signed.document)


def test_every_changed_byte_is_noticed(signer: Signer) -> None:
    signed, trust = signer.sign(full_manifest()), Trust.of(signer.public_key)
    for place in range(0, len(signed.document), 7):
        changed = bytearray(signed.document)
        changed[place] ^= 1
        with pytest.raises(ArtefactError) as caught:
            trust.verify(replace(signed, document=bytes(changed)))
        assert caught.value.code == "bad_signature"


@pytest.mark.parametrize("signature", ["", "zz", "00" * 64, "00" * 63])
def test_a_signature_that_is_none_is_bad(signer: Signer, signature: str) -> None:
    signed = replace(signer.sign(full_manifest()), signature=signature)
    with pytest.raises(ArtefactError) as caught:
        Trust.of(signer.public_key).verify(signed)
    assert caught.value.code == "bad_signature"


def test_an_unknown_key_is_untrusted_and_a_claimed_one_does_not_help(signer: Signer) -> None:
    stranger = Signer(Ed25519PrivateKey.generate())
    trust = Trust.of(signer.public_key)
    with pytest.raises(ArtefactError) as caught:
        trust.verify(stranger.sign(full_manifest()))
    assert caught.value.code == "untrusted_key"
    assert stranger.key_id in str(caught.value)
    assert "trust.public_keys" in str(caught.value)
    with pytest.raises(ArtefactError) as caught:
        trust.verify(replace(stranger.sign(full_manifest()), key_id=signer.key_id))
    assert caught.value.code == "bad_signature"


def test_a_trusted_key_may_still_sign_nonsense() -> None:
    private_key = Ed25519PrivateKey.generate()
    signer = Signer(private_key)
    nonsense = SignedManifest(
        document=b"{}", signature=private_key.sign(SIGNING_DOMAIN + b"{}").hex(), key_id=signer.key_id
    )
    with pytest.raises(ArtefactError) as caught:
        Trust.of(signer.public_key).verify(nonsense)
    assert caught.value.code == "unreadable"


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "state")
    first, second = load_or_create_keys(files), load_or_create_keys(files)
    assert first.key_id == second.key_id
    assert stat.S_IMODE(files.signing_key.stat().st_mode) == 0o600
    assert sorted(path.name for path in files.signing_key.parent.iterdir()) == ["lock", "public.pem", "signing.pem"]


def test_racing_processes_make_one_pair(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from driftline.artefact.manifest import load_or_create_keys
from driftline.names import StateFiles
print(load_or_create_keys(StateFiles(Path({str(tmp_path / "state")!r}))).key_id)
"""
    racers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ids = {racer.communicate(timeout=60)[0].strip() for racer in racers}
    assert ids == {load_or_create_keys(StateFiles(tmp_path / "state")).key_id}


def test_a_draft_left_by_a_kill_is_no_key(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "state")
    files.signing_key.parent.mkdir(parents=True)
    files.signing_key.with_suffix(".new").write_bytes(b"half a k")
    assert load_trust(TrustConfig(), files).verify(load_or_create_keys(files).sign(full_manifest())) == full_manifest()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "state")
    load_or_create_keys(files)
    files.signing_key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_or_create_keys(files)


def test_a_damaged_key_is_named(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "state")
    load_or_create_keys(files)
    files.signing_key.write_bytes(b"not a key")
    with pytest.raises(ConfigError, match=r"signing\.pem: not an Ed25519 private key"):
        load_or_create_keys(files)


def test_a_lost_signing_key_is_not_replaced(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    before = load_or_create_keys(files)
    kept = files.signing_key.rename(tmp_path / "kept.pem")
    for ask in (load_or_create_keys, own_signer, partial(load_trust, TrustConfig())):
        with pytest.raises(ConfigError, match=r"restore it.*--re-sign"):
            ask(files)
    assert not files.signing_key.exists()

    kept.rename(files.signing_key)
    assert load_or_create_keys(files).key_id == before.key_id
    files.signing_key.unlink()
    files.public_key.unlink()
    assert own_signer(files) is None
    assert load_or_create_keys(files).key_id != before.key_id


def test_a_public_key_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    files, other = StateFiles(tmp_path / "a"), StateFiles(tmp_path / "b")
    before = load_or_create_keys(files)
    load_or_create_keys(other)
    for wrong in (other.public_key.read_bytes(), b"junk"):
        files.public_key.write_bytes(wrong)
        with pytest.raises(ConfigError, match=r"is not the public key of signing\.pem"):
            load_or_create_keys(files)
    files.public_key.unlink()
    assert load_or_create_keys(files).key_id == before.key_id
    assert own_signer(files) is not None


def test_trust_comes_from_the_config_or_from_this_machine(tmp_path: Path) -> None:
    ours, theirs = StateFiles(tmp_path / "ours"), StateFiles(tmp_path / "theirs")
    their_signer = load_or_create_keys(theirs)
    signed = their_signer.sign(full_manifest())
    load_trust(TrustConfig(public_keys=(theirs.public_key,)), ours).verify(signed)
    assert not ours.signing_key.exists(), "a replica with configured keys makes no pair of its own"
    with pytest.raises(ArtefactError):
        load_trust(TrustConfig(), ours).verify(signed)


def test_a_wrong_public_key_file_is_named(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "state")
    with pytest.raises(ConfigError, match=r"trust\.public_keys: .*missing\.pem cannot be read"):
        load_trust(TrustConfig(public_keys=(tmp_path / "missing.pem",)), files)
    (tmp_path / "bad.pem").write_text("hello")
    with pytest.raises(ConfigError, match=r"bad\.pem is not an Ed25519 public key"):
        load_trust(TrustConfig(public_keys=(tmp_path / "bad.pem",)), files)


def test_the_probe_is_eight_fixed_texts() -> None:
    assert len(PROBE_TEXTS) == len(set(PROBE_TEXTS)) == 8
    assert all(text == text.strip() for text in PROBE_TEXTS)


def test_registry_and_manifest_need_no_torch() -> None:
    modules = "driftline.registry, driftline.artefact.manifest, driftline.artefact.probe, driftline.journal"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
