"""A process of its own that computes how the base sees some names: `python -m driftline.assembly.base_names FILE BASE
NAME…`, with the base's section as JSON. The file appears complete or not at all."""

import json
import sys
from pathlib import Path

import numpy as np

from driftline.base import load_base
from driftline.config import BaseModelConfig


def main() -> None:
    """Write the features (C, d), fp32, of the names to the file."""
    path, section, *names = sys.argv[1:]
    base = load_base(BaseModelConfig.model_validate(json.loads(section)))
    draft = Path(path).with_suffix(".draft.npy")
    draft.parent.mkdir(parents=True, exist_ok=True)
    np.save(draft, base.features(names).numpy())
    draft.replace(path)


if __name__ == "__main__":
    main()
