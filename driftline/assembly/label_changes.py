"""A change of a feed's labels, judged before anything is taken in, then adopted.

What a feed knows is what its buffer recorded, and the labels of its live version. A machine without buffer judges by
the live version alone; where Redis does not answer, the buffer decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from driftline.assembly.existing import existing_buffer, existing_registry
from driftline.config import Config
from driftline.errors import BufferStoreError, ConfigError, DriftlineError
from driftline.label_change import refusal

if TYPE_CHECKING:
    from driftline.buffer import Buffer

log = structlog.get_logger()


def require_labels(config: Config) -> None:
    """ConfigError, one line for each feed of which the config leaves out a class without a word."""
    _require(config, live_labels(config))


def _require(config: Config, live: Mapping[str, tuple[str, ...]]) -> None:
    recorded = _recorded(config)
    problems = (
        refusal(feed, (*recorded.get(feed, ()), *live.get(feed, ())), section) for feed, section in config.feed.items()
    )
    if found := [problem for problem in problems if problem is not None]:
        raise ConfigError("\n".join(found))


def adopt_labels(config: Config, buffer: Buffer) -> None:
    """Make the config's labels those of the buffer, once all feeds' are consented to; says what was done."""
    live = live_labels(config)
    _require(config, live)
    for feed in config.feed:
        adopted = buffer.labels.adopt(feed, datetime.now(UTC), live.get(feed, ()))
        if adopted:
            log.info(
                "labels_adopted",
                feed=feed,
                added=adopted.change.added,
                retired=adopted.change.retired,
                renamed=adopted.change.renamed,
                examples_renamed=adopted.renamed,
                examples_withdrawn=adopted.withdrawn,
                examples_restored=adopted.restored,
            )


def live_labels(config: Config) -> dict[str, tuple[str, ...]]:
    """Feed → labels of its live version, then those that only its anchor has, which the learner compares with; without
    feeds at version 0, and without any where Redis cannot be asked."""
    try:
        return read_live_labels(config)
    except DriftlineError as error:
        log.debug("live_labels_unknown", error=str(error))
        return {}


def read_live_labels(config: Config) -> dict[str, tuple[str, ...]]:
    """As `live_labels`; DriftlineError where Redis cannot be asked, or a manifest cannot be read."""
    from driftline.artefact.manifest import decode_manifest

    found: dict[str, tuple[str, ...]] = {}
    registry = existing_registry(config)
    if registry is None:
        return found
    with closing(registry):
        for feed in config.feed:
            live = registry.live(feed)
            in_use = [version for version in dict.fromkeys((live.version, live.anchor)) if version]
            labels = [decode_manifest(registry.manifest(feed, one).document).labels for one in in_use]
            if labels:
                found[feed] = tuple(dict.fromkeys(label for own in labels for label in own))
    return found


def _recorded(config: Config) -> dict[str, tuple[str, ...]]:
    """What the buffer on this machine knows; nothing where there is none, or none that can be read (told elsewhere)."""
    try:
        buffer = existing_buffer(config)
        if buffer is None:
            return {}
        with closing(buffer):
            return {feed: buffer.labels.known(feed) for feed in config.feed}
    except BufferStoreError:
        return {}
