"""What a version is made of: blobs by name, whose sha256 its manifest signs. No torch.

A further part is a name here, and whoever writes and reads it. Publishing, retention, garbage collection, switching and
the check of what must be there go by `Manifest.parts` and know no name.
"""

__all__ = ["BODY", "HEAD", "RECIPE", "TRAINER_STATE"]

BODY = "body"
"""The LoRA tensors (`driftline.artefact.weights`)."""
HEAD = "head"
"""The linear head's tensors (`driftline.artefact.weights`)."""
TRAINER_STATE = "trainer_state"
"""What the learner goes on from (`learner.trainer_state`); an imported version has none."""
RECIPE = "recipe"
"""How the version was made (`driftline.artefact.recipe`); an imported version has none."""
