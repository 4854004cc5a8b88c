"""The recipe of an update, before it runs: the plan, what it learns by, and what its arithmetic depends on."""

import platform
from functools import cache
from importlib.metadata import version as library_version

import torch

from driftline.artefact.recipe import Recipe
from driftline.config import FeedConfig
from driftline.records import Cycle
from learner.model import LoraModel, cpu_flags, dtype_name, training_dtype
from learner.threads import training_threads

LIBRARIES = ("driftline", "torch", "transformers", "peft", "tokenizers", "numpy")
SETTINGS = {"task", "labels", "retired_labels", "label_map", "learner"}


def recipe_of(cycle: Cycle, section: FeedConfig, model: LoraModel) -> Recipe:
    """What `Training.update` does with this cycle on this machine."""
    base = model.base
    return Recipe(
        parent=cycle.parent,
        plan=cycle.plan,
        settings=section.model_dump(mode="json", include=SETTINGS),
        seed=cycle.seed,
        threads=training_threads(section.learner.threads),
        dtype=dtype_name(training_dtype(base.device, section.learner.dtype)),
        device=torch.cuda.get_device_name(base.device) if base.device.type == "cuda" else base.device.type,
        cpu_flags=tuple(sorted(cpu_flags())),
        libraries=libraries(),
        base=base.source,
        base_fingerprint=base.fingerprint,
        pooling=base.pooling,
        max_tokens=base.max_tokens,
    )


@cache
def libraries() -> dict[str, str]:
    """What the bytes of an update depend on, by name: version."""
    return {name: library_version(name) for name in LIBRARIES} | {"python": platform.python_version()}
