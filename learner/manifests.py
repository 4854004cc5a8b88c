"""The manifest of a candidate: everything that must be known about a version, gathered in one place. Pure.

Of its recipe the manifest repeats the short facts, because it stays for ever and the recipe goes with the parts.
"""

from dataclasses import dataclass
from datetime import datetime

from torch import Tensor

from driftline.artefact.recipe import Recipe
from driftline.config import FeedConfig
from driftline.figures import Figures
from driftline.records import Cycle, ExampleRanges, GateDecision, Manifest, Probe
from learner.model import LoraModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A candidate after the gate, or an import. `probe`: its logits (8, R) on the probe's texts, fp32; `evaluation`:
    hold-out set → the exam on it; `broken_words`: see `Manifest`."""

    cycle: Cycle
    recipe: Recipe
    parts: dict[str, str]
    probe: Tensor
    decision: GateDecision
    evaluation: dict[str, Figures]
    broken_words: float | None = None


def draft(judged: Judged, section: FeedConfig, model: LoraModel, config_sha256: str, created_at: datetime) -> Manifest:
    """The manifest, not yet signed. A probe that is not finite (its candidate is rejected) is written as numbers."""
    cycle, recipe = judged.cycle, judged.recipe
    return Manifest(
        feed=cycle.feed,
        version=cycle.version,
        parent=cycle.parent,
        cycle_id=cycle.cycle_id,
        parts=judged.parts,
        base_fingerprint=model.base.fingerprint,
        task=section.task,
        labels=section.labels,
        rank=section.learner.rank,
        alpha=section.learner.alpha,
        target_modules=tuple(model.target_paths),
        max_tokens=model.base.max_tokens,
        pooling=model.base.pooling,
        config_sha256=config_sha256,
        seed=recipe.seed,
        threads=recipe.threads,
        dtype=recipe.dtype,
        libraries=recipe.libraries,
        examples=ExampleRanges(fresh=ranges(cycle.plan.fresh), replayed=ranges(cycle.plan.replayed)),
        fresh_examples=len(cycle.plan.fresh),
        replayed_examples=len(cycle.plan.replayed),
        evaluation=judged.evaluation,
        broken_words=judged.broken_words,
        decision=judged.decision,
        probe=Probe(logits=tuple(tuple(row) for row in judged.probe.nan_to_num().tolist())),
        created_at=created_at,
    )


def ranges(numbers: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Inclusive [first, last] ranges of the numbers, rising: (3, 1, 2, 7) → ((1, 3), (7, 7))."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)
