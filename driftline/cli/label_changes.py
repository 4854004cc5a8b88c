"""A change of a feed's labels, as every verb meets it: judged first, said in one sentence, then adopted.

What a feed knows is what its buffer recorded, and the labels of its live version. A machine without buffer judges by
the live version alone; where Redis does not answer, the buffer decides.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from driftline.cli.output import count_of, to_type
from driftline.cli.status import existing_buffer, existing_registry
from driftline.config import Config
from driftline.errors import BufferStoreError, ConfigError, DriftlineError
from driftline.label_change import LabelChange, change_of, refusal

if TYPE_CHECKING:
    from driftline.buffer import Buffer
    from driftline.records import Manifest

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What there is of a feed. `labels`: of its buffer, else of its `live` version. `examples` and `set_aside` by
    label; `unknown`: dead letters of labels that were none of the feed's."""

    labels: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    examples: Mapping[str, int] = field(default_factory=dict)
    set_aside: Mapping[str, int] = field(default_factory=dict)
    unknown: int = 0


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


def adopt_labels(config: Config, buffer: "Buffer") -> None:
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


def labels_of_version(config: Config, feed: str, manifest: "Manifest") -> str:
    """What to say when a version with other labels than the config's is made live; "" if they are the same."""
    section = config.feed[feed]
    if manifest.labels == section.labels:
        return ""
    own = f"; version {manifest.version} answers with its own labels: {', '.join(manifest.labels)}"
    problem = refusal(feed, manifest.labels, section, where=f"version {manifest.version}")
    return own if problem is None else f"{own}; processes refuse to start until the config says so, too: {problem}"


def changes_in_words(config: Config, feed: str) -> tuple[bool, list[str]]:
    """Whether the config's labels can be taken up, and what will happen: a line for each change, or the refusal."""
    known = _known(config, feed)
    section = config.feed[feed]
    if (problem := refusal(feed, (*known.labels, *known.live), section)) is not None:
        return False, [problem]
    lines = list(in_words(change_of(known.labels, section), known))
    if not lines and known.live and known.live != section.labels:  # adopted, and not learned yet; or rolled back
        lines = [f"versions in use answer with their own labels until others take their place: {', '.join(known.live)}"]
    return True, lines


def in_words(change: LabelChange, known: Known) -> Iterator[str]:
    """What a consented change will do, one sentence for each class."""
    for label in change.added:
        yield f"adds {label!r}: the head gets a row of zeros{_comes_back(label, known)}"
    for label in change.retired:
        n = count_of(known.examples.get(label, 0), "example")
        yield f"retires {label!r}: {n} will be set aside from learning and measuring"
    for label, name in change.renamed.items():
        n = count_of(known.examples.get(label, 0) + known.set_aside.get(label, 0), "example")
        yield f"{'merges' if name in known.labels else 'renames'} {label!r} into {name!r}: {n} will have that label"
    if change.reordered:
        yield "changes the order: the head's rows move along, answers by name stay the same"


def _comes_back(label: str, known: Known) -> str:
    parts = []
    if count := known.set_aside.get(label, 0):
        parts.append(f"{count_of(count, 'example')} that were set aside will be learned again")
    if known.unknown:
        letters = count_of(known.unknown, "dead letter")
        parts.append(f"{letters} of unknown labels can be tried again: `{to_type('dead-letters retry')}`")
    return "".join(f"; {part}" for part in parts)


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


def _known(config: Config, feed: str) -> Known:
    live = live_labels(config).get(feed, ())
    try:
        buffer = existing_buffer(config)
        if buffer is None:
            return Known(labels=live, live=live)
        with closing(buffer):
            labels = buffer.labels.known(feed) or live
            if not change_of(labels, config.feed[feed]):
                return Known(labels=labels, live=live)
            return Known(
                labels=labels,
                live=live,
                examples=buffer.labels.examples(feed),
                set_aside=buffer.labels.set_aside(feed),
                unknown=buffer.counts(feed).by_reason.get("unknown_label", 0),
            )
    except BufferStoreError:
        return Known(labels=live, live=live)
