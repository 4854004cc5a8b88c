"""What tests of versions share: a tiny base, a key, and a `trainer` that publishes versions of feed "f"."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.artefact.manifest import Signer, load_or_create_keys
from driftline.base import Base, load_base
from driftline.config import BaseModelConfig
from driftline.names import StateFiles
from driftline.registry import Registry
from tests.fixtures.versions import Publisher


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu"))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return load_or_create_keys(StateFiles(tmp_path / "keys"))


@pytest.fixture
def trainer(registry: Registry, signer: Signer, base: Base, tiny_base_dir: Path) -> Iterator[Publisher]:
    trainer = Publisher(registry, signer, base, tiny_base_dir, "f")
    yield trainer
    trainer.close()
