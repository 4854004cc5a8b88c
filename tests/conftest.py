"""Fixtures for all tests. Servers are real, started once per run, and stopped by their own process ids."""

import logging
import os
import uuid
from collections.abc import Iterator

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.pop("COLUMNS", None)  # a worker of pytest-xdist has 80, which breaks the lines of tables

import pytest
import structlog

from driftline.assembly.bridge import Bridge

pytest_plugins = [
    "tests.fixtures.leaks",
    "tests.fixtures.kafka",
    "tests.fixtures.redis",
    "tests.fixtures.registry",
    "tests.fixtures.fast_serving",
    "tests.fixtures.models",
    "tests.fixtures.cli",
    "tests.fixtures.installation",
    "tests.fixtures.browser",
]


@pytest.fixture
def unique() -> str:
    """A fresh short name, for topics, feeds and key prefixes."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(autouse=True)
def _logs_of_this_test_only() -> Iterator[None]:
    """The command line, run in a test, points the log at that test's streams, which are closed afterwards."""
    yield
    structlog.reset_defaults()
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, Bridge)]:  # else it speaks at the end of the run
        root.removeHandler(handler)
