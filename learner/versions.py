"""Versions as the learner needs them: loads a parent's weights and trainer state, writes a candidate's blobs.

Delivery: blobs first, then the publish script, so a crash in between leaves only blobs that nothing names.
Atomicity and idempotency: those of `Registry.publish`; a known cycle id is answered with what was recorded.
"""

from dataclasses import dataclass

from driftline.artefact.manifest import Trust
from driftline.artefact.weights import Weights, pack_body, pack_head, unpack
from driftline.errors import ArtefactError
from driftline.registry import Registry
from learner.trainer_state import TrainerState, pack_state, unpack_state


@dataclass(frozen=True, slots=True)
class Version:
    """What an update starts from. `weights` None: version 0. `state` None: version 0, or an imported version."""

    version: int
    weights: Weights | None
    state: TrainerState | None


@dataclass(frozen=True, slots=True)
class BlobNames:
    """The sha256 of a version's three blobs."""

    body: str
    head: str
    trainer_state: str


class Versions:
    """One feed's versions in the registry. Keeps the two last used in memory (incumbent and anchor)."""

    def __init__(self, feed: str, registry: Registry, trust: Trust, base_fingerprint: str) -> None:
        self._feed = feed
        self._registry = registry
        self._trust = trust
        self._base_fingerprint = base_fingerprint
        self._recent: dict[int, Version] = {}

    def load(self, version: int) -> Version:
        """Verified weights and state. ArtefactError if the version must not be used, UnknownVersion if it is gone."""
        if version == 0:
            return Version(0, None, None)
        if version not in self._recent:
            self._remember(self._fetch(version))
        return self._recent[version]

    def store(self, weights: Weights, state: TrainerState) -> BlobNames:
        """Upload a candidate's blobs; idempotent, invisible until a manifest names them."""
        return BlobNames(
            body=self._registry.put_blob(self._feed, pack_body(weights)),
            head=self._registry.put_blob(self._feed, pack_head(weights)),
            trainer_state=self._registry.put_blob(self._feed, pack_state(state)),
        )

    def _fetch(self, version: int) -> Version:
        manifest = self._trust.verify(self._registry.manifest(self._feed, version))
        if manifest.base_fingerprint != self._base_fingerprint:
            raise ArtefactError(
                "wrong_base",
                f"version {version} of feed {self._feed} was trained on another base model:"
                " set base.model to the one it was trained on, or start the feed anew under another name",
            )
        body = self._registry.get_blob(self._feed, manifest.body_sha256)
        head = self._registry.get_blob(self._feed, manifest.head_sha256)
        state = manifest.trainer_state_sha256 and self._registry.get_blob(self._feed, manifest.trainer_state_sha256)
        return Version(version, unpack(body, head), unpack_state(state) if state else None)

    def _remember(self, loaded: Version) -> None:
        self._recent[loaded.version] = loaded
        while len(self._recent) > 2:
            self._recent.pop(next(iter(self._recent)))
