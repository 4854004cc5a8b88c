"""`driftline export` and `driftline import`: adapters out to PEFT's folder format, and in as candidates.

Guards invariant 7 at the border: what leaves was verified first; what comes in carries a signature that is trusted
here, or is signed anew when the user says so, fits this base, these labels and this learner's shape, and is never
promoted.
"""

import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from driftline.artefact.fit import check_fit, check_same_labels
from driftline.assembly.existing import existing_buffer
from driftline.cli.admin import open_registry
from driftline.cli.options import DEFAULT_CONFIG, ConfigOption, FeedOption, JsonOption, choose_feed
from driftline.cli.output import check_writable, err, print_json, say, to_type
from driftline.config import Config, feed_sha256, load_config
from driftline.errors import ArtefactError, RegistryConflict, UsageError
from driftline.records import Cycle, GateDecision, GateReason, Manifest, Plan, Probe

if TYPE_CHECKING:
    from driftline.artefact.manifest import SignedManifest
    from driftline.artefact.weights import Weights
    from driftline.base import Base

VersionArgument = Annotated[int, typer.Argument(min=1, help="The version to export.")]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="The adapter's folder.")]
ReSignOption = Annotated[
    bool,
    typer.Option("--re-sign", help="Sign it with this installation's key; without, its own signature must be trusted."),
]


