"""What the fast clock needs of versions: heads, how they see label names, the fast states they carry. No torch.

Guards that nothing is taken from the registry but what a trusted key signed and whose hash fits. What cannot be had is
None: the fast clock goes on without it.
"""

from collections.abc import Callable, Sequence

import numpy as np
import safetensors.numpy
import structlog
from numpy.typing import NDArray
from safetensors import SafetensorError

from driftline.artefact.manifest import Trust
from driftline.artefact.parts import FAST_STATE, HEAD, NAMES
from driftline.errors import ArtefactError, UnknownVersion
from driftline.records import Manifest
from driftline.registry import Registry
from learner.fast.heads import Head
from learner.fast.recent import Recent

__all__ = ["FastVersions"]

log = structlog.get_logger()


class FastVersions:
    """One feed's versions. `base_names`: gives (C, d), how version 0 sees the names of `labels`."""

    def __init__(
        self,
        feed: str,
        labels: Sequence[str],
        registry: Registry,
        trust: Trust,
        base_names: Callable[[], NDArray[np.float32]],
    ) -> None:
        self._feed = feed
        self._labels = tuple(labels)
        self._registry = registry
        self._trust = trust
        self._base_names = base_names
        self._names = Recent(self._names_of)

    def head(self, version: int) -> Head | None:
        """The version's head. RegistryUnavailable: ask again."""
        manifest = self._manifest(version)
        tensors = None if manifest is None else self._tensors(manifest, HEAD)
        if manifest is None or tensors is None or not {"head.weight", "head.bias"} <= tensors.keys():
            return None
        return Head(labels=manifest.labels, weight=tensors["head.weight"], bias=tensors["head.bias"])

    def names(self, version: int) -> NDArray[np.float32] | None:
        """(C, d); None, too, of one with other labels. RegistryUnavailable: ask again."""
        return self._names.get(version) if version else self._base_names()

    def fast_state(self, version: int) -> bytes | None:
        """The packed fast state that the version carries. RegistryUnavailable: ask again."""
        manifest = self._manifest(version)
        if manifest is None or FAST_STATE not in manifest.parts:
            return None
        return self._part(manifest, FAST_STATE)

    def _names_of(self, version: int) -> NDArray[np.float32] | None:
        manifest = self._manifest(version)
        ours = manifest is not None and manifest.labels == self._labels
        tensors = self._tensors(manifest, NAMES) if manifest is not None and ours else None
        return None if not tensors else tensors[NAMES].astype(np.float32)

    def _manifest(self, version: int) -> Manifest | None:
        try:
            return self._trust.verify(self._registry.manifest(self._feed, version))
        except (ArtefactError, UnknownVersion) as error:
            log.warning("version_not_read", feed=self._feed, version=version, error=str(error))
            return None

    def _tensors(self, manifest: Manifest, part: str) -> dict[str, NDArray[np.float32]] | None:
        data = self._part(manifest, part) if part in manifest.parts else None
        try:
            return None if data is None else safetensors.numpy.load(data)
        except (SafetensorError, ValueError) as error:
            log.warning("part_not_read", feed=self._feed, version=manifest.version, part=part, error=str(error))
            return None

    def _part(self, manifest: Manifest, part: str) -> bytes | None:
        try:
            return self._registry.get_part(manifest, part)
        except ArtefactError as error:
            log.warning("part_not_read", feed=self._feed, version=manifest.version, part=part, error=str(error))
            return None
