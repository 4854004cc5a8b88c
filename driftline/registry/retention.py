"""Which versions keep their blobs (DESIGN §3.6). Manifests stay for ever. Pure."""

from collections.abc import Sequence

from driftline.records import LiveRecord, Manifest

__all__ = ["blobs_of", "kept_versions"]


def blobs_of(manifest: Manifest) -> list[str]:
    """The sha256 of every blob that the manifest names, each once, sorted."""
    return sorted(set(manifest.parts.values()))


def kept_versions(versions: Sequence[int], live: LiveRecord, before_live: int | None, newest: int) -> set[int]:
    """The newest `newest` versions, the incumbent and the one to roll back to, and the anchor.

    The one to roll back to is kept so that the way back stays open after any number of rejections. 0 has no blobs.
    """
    last = sorted(versions)[-newest:] if newest > 0 else []
    return {*last, live.version, live.anchor, before_live or 0} - {0}