def export(
    version: VersionArgument,
    directory: FolderArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a version as a PEFT adapter folder, with its head, manifest and a README that loads both."""
    from driftline.artefact.exchange import export_folder
    from driftline.assembly.wiring import build_base, build_trust
    from serving.stage import Verifier

    loaded = load_config(config)
    name = choose_feed(loaded, feed)
    check_writable(directory / "README.md")
    with err.status("verifying…"), open_registry(loaded) as registry:
        base = build_base(loaded)
        _, weights = Verifier(registry, build_trust(loaded), base).fetch(name, version)
        signed = registry.manifest(name, version)
    try:
        export_folder(directory, signed, weights, base.source)
    except OSError as error:
        raise UsageError(f"{directory}: cannot be written ({error.strerror}): name another folder") from None
    if as_json:
        print_json({"feed": name, "version": version, "folder": str(directory)})
    else:
        say(escape(f"version {version} of {name} is in {directory}; README.md there shows how to load it"))


def import_(
    directory: FolderArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    feed: FeedOption = None,
    re_sign: ReSignOption = False,
    as_json: JsonOption = False,
) -> None:
    """Register an adapter folder as a new version. It is never promoted by this: `driftline promote` does."""
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such folder: name one that `export` or PEFT wrote")
    loaded = load_config(config)
    name = choose_feed(loaded, feed)
    with err.status("verifying…"):
        manifest = import_folder(loaded, name, directory, re_sign=re_sign)
    if as_json:
        print_json({"feed": name, "version": manifest.version, "imported_from": manifest.imported_from})
    else:
        version = manifest.version
        say(escape(f"registered as version {version} of {name}; `{to_type(f'promote {version}')}` makes it live"))


def import_folder(config: Config, feed: str, folder: Path, *, re_sign: bool) -> Manifest:
    """Check, sign and register; returns the new version's manifest. ArtefactError says what does not fit."""
    from driftline.artefact.exchange import read_folder, read_lora
    from driftline.assembly.wiring import build_base

    signed, weights = read_folder(folder)
    origin = _origin(config, folder, signed, re_sign=re_sign)
    base = build_base(config)
    _check_fits(config, feed, base, origin, read_lora(folder))
    imported_from = f"{origin.feed} version {origin.version}" if origin else folder.name
    return _register(config, _candidate(config, feed, base, weights, imported_from), weights)


def _origin(config: Config, folder: Path, signed: "SignedManifest | None", *, re_sign: bool) -> Manifest | None:
    """The manifest that came along, verified; with --re-sign just read, and it may be absent."""
    from driftline.artefact.manifest import decode_manifest
    from driftline.assembly.wiring import build_trust

    if re_sign:
        return decode_manifest(signed.document) if signed else None
    if signed is None:
        raise ArtefactError(
            "bad_signature", f"{folder} has no signed manifest: check where it is from, then import it with --re-sign"
        )
    return build_trust(config).verify(signed)


def _check_fits(config: Config, feed: str, base: "Base", origin: Manifest | None, lora: tuple[int, float]) -> None:
    section = config.feed[feed].learner
    if lora != (section.rank, section.alpha):
        raise ArtefactError(
            "wrong_shape",
            f"the adapter has rank {lora[0]} and alpha {lora[1]:g}, feed.{feed}.learner has {section.rank} and "
            f"{section.alpha:g}: the learner could not go on from it; set rank and alpha to the adapter's",
        )
    if origin is not None:
        task = config.feed[feed].task
        check_fit(origin, fingerprint=base.fingerprint, pooling=base.pooling, max_tokens=base.max_tokens, task=task)
        check_same_labels(origin, config.feed[feed])


def _candidate(config: Config, feed: str, base: "Base", weights: "Weights", imported_from: str) -> Manifest:
    """A manifest, without version and parts yet, as of a cycle that learned nothing; shapes checked, probe answered."""
    import torch

    from driftline.artefact.probe import PROBE_TEXTS
    from driftline.artefact.weights import check_weights
    from driftline.base import target_shapes
    from driftline.tasks import task_named
    from learner.manifests import Judged, draft
    from learner.model import LoraModel
    from learner.recipes import recipe_of

    section, now = config.feed[feed], datetime.now(UTC)
    model = LoraModel(base, task_named(section.task), section.labels, section.learner)
    cycle = Cycle(
        cycle_id=f"import-{uuid.uuid4().hex}",
        feed=feed,
        parent=0,
        version=0,
        plan=Plan(fresh=(), replayed=()),
        seed=section.learner.seed,
        taken_at=now,
    )
    judged = Judged(
        cycle=cycle,
        recipe=recipe_of(cycle, section, model),
        parts={},
        probe=torch.zeros(len(PROBE_TEXTS), 0),
        decision=GateDecision(promote=False, reasons=(GateReason(code="imported", holds=False),)),
        evaluation={},
    )
    manifest = draft(judged, section, model, feed_sha256(config, feed), now)
    check_weights(weights, manifest, target_shapes(base, model.target_paths), base.hidden_size)
    model.load(weights)
    logits = model.predict(PROBE_TEXTS)  # (8, C) fp32
    probe = Probe(logits=tuple(tuple(row) for row in logits.tolist()))
    return replace(manifest, probe=probe, imported_from=imported_from, dtype=None)  # trained elsewhere


def _numbered(config: Config, feed: str) -> int:
    """The greatest version number that the learner's buffer knows, so that a Redis which lost its counter gives none of
    them again; 0 if the buffer is not on this machine."""
    buffer = existing_buffer(config)
    if buffer is None:
        return 0
    with closing(buffer):
        return buffer.ledger.last_version(feed)


def _register(config: Config, manifest: Manifest, weights: "Weights") -> Manifest:
    """Parts first, then the signed manifest, under the import lease. Never conflicts: it is a rejected candidate."""
    from driftline.artefact.manifest import load_or_create_keys
    from driftline.artefact.weights import pack_parts
    from driftline.assembly.wiring import build_trust, state_files

    feed = manifest.feed
    with open_registry(config) as registry:
        named = replace(
            manifest,
            version=registry.next_version(feed, above=_numbered(config, feed)),
            parts={name: registry.put_blob(feed, data) for name, data in pack_parts(weights).items()},
        )
        signed = load_or_create_keys(state_files(config)).sign(named)
        build_trust(config).verify(signed)
        with registry.lease(feed, "import", ttl_s=30) as lease:
            if not lease.acquire():
                raise RegistryConflict(f"another import into {feed} is under way: try again when it is done")
            revision = registry.live(feed).revision
            registry.publish(signed, lease=lease, expected_revision=revision, at=manifest.created_at)
    return named
