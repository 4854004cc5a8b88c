"""Whether a version was made for the base and the labels that are here. Pure, no torch.

One check for whoever takes a version in: a replica that is to serve it, and `driftline import`. What the learner asks
beyond that, to go on from a version, is in `learner.versions`.
"""

from collections.abc import Sequence

from driftline.errors import ArtefactError
from driftline.records import Manifest

__all__ = ["TASK", "check_fit"]

TASK = "classification"


def check_fit(manifest: Manifest, labels: Sequence[str], *, fingerprint: str, pooling: str, max_tokens: int) -> None:
    """ArtefactError wrong_base, wrong_task or wrong_labels, with what differs from what is here, and the remedy."""
    name = f"version {manifest.version} of feed {manifest.feed!r}"
    theirs = {"model": manifest.base_fingerprint, "pooling": manifest.pooling, "max_tokens": manifest.max_tokens}
    ours = {"model": fingerprint, "pooling": pooling, "max_tokens": max_tokens}
    for key, found in theirs.items():
        if found != ours[key]:
            raise ArtefactError(
                "wrong_base",
                f"{name} was trained with base.{key} {found!r:.20}, here it is {ours[key]!r:.20}: use the same [base]",
            )
    if manifest.task != TASK:
        raise ArtefactError("wrong_task", f"{name} is for task {manifest.task!r}, this feed's is {TASK!r}")
    if manifest.labels != tuple(labels):
        raise ArtefactError(
            "wrong_labels",
            f"{name} has labels {list(manifest.labels)}, the config here has {list(labels)}: "
            "use the same labels in the same order",
        )
