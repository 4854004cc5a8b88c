"""From the registry's bytes to weights that may go into a slot. Guards invariant 7, all of it but the probe.

Covered: signature and key, feed and version, base fingerprint, pooling and length, task, blob hashes, tensor names,
shapes, dtype, finiteness. Not covered: whether the weights answer as their trainer says (`serving.probing`); and not
whether its labels are the config's: a version answers with its own.
Reads only; may run in any thread.
"""

from dataclasses import dataclass

from driftline.artefact.fit import check_fit
from driftline.artefact.manifest import Trust
from driftline.artefact.parts import BODY, HEAD, NAMES
from driftline.artefact.weights import Weights, check_weights, unpack
from driftline.base import Base, lora_targets, target_shapes
from driftline.errors import ArtefactError, ConfigError
from driftline.records import Manifest
from driftline.registry import Registry


@dataclass(frozen=True, slots=True)
class Verifier:
    """What a version is checked against: whose keys are trusted, and which base this process computes with."""

    registry: Registry
    trust: Trust
    base: Base

    def fetch(self, feed: str, version: int) -> tuple[Manifest, Weights]:
        """The version's manifest and weights, checked. ArtefactError, UnknownVersion, RegistryUnavailable."""
        manifest = self.trust.verify(self.registry.manifest(feed, version))
        _check_name(manifest, feed, version)
        base = self.base
        check_fit(manifest, fingerprint=base.fingerprint, pooling=base.pooling, max_tokens=base.max_tokens)
        shapes = _target_shapes(manifest, base)
        names = self.registry.get_part(manifest, NAMES) if NAMES in manifest.parts else None
        weights = unpack(self.registry.get_part(manifest, BODY), self.registry.get_part(manifest, HEAD), names)
        check_weights(weights, manifest, shapes, base.hidden_size)
        return manifest, weights


def _check_name(manifest: Manifest, feed: str, version: int) -> None:
    """A validly signed manifest must not be passed off as another version's."""
    if (manifest.feed, manifest.version) != (feed, version):
        found = f"version {manifest.version} of feed {manifest.feed!r}"
        raise ArtefactError("bad_signature", f"version {version} of feed {feed!r}: the signature there is of {found}")


def _target_shapes(manifest: Manifest, base: Base) -> dict[str, tuple[int, int]]:
    if manifest.rank < 1 or manifest.alpha <= 0:
        raise ArtefactError("wrong_shape", f"{_name(manifest)} has rank {manifest.rank} and alpha {manifest.alpha}")
    try:
        return target_shapes(base, lora_targets(base.model, manifest.target_modules))
    except ConfigError as error:
        raise ArtefactError("wrong_shape", f"{_name(manifest)}: {error}") from error


def _name(manifest: Manifest) -> str:
    return f"version {manifest.version} of feed {manifest.feed!r}"
