"""The probe: before a version serves, it must answer eight fixed texts as its trainer did.

This is what catches a swap that "worked" and serves other weights: a wrong base, a wrong scaling, a torn slot.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from driftline.errors import ArtefactError
from driftline.records import Probe

TOLERANCE = 1e-3
"""Largest |Δ logit| in fp32 on the CPU. So another label can win only where the trainer had the two within twice this
of each other, as it has many of a hundred classes after the first updates: such a version is served (ADR 9)."""
ACCELERATOR_TOLERANCE = 5e-2
"""The same elsewhere (CUDA's reduced-precision products)."""


def probe_texts() -> Sequence[str]:
    """The eight texts, which come with the artefact format."""
    from driftline.artefact.probe import PROBE_TEXTS

    return PROBE_TEXTS


def check_probe(answers: Sequence[Tensor], probe: Probe, feed: str, version: int, device: torch.device) -> None:
    """ArtefactError probe_mismatch unless each of `answers` (8, C) equals the manifest's logits within tolerance."""
    tolerance = TOLERANCE if device.type == "cpu" else ACCELERATOR_TOLERANCE
    expected = torch.tensor(probe.logits)  # (8, C)
    for answer in answers:
        problem = _compare(answer.float(), expected, tolerance)
        if problem:
            raise ArtefactError("probe_mismatch", f"version {version} of feed {feed!r} refused: {problem}")


def _compare(answer: Tensor, expected: Tensor, tolerance: float) -> str | None:
    if answer.shape != expected.shape:
        return f"the probe has shape {tuple(expected.shape)}, this replica computes {tuple(answer.shape)}"
    difference = float((answer - expected).abs().max())
    if not difference <= tolerance:  # also catches NaN
        return f"its probe logits differ by {difference:.2g} from the trainer's (allowed: {tolerance:g})"
    return None
