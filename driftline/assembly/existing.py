"""What is there already, opened for reading only: verbs that look start and make nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from driftline.config import Config
from driftline.errors import RegistryUnavailable
from driftline.names import StateFiles

if TYPE_CHECKING:
    from driftline.buffer import Buffer
    from driftline.registry import Registry


def existing_registry(config: Config) -> Registry | None:
    """The registry for reading; None where the embedded Redis was never started.

    Reading starts no server: RegistryUnavailable if the embedded one is not running now.
    """
    from driftline.assembly.wiring import build_registry
    from driftline.registry.embedded import running_embedded

    files = StateFiles(config.state.path)
    if config.redis.url == "embedded":
        if not files.redis.exists():
            return None
        if running_embedded(files) is None:
            raise RegistryUnavailable("the embedded Redis is not running: `driftline up` starts it")
    return build_registry(config)


def existing_buffer(config: Config) -> Buffer | None:
    """The buffer for reading, or None where ingest never ran."""
    if not StateFiles(config.state.path).buffer.exists():
        return None
    from driftline.assembly.wiring import open_buffer

    return open_buffer(config, read_only=True)
