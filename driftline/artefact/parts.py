"""What a version is made of: blobs by name, whose sha256 its manifest signs. No torch.

A further part is a name here, and whoever writes and reads it. Publishing, retention, garbage collection, switching and
the check of what must be there go by `Manifest.parts` and know no name but those of `PASSING`.
"""

__all__ = ["BODY", "FAST_STATE", "HEAD", "NAMES", "PASSING", "RECIPE", "TRAINER_STATE"]

BODY = "body"
"""The LoRA tensors (`driftline.artefact.weights`)."""
HEAD = "head"
"""The linear head's tensors (`driftline.artefact.weights`)."""
FAST_STATE = "fast_state"
"""The feed's fast state as it was kept last before the version was made (`learner.fast.state`): what a rollback goes
back to."""
NAMES = "names"
"""How the body sees the names of the labels (`driftline.artefact.weights`), for the fast clock and for serving;
versions of before have none, and imported ones."""
TRAINER_STATE = "trainer_state"
"""What the learner goes on from (`learner.trainer_state`); an imported version has none."""
RECIPE = "recipe"
"""How the version was made (`driftline.artefact.recipe`); an imported version has none."""

PASSING = frozenset({FAST_STATE})
"""Parts that stay with the newest few versions only: an older one goes live without them."""
