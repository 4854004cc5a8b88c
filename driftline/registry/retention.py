"""Which versions keep their blobs (DESIGN §3.6), and which of them keep those that they can do without. Manifests stay
for ever. Pure."""

from collections.abc import Sequence

from driftline.artefact.parts import PASSING
from driftline.records import LiveRecord, Manifest

__all__ = ["KEPT_PASSING", "blobs_of", "kept_versions", "lasting_blobs_of"]

KEPT_PASSING = 5
"""So many of the newest versions keep their passing parts: megabytes each, and a way back is taken soon or never."""


def blobs_of(manifest: Manifest) -> list[str]:
    """The sha256 of every blob that the manifest names, each once, sorted."""
    return sorted(set(manifest.parts.values()))


def lasting_blobs_of(manifest: Manifest) -> list[str]:
    """Those without which the version cannot go live."""
    return sorted({sha256 for name, sha256 in manifest.parts.items() if name not in PASSING})


def kept_versions(versions: Sequence[int], live: LiveRecord, before_live: int | None, newest: int) -> set[int]:
    """The newest `newest` versions, the incumbent and the one to roll back to, and the anchor.

    The one to roll back to is kept so that the way back stays open after any number of rejections. 0 has no blobs.
    """
    last = sorted(versions)[-newest:] if newest > 0 else []
    return {*last, live.version, live.anchor, before_live or 0} - {0}
