"""Adapter tensors as bytes: canonical safetensors, and the checks that stand between bytes and serving (DESIGN §3.7).

Covered: keys, shapes, dtype, finiteness. Not covered: whether the numbers mean anything; that is the probe's part.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from driftline.artefact.parts import BODY, HEAD, NAMES
from driftline.errors import ArtefactError
from driftline.records import Manifest
from driftline.tasks import task_named

__all__ = [
    "Weights",
    "check_weights",
    "pack_body",
    "pack_head",
    "pack_parts",
    "pack_tensors",
    "unpack",
    "unpack_tensors",
]

HEAD_WEIGHT = "head.weight"
HEAD_BIAS = "head.bias"
_DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """What an adapter is made of, fp32.

    `body` maps "<module path inside AutoModel>.lora_A" to (r, in) and ".lora_B" to (out, r); `head_weight` is (R, d)
    and `head_bias` (R,), with as many rows R as the task has for the labels. `names` (C, d) fp16: the features of the
    labels' names by this body; None where nobody computed them.
    """

    body: dict[str, Tensor]
    head_weight: Tensor
    head_bias: Tensor
    names: Tensor | None = None


def pack_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file. The same tensors give the same bytes, whatever their order, device or strides.

    (The library writes metadata in the order of a hash map, so the header is written here.)
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    parts: list[bytes] = []
    start = 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        data = _raw(tensors[name])
        shape = list(tensors[name].shape)
        header[name] = {
            "dtype": _DTYPE_NAMES[tensors[name].dtype],
            "shape": shape,
            "data_offsets": [start, start + len(data)],
        }
        parts.append(data)
        start += len(data)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def unpack_tensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (own memory, CPU) and metadata of a safetensors file. ArtefactError(unreadable)."""
    try:
        tensors = safetensors.torch.load(data)
        metadata = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]]).get("__metadata__", {})
    except (safetensors.SafetensorError, struct.error, ValueError, KeyError) as error:
        raise ArtefactError("unreadable", f"not a safetensors file: {error}") from None
    return {name: tensor.clone() for name, tensor in tensors.items()}, metadata


def pack_body(weights: Weights) -> bytes:
    """The body blob: LoRA tensors only."""
    return pack_tensors(weights.body)


def pack_head(weights: Weights) -> bytes:
    """The head blob."""
    return pack_tensors({HEAD_WEIGHT: weights.head_weight, HEAD_BIAS: weights.head_bias})


def pack_parts(weights: Weights) -> dict[str, bytes]:
    """The parts that weights make, by name."""
    parts = {BODY: pack_body(weights), HEAD: pack_head(weights)}
    return parts if weights.names is None else parts | {NAMES: pack_tensors({NAMES: weights.names})}


def unpack(body: bytes, head: bytes, names: bytes | None = None) -> Weights:
    """The blobs back into weights. ArtefactError(unreadable) for no safetensors, (wrong_shape) for another head."""
    tensors, _ = unpack_tensors(head)
    if set(tensors) != {HEAD_WEIGHT, HEAD_BIAS}:
        raise ArtefactError("wrong_shape", f"the head holds {sorted(tensors)}, expected {[HEAD_BIAS, HEAD_WEIGHT]}")
    return Weights(
        body=unpack_tensors(body)[0],
        head_weight=tensors[HEAD_WEIGHT],
        head_bias=tensors[HEAD_BIAS],
        names=None if names is None else unpack_tensors(names)[0].get(NAMES),
    )


def check_weights(
    weights: Weights, manifest: Manifest, base_shapes: Mapping[str, tuple[int, int]], hidden_size: int
) -> None:
    """Exactly the tensors that the manifest and the base ask for, fp32 and finite.

    `base_shapes` maps each target module's path to (out, in); `hidden_size` is the feature's length d. Touches nothing.
    ArtefactError: wrong_shape (missing or extra keys, shape, dtype), not_finite.
    """
    expected = _expected_shapes(manifest, base_shapes, hidden_size)
    tensors = {**weights.body, HEAD_WEIGHT: weights.head_weight, HEAD_BIAS: weights.head_bias}
    _refuse_other_keys(set(tensors), set(expected), manifest)
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, expected[name], torch.float32, manifest)
    if weights.names is not None:
        _check_tensor(NAMES, weights.names, (len(manifest.labels), hidden_size), torch.float16, manifest)


def _expected_shapes(
    manifest: Manifest, base_shapes: Mapping[str, tuple[int, int]], hidden_size: int
) -> dict[str, tuple[int, ...]]:
    rows = task_named(manifest.task).rows(manifest.labels)
    expected: dict[str, tuple[int, ...]] = {HEAD_WEIGHT: (rows, hidden_size), HEAD_BIAS: (rows,)}
    for path, (out, columns) in base_shapes.items():
        expected[f"{path}.lora_A"] = (manifest.rank, columns)
        expected[f"{path}.lora_B"] = (out, manifest.rank)
    return expected


def _refuse_other_keys(found: set[str], expected: set[str], manifest: Manifest) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        raise ArtefactError(
            "wrong_shape",
            f"{_name(manifest)}: {len(missing)} tensors are missing (first: {missing[:1]}), "
            f"{len(extra)} do not belong (first: {extra[:1]}); rank and target modules must be those of the config",
        )


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, manifest: Manifest) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype is not dtype:
        found = f"{tuple(tensor.shape)} {tensor.dtype}"
        raise ArtefactError("wrong_shape", f"{_name(manifest)}: {name} is {found}, expected {shape} {dtype}")
    if not math.isfinite(float(tensor.sum())) and not bool(torch.isfinite(tensor).all()):
        raise ArtefactError("not_finite", f"{_name(manifest)}: {name} holds NaN or infinite numbers")


def _raw(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def _name(manifest: Manifest) -> str:
    return f"version {manifest.version} of feed {manifest.feed}"
