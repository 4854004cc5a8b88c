"""Adapter tensors: canonical bytes, checks against manifest and base, and the PEFT folder with the real PEFT."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor

from driftline.artefact.exchange import export_folder, read_folder, read_lora
from driftline.artefact.manifest import SignedManifest, Signer, Trust
from driftline.artefact.probe import PROBE_TEXTS
from driftline.artefact.weights import (
    Weights,
    check_weights,
    pack_body,
    pack_head,
    pack_parts,
    pack_tensors,
    unpack,
    unpack_tensors,
)
from driftline.base_source import PortableBase, portable_base
from driftline.errors import ArtefactError, UsageError
from driftline.figures import Figures
from driftline.records import ExampleRanges, GateDecision, Manifest, Probe

RANK, HIDDEN, CLASSES = 4, 32, 3
TARGETS = tuple(f"encoder.layer.{layer}.attention.self.{name}" for layer in (0, 1) for name in ("query", "value"))
SHAPES = dict.fromkeys(TARGETS, (HIDDEN, HIDDEN))
TENSORS = {
    "b": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "a": torch.tensor([2**40, -1]),
    "half": torch.tensor([[1.5, -2.0, 0.25]], dtype=torch.bfloat16),
    "flags": torch.tensor([True, False, True]),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(3.0),
    "strided": torch.arange(6, dtype=torch.float32).reshape(2, 3).t(),
}


def some_weights(seed: int = 0) -> Weights:
    """Random LoRA on query and value of a two-layer BERT of width 32, three classes."""
    random = torch.Generator().manual_seed(seed)
    body = {}
    for path in TARGETS:
        body[f"{path}.lora_A"] = torch.randn(RANK, HIDDEN, generator=random)
        body[f"{path}.lora_B"] = torch.randn(HIDDEN, RANK, generator=random)
    head = torch.randn(CLASSES, HIDDEN, generator=random)
    return Weights(body=body, head_weight=head, head_bias=torch.randn(CLASSES, generator=random))


def manifest_of(weights: Weights) -> Manifest:
    return Manifest(
        feed="reviews",
        version=3,
        parent=2,
        cycle_id="c3",
        parts={name: sha256(data).hexdigest() for name, data in pack_parts(weights).items()},
        base_fingerprint="f",
        task="classification",
        labels=("negative", "neutral", "positive"),
        rank=RANK,
        alpha=8.0,
        target_modules=TARGETS,
        max_tokens=16,
        pooling="mean",
        config_sha256="c",
        seed=0,
        threads=1,
        libraries={},
        examples=ExampleRanges(fresh=((1, 9),), replayed=()),
        fresh_examples=9,
        replayed_examples=0,
        evaluation={"pooled": Figures(accuracy=0.75, n=60)},
        decision=GateDecision(promote=True, reasons=()),
        probe=Probe(logits=((0.0, 0.0, 0.0),) * 8),
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
    )


def test_any_safetensors_reader_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(pack_tensors(TENSORS, {"z": "1", "a": "ü"}))
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata() == {"z": "1", "a": "ü"}
        assert set(file.keys()) == set(TENSORS)
        for name, tensor in TENSORS.items():
            read = file.get_tensor(name)
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)


def test_round_trip() -> None:
    tensors, metadata = unpack_tensors(pack_tensors(TENSORS, {"k": "v"}))
    assert metadata == {"k": "v"}
    assert set(tensors) == set(TENSORS)
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    tensors["b"] += 1  # own memory: writable
    assert unpack_tensors(pack_tensors({})) == ({}, {})


def test_what_the_library_wrote_is_read_too() -> None:
    data = safetensors.torch.save({"x": torch.ones(2, 2)}, metadata={"format": "pt"})
    tensors, metadata = unpack_tensors(data)
    assert torch.equal(tensors["x"], torch.ones(2, 2))
    assert metadata == {"format": "pt"}


def test_same_tensors_same_bytes() -> None:
    metadata = {str(number): "x" for number in range(20)}
    first = pack_tensors(TENSORS, metadata)
    again = {name: tensor.clone() for name, tensor in reversed(TENSORS.items())}
    again["strided"] = again["strided"].contiguous()
    assert pack_tensors(again, dict(reversed(metadata.items()))) == first
    assert pack_tensors({**TENSORS, "b": TENSORS["b"] + 1e-6}, metadata) != first


@pytest.mark.parametrize(
    "data", [b"", b"123", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}x", b"\x04" + b"\0" * 7 + b"null"]
)
def test_what_is_no_safetensors_is_unreadable(data: bytes) -> None:
    with pytest.raises(ArtefactError) as caught:
        unpack_tensors(data)
    assert caught.value.code == "unreadable"


def test_every_truncation_is_unreadable() -> None:
    data = pack_tensors({"x": torch.ones(3)})
    for length in range(len(data)):
        with pytest.raises(ArtefactError):
            unpack_tensors(data[:length])


def test_body_and_head_round_trip() -> None:
    weights = some_weights()
    back = unpack(pack_body(weights), pack_head(weights))
    assert all(torch.equal(back.body[name], weights.body[name]) for name in weights.body)
    assert torch.equal(back.head_weight, weights.head_weight)
    assert torch.equal(back.head_bias, weights.head_bias)
    with pytest.raises(ArtefactError) as caught:
        unpack(pack_body(weights), pack_body(weights))
    assert caught.value.code == "wrong_shape"


def test_the_right_weights_pass() -> None:
    check_weights(some_weights(), manifest_of(some_weights()), SHAPES, HIDDEN)


def _set(weights: Weights, name: str, tensor: Tensor) -> Weights:
    return replace(weights, body={**weights.body, name: tensor})


def _poisoned(tensor: Tensor, number: float) -> Tensor:
    out = tensor.clone()
    out[-1, -1] = number
    return out


A0 = f"{TARGETS[0]}.lora_A"
FAULTS: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "missing key": (lambda w: replace(w, body={n: t for n, t in w.body.items() if n != A0}), "wrong_shape"),
    "extra key": (lambda w: _set(w, "encoder.layer.9.lora_A", torch.ones(RANK, HIDDEN)), "wrong_shape"),
    "other rank": (lambda w: _set(w, A0, torch.ones(RANK + 1, HIDDEN)), "wrong_shape"),
    "transposed": (lambda w: _set(w, A0, w.body[A0].t()), "wrong_shape"),
    "flattened": (lambda w: _set(w, A0, w.body[A0].reshape(-1)), "wrong_shape"),
    "half precision": (lambda w: _set(w, A0, w.body[A0].half()), "wrong_shape"),
    "more classes": (lambda w: replace(w, head_weight=torch.ones(CLASSES + 1, HIDDEN)), "wrong_shape"),
    "another width": (lambda w: replace(w, head_weight=torch.ones(CLASSES, HIDDEN * 2)), "wrong_shape"),
    "bias per feature": (lambda w: replace(w, head_bias=torch.ones(HIDDEN)), "wrong_shape"),
    "nan in the body": (lambda w: _set(w, A0, _poisoned(w.body[A0], float("nan"))), "not_finite"),
    "infinity in the body": (lambda w: _set(w, A0, _poisoned(w.body[A0], float("inf"))), "not_finite"),
    "nan in the head": (lambda w: replace(w, head_weight=_poisoned(w.head_weight, float("nan"))), "not_finite"),
    "minus infinity in the bias": (lambda w: replace(w, head_bias=torch.tensor([0.0, 0, -torch.inf])), "not_finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_weights_are_refused(fault: str) -> None:
    damage, code = FAULTS[fault]
    with pytest.raises(ArtefactError) as caught:
        check_weights(damage(some_weights()), manifest_of(some_weights()), SHAPES, HIDDEN)
    assert caught.value.code == code
    assert "version 3 of feed reviews" in str(caught.value)


def test_big_finite_numbers_are_finite() -> None:
    """Their sum overflows; the tensor itself does not."""
    weights = _set(some_weights(), A0, torch.full((RANK, HIDDEN), 3e38))
    check_weights(weights, manifest_of(weights), SHAPES, HIDDEN)


@pytest.fixture
def signer() -> Signer:
    return Signer(Ed25519PrivateKey.generate())


@pytest.fixture
def exported(tmp_path: Path, tiny_base_dir: Path, signer: Signer) -> tuple[Path, SignedManifest, Weights]:
    weights = some_weights()
    signed = signer.sign(manifest_of(weights))
    export_folder(tmp_path / "adapter", signed, weights, portable_base(str(tiny_base_dir)))
    return tmp_path / "adapter", signed, weights


def test_export_and_import_keep_every_byte(exported: tuple[Path, SignedManifest, Weights], signer: Signer) -> None:
    folder, signed, weights = exported
    read, back = read_folder(folder)
    assert read == signed
    assert pack_body(back) == pack_body(weights)
    assert pack_head(back) == pack_head(weights)
    assert Trust.of(signer.public_key).verify(signed) == manifest_of(weights)
    assert read_lora(folder) == (RANK, 8.0)


def test_the_folder_must_be_empty(exported: tuple[Path, SignedManifest, Weights]) -> None:
    folder, signed, weights = exported
    with pytest.raises(UsageError, match="not empty"):
        export_folder(folder, signed, weights, PortableBase(name="base"))


def _logits_by_hand(base: Any, weights: Weights, inputs: Tensor, mask: Tensor) -> Tensor:
    """The naive forward: W + alpha/r · B·A in every target, mean over the mask, √d · x/‖x‖, the head. (B, C)"""
    modules = dict(base.named_modules())
    with torch.no_grad():
        for path in TARGETS:
            delta = weights.body[f"{path}.lora_B"] @ weights.body[f"{path}.lora_A"] * (8.0 / RANK)
            modules[path].weight += delta
        hidden = base(input_ids=inputs, attention_mask=mask).last_hidden_state  # (B, T, d)
        rows = []
        for row, kept in zip(hidden, mask.bool(), strict=True):
            mean = row[kept].mean(0)
            rows.append(mean / mean.norm() * HIDDEN**0.5)
        return torch.stack(rows) @ weights.head_weight.T + weights.head_bias


def test_peft_loads_the_folder_and_the_readme_computes_the_same(
    tmp_path: Path, signer: Signer, tiny_base_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder, weights = tmp_path / "adapter", some_weights()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
    probed = tokenizer(list(PROBE_TEXTS), padding=True, truncation=True, max_length=16, return_tensors="pt")
    base = AutoModel.from_pretrained(tiny_base_dir, dtype=torch.float32).eval()
    probe = Probe(logits=tuple(map(tuple, _logits_by_hand(base, weights, **_inputs(probed)).tolist())))
    signed = signer.sign(replace(manifest_of(weights), probe=probe))
    export_folder(folder, signed, weights, portable_base(str(tiny_base_dir)))
    monkeypatch.setenv("DRIFTLINE_BASE", str(tiny_base_dir))
    monkeypatch.setattr(sys, "path", list(sys.path))
    texts = ["good film", "the worst phone ever, i hated the screen!", "ok"]
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {"FOLDER": str(folder), "__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)
    found = names["logits"](texts)

    base = AutoModel.from_pretrained(tiny_base_dir, dtype=torch.float32).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")
    without = _logits_by_hand(
        base, replace(weights, body={n: t * 0 for n, t in weights.body.items()}), **_inputs(batch)
    )
    expected = _logits_by_hand(base, weights, **_inputs(batch))
    assert names["labels"] == ["negative", "neutral", "positive"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - without).abs().max() > 0.1, "the LoRA must have been applied"


def _inputs(batch: Any) -> dict[str, Tensor]:
    return {"inputs": batch["input_ids"], "mask": batch["attention_mask"]}


def test_what_peft_saved_is_read(tmp_path: Path, tiny_base_dir: Path) -> None:
    """A folder that came from PEFT itself, with a head beside it and no manifest."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    base = AutoModel.from_pretrained(tiny_base_dir, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=6, target_modules=["query"]))
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "driftline_head.safetensors").write_bytes(pack_head(some_weights()))
    signed, weights = read_folder(tmp_path / "theirs")
    assert signed is None
    assert read_lora(tmp_path / "theirs") == (2, 6.0)
    assert set(weights.body) == {
        f"encoder.layer.{layer}.attention.self.query.{side}" for layer in (0, 1) for side in ("lora_A", "lora_B")
    }


def test_tensors_of_another_version_are_noticed(exported: tuple[Path, SignedManifest, Weights]) -> None:
    folder, _, _ = exported
    (folder / "driftline_head.safetensors").write_bytes(pack_head(some_weights(seed=1)))
    with pytest.raises(ArtefactError) as caught:
        read_folder(folder)
    assert caught.value.code == "hash_mismatch"


@pytest.mark.parametrize(
    "option",
    [{"use_dora": True}, {"use_rslora": True}, {"rank_pattern": {"query": 2}}, {"bias": "all"}, {"peft_type": "IA3"}],
)
def test_other_kinds_of_adapter_are_refused_by_name(
    exported: tuple[Path, SignedManifest, Weights], option: dict[str, Any]
) -> None:
    folder, _, _ = exported
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **option}))
    with pytest.raises(ArtefactError, match=next(iter(option))) as caught:
        read_folder(folder)
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "driftline_head.safetensors"])
def test_a_missing_file_is_named(exported: tuple[Path, SignedManifest, Weights], name: str) -> None:
    folder, _, _ = exported
    (folder / name).unlink()
    with pytest.raises(ArtefactError, match=re.escape(name)) as caught:
        read_folder(folder)
    assert caught.value.code == "unreadable"
