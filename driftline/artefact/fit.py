"""Whether a version was made for the base and the task that are here. Pure, no torch.

One check for whoever takes a version in: a replica that is to serve it, and `driftline import`. What the learner asks
beyond that, to go on from a version, is in `learner.versions`. A version answers with its own labels, so a replica
serves it whatever the config's are; an import is drafted as one of this feed's and must have them.
"""

from driftline.errors import ArtefactError
from driftline.label_change import LabelTerms, current_name
from driftline.records import Manifest
from driftline.tasks import TASKS

__all__ = ["check_fit", "check_same_labels"]


def check_fit(manifest: Manifest, *, fingerprint: str, pooling: str, max_tokens: int, task: str | None = None) -> None:
    """ArtefactError wrong_base or wrong_task, with what differs from what is here, and the remedy. `task`: the feed's,
    for who goes on from the version; None: any task that this Driftline has will do."""
    name = _name(manifest)
    theirs = {"model": manifest.base_fingerprint, "pooling": manifest.pooling, "max_tokens": manifest.max_tokens}
    ours = {"model": fingerprint, "pooling": pooling, "max_tokens": max_tokens}
    for key, found in theirs.items():
        if found != ours[key]:
            raise ArtefactError(
                "wrong_base",
                f"{name} was trained with base.{key} {found!r:.20}, here it is {ours[key]!r:.20}: use the same [base]",
            )
    if manifest.task not in (TASKS if task is None else (task,)):
        here = f"this Driftline knows {', '.join(TASKS)}" if task is None else f"this feed's is {task!r}"
        raise ArtefactError("wrong_task", f"{name} is for task {manifest.task!r}, {here}")


def check_same_labels(manifest: Manifest, terms: LabelTerms) -> None:
    """ArtefactError wrong_labels if its labels, renamed as the config says, are not the config's in the same order."""
    if tuple(current_name(label, terms) for label in manifest.labels) != tuple(terms.labels):
        raise ArtefactError(
            "wrong_labels",
            f"{_name(manifest)} has labels {list(manifest.labels)}, the config here has {list(terms.labels)}: "
            "use the same labels in the same order, or rename them by label_map",
        )


def _name(manifest: Manifest) -> str:
    return f"version {manifest.version} of feed {manifest.feed!r}"
