"""Versions as the learner needs them: loads a parent's weights and trainer state, writes a candidate's parts.

Guards that an update starts only from a version that was verified and that fits the feed's config, since LoRA weights
of another rank or scaling would be taken for something they are not. Delivery: parts first, then the publish script, so
a crash in between leaves only blobs that nothing names. Atomicity and idempotency: those of `Registry.publish`.
"""

from dataclasses import dataclass

from driftline.artefact.fit import check_fit
from driftline.artefact.manifest import Trust
from driftline.artefact.parts import BODY, FAST_STATE, HEAD, RECIPE, TRAINER_STATE
from driftline.artefact.recipe import Recipe, encode_recipe
from driftline.artefact.weights import Weights, check_weights, pack_parts, unpack
from driftline.base import target_shapes
from driftline.config import FeedConfig
from driftline.errors import ConfigError
from driftline.label_change import require_consent
from driftline.records import Manifest
from driftline.registry import Registry
from learner.model import LoraModel
from learner.relabel import fit_state, fit_weights
from learner.trainer_state import TrainerState, pack_state, unpack_state

KEPT_IN_MEMORY = 2


@dataclass(frozen=True, slots=True)
class Version:
    """What an update starts from, its head and state under the config's labels. `weights` None: version 0. `state`
    None: version 0, or an imported version. `knows`: those of the config's labels that it was made with, renames
    followed; None: all of them."""

    version: int
    weights: Weights | None
    state: TrainerState | None
    knows: frozenset[str] | None = None


class Versions:
    """One feed's versions in the registry. Keeps the two last used in memory (incumbent and anchor)."""

    def __init__(self, feed: str, registry: Registry, trust: Trust, section: FeedConfig, model: LoraModel) -> None:
        self._feed = feed
        self._registry = registry
        self._trust = trust
        self._section = section
        self._model = model
        self._recent: dict[int, Version] = {}

    def load(self, version: int) -> Version:
        """Verified weights and state. ArtefactError if the version must not be used, UnknownVersion if it is gone,
        ConfigError if the config does not fit it (any more), or drops a class of it without saying so."""
        if version == 0:
            return Version(0, None, None)
        found = self._recent.pop(version, None) or self._fetch(version)
        self._recent[version] = found
        while len(self._recent) > KEPT_IN_MEMORY:
            self._recent.pop(next(iter(self._recent)))
        return found

    def store(
        self, weights: Weights, state: TrainerState, recipe: Recipe, fast_state: bytes | None = None
    ) -> dict[str, str]:
        """Upload a candidate's parts; what its manifest says of them. Idempotent, invisible until one does.

        `fast_state`: the feed's, packed, for the way back to this version; None of a feed without fast clock.
        """
        parts = {**pack_parts(weights), TRAINER_STATE: pack_state(state), RECIPE: encode_recipe(recipe)}
        if fast_state is not None:
            parts[FAST_STATE] = fast_state
        return {name: self._registry.put_blob(self._feed, data) for name, data in parts.items()}

    def _fetch(self, version: int) -> Version:
        manifest = self._trust.verify(self._registry.manifest(self._feed, version))
        base = self._model.base
        check_fit(
            manifest,
            fingerprint=base.fingerprint,
            pooling=base.pooling,
            max_tokens=base.max_tokens,
            task=self._section.task,
        )
        require_consent(self._feed, manifest.labels, self._section, where=f"version {version}")
        check_settings(manifest, self._section, self._model)
        weights = unpack(self._registry.get_part(manifest, BODY), self._registry.get_part(manifest, HEAD))
        check_weights(weights, manifest, target_shapes(base, self._model.target_paths), base.hidden_size)
        return self._under_our_labels(manifest, Version(version, weights, self._state(manifest)))

    def _state(self, manifest: Manifest) -> TrainerState | None:
        if TRAINER_STATE not in manifest.parts:
            return None
        return unpack_state(self._registry.get_part(manifest, TRAINER_STATE))

    def _under_our_labels(self, manifest: Manifest, found: Version) -> Version:
        """The version as the config's classes see it. Untouched, byte for byte, where they are the manifest's."""
        if manifest.labels == self._section.labels or found.weights is None:
            return found
        rows = self._model.task.moved_rows(manifest.labels, self._section)
        return Version(
            found.version,
            fit_weights(found.weights, rows),
            fit_state(found.state, rows, self._section) if found.state else None,
            frozenset(label for label, row in zip(self._section.labels, rows, strict=True) if row is not None),
        )


def check_settings(manifest: Manifest, section: FeedConfig, model: LoraModel) -> None:
    """ConfigError names the first key that differs from how the version was trained, and the remedy."""
    learner = section.learner
    pairs = {
        "rank": (learner.rank, manifest.rank),
        "alpha": (learner.alpha, manifest.alpha),
        "target_modules": (sorted(model.target_paths), sorted(manifest.target_modules)),
    }
    for key, (wanted, found) in pairs.items():
        if wanted != found:
            raise ConfigError(
                f"feed.{manifest.feed}.learner.{key} = {wanted}: version {manifest.version}, which the learner has to "
                f"start from or to compare with, has {found}: set it back, or start the feed anew under another name"
            )
