"""From the registry's bytes to weights that may go into a slot. Guards invariant 7, all of it but the probe.

Covered: signature and key, feed and version, base fingerprint, pooling and length, task, labels, blob hashes, tensor
names, shapes, dtype, finiteness. Not covered: whether the weights answer as their trainer says (`serving.probing`).
Reads only; may run in any thread.
"""

from dataclasses import dataclass

from driftline.artefact.manifest import Trust
from driftline.artefact.weights import Weights, check_weights, unpack
from driftline.base import Base, lora_targets, target_shapes
from driftline.errors import ArtefactError, ConfigError
from driftline.records import Manifest
from driftline.registry import Registry

TASK = "classification"


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a version is checked against: whose keys are trusted, and which base this process computes with."""

    registry: Registry
    trust: Trust
    base: Base

    def fetch(self, feed: str, version: int, labels: tuple[str, ...]) -> tuple[Manifest, Weights]:
        """The version's manifest and weights, checked. ArtefactError, UnknownVersion, RegistryUnavailable."""
        manifest = self.trust.verify(self.registry.manifest(feed, version))
        _check_name(manifest, feed, version)
        _check_base(manifest, self.base)
        _check_task(manifest, labels)
        shapes = _target_shapes(manifest, self.base)
        body = self.registry.get_blob(feed, manifest.body_sha256)
        head = self.registry.get_blob(feed, manifest.head_sha256)
        weights = unpack(body, head)
        check_weights(weights, manifest, shapes, self.base.hidden_size)
        return manifest, weights


def _check_name(manifest: Manifest, feed: str, version: int) -> None:
    """A validly signed manifest must not be passed off as another version's."""
    if (manifest.feed, manifest.version) != (feed, version):
        found = f"version {manifest.version} of feed {manifest.feed!r}"
        raise ArtefactError("bad_signature", f"version {version} of feed {feed!r}: the signature there is of {found}")


def _check_base(manifest: Manifest, base: Base) -> None:
    trained = (manifest.base_fingerprint, manifest.pooling, manifest.max_tokens)
    here = (base.fingerprint, base.pooling, base.max_tokens)
    for name, theirs, ours in zip(("model", "pooling", "max_tokens"), trained, here, strict=True):
        if theirs != ours:
            raise ArtefactError(
                "wrong_base",
                f"{_name(manifest)} was trained with base.{name} {theirs!r:.20}, this replica has {ours!r:.20}: "
                f"give learner and replicas the same [base]",
            )


def _check_task(manifest: Manifest, labels: tuple[str, ...]) -> None:
    if manifest.task != TASK:
        raise ArtefactError("wrong_task", f"{_name(manifest)} is for task {manifest.task!r}, this feed's is {TASK!r}")
    if manifest.labels != labels:
        raise ArtefactError(
            "wrong_labels",
            f"{_name(manifest)} has labels {list(manifest.labels)}, this replica's config has {list(labels)}: "
            "use the same labels in the same order",
        )


def _target_shapes(manifest: Manifest, base: Base) -> dict[str, tuple[int, int]]:
    if manifest.rank < 1 or manifest.alpha <= 0:
        raise ArtefactError("wrong_shape", f"{_name(manifest)} has rank {manifest.rank} and alpha {manifest.alpha}")
    try:
        return target_shapes(base, lora_targets(base.model, manifest.target_modules))
    except ConfigError as error:
        raise ArtefactError("wrong_shape", f"{_name(manifest)}: {error}") from error


def _name(manifest: Manifest) -> str:
    return f"version {manifest.version} of feed {manifest.feed!r}"
