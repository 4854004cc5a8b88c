"""Fixtures for all tests. Servers are real, started once per run, and stopped by their own process ids."""

import os
import uuid

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest

pytest_plugins = [
    "tests.fixtures.kafka",
    "tests.fixtures.redis",
    "tests.fixtures.registry",
    "tests.fixtures.models",
    "tests.fixtures.cli",
]


@pytest.fixture
def unique() -> str:
    """A fresh short name, for topics, feeds and key prefixes."""
    return f"t{uuid.uuid4().hex[:10]}"
