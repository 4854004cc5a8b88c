"""The PEFT folder: how an adapter leaves for the outside world, and comes back.

Covered: plain LoRA (rsLoRA, DoRA, per-module ranks and the like are refused by name), tensors by safetensors only, and
nothing in the folder is run. Not covered: whether the adapter fits this installation's base and labels; whoever imports
checks that (`Trust.verify`, `check_weights`, the probe).
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from driftline.artefact.manifest import SignedManifest, decode_manifest, decode_signed, encode_signed
from driftline.artefact.portable import check_code, write_code
from driftline.artefact.readme import readme
from driftline.artefact.weights import Weights, pack_head, pack_parts, pack_tensors, unpack, unpack_tensors
from driftline.base_source import PortableBase
from driftline.errors import ArtefactError, UsageError
from driftline.records import Manifest

__all__ = ["ADAPTER_CONFIG", "ADAPTER_FILE", "HEAD_FILE", "MANIFEST_FILE", "export_folder", "read_folder", "read_lora"]

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILE = "adapter_model.safetensors"
HEAD_FILE = "driftline_head.safetensors"
MANIFEST_FILE = "manifest.json"
PEFT_PREFIX = "base_model.model."
REFUSED_OPTIONS = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")


def export_folder(folder: Path, signed: SignedManifest, weights: Weights, base: PortableBase) -> None:
    """Write a folder that `PeftModel.from_pretrained` loads on the AutoModel, with our head, manifest and cleaning, and
    a README whose code gives the scores that serving gives. It names no path of this machine.

    The folder is made; UsageError if it holds something already. The manifest is written last: a folder without one was
    not finished.
    """
    check_code()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UsageError(f"{folder}: the folder is not empty: name a new one")
    manifest = decode_manifest(signed.document)
    (folder / ADAPTER_CONFIG).write_text(_adapter_config(manifest, base.name), encoding="utf-8")
    (folder / ADAPTER_FILE).write_bytes(pack_tensors(_to_peft(weights.body), {"format": "pt"}))
    (folder / HEAD_FILE).write_bytes(pack_head(weights))
    (folder / "README.md").write_text(readme(manifest, base), encoding="utf-8")
    write_code(folder)
    (folder / MANIFEST_FILE).write_bytes(encode_signed(signed) + b"\n")


def read_folder(folder: Path) -> tuple[SignedManifest | None, Weights]:
    """An exported folder, or a PEFT adapter with a `driftline_head.safetensors` beside it (then without manifest).

    Where there is a manifest, the tensors are those that it names: ArtefactError(hash_mismatch) otherwise. Its
    signature is not checked here, nor are shapes (`check_weights`). ArtefactError: unreadable, wrong_shape (something
    else than LoRA matrices and a head).
    """
    read_lora(folder)
    tensors, _ = unpack_tensors(_read(folder / ADAPTER_FILE))
    body = pack_tensors({_from_peft(name): tensor.float() for name, tensor in tensors.items()})
    weights = unpack(body, _read(folder / HEAD_FILE))
    manifest_file = folder / MANIFEST_FILE
    signed = decode_signed(_read(manifest_file)) if manifest_file.exists() else None
    if signed is not None:
        _check_named(decode_manifest(signed.document), weights)
    return signed, weights


def read_lora(folder: Path) -> tuple[int, float]:
    """(rank, alpha) of the folder's adapter. ArtefactError(unreadable) if it is not plain LoRA, naming the option."""
    try:
        options = json.loads(_read(folder / ADAPTER_CONFIG))
        rank, alpha, kind = int(options["r"]), float(options["lora_alpha"]), options["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError("unreadable", f"{folder / ADAPTER_CONFIG}: not a LoRA configuration ({error})") from None
    refused = [name for name in REFUSED_OPTIONS if options.get(name)]
    if kind != "LORA" or refused or options.get("bias", "none") != "none":
        what = ", ".join(refused) or f"peft_type {kind!r}, bias {options.get('bias')!r}"
        raise ArtefactError("unreadable", f"{folder / ADAPTER_CONFIG}: only plain LoRA can be imported, not {what}")
    return rank, alpha


def _adapter_config(manifest: Manifest, base_model_name: str) -> str:
    options = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base_model_name,
        "r": manifest.rank,
        "lora_alpha": manifest.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(manifest.target_modules),
        "inference_mode": True,
    }
    return json.dumps(options, indent=2) + "\n"


def _to_peft(body: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{PEFT_PREFIX}{name}.weight": tensor for name, tensor in body.items()}


def _from_peft(name: str) -> str:
    inner = name.removeprefix(PEFT_PREFIX).removesuffix(".weight")
    if not (name.startswith(PEFT_PREFIX) and name.endswith(".weight") and inner.endswith((".lora_A", ".lora_B"))):
        raise ArtefactError("wrong_shape", f"{ADAPTER_FILE}: {name} is no LoRA matrix")
    return inner


def _check_named(manifest: Manifest, weights: Weights) -> None:
    found = {name: sha256(data).hexdigest() for name, data in pack_parts(weights).items()}
    if not found.items() <= manifest.parts.items():
        raise ArtefactError("hash_mismatch", "the folder's tensors are not those that its manifest names")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError("unreadable", f"{path}: cannot be read ({error.strerror})") from None
