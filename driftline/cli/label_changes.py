"""A change of a feed's labels in words: what it will do, for `check`, and what a version's own labels mean."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from driftline.assembly.existing import existing_buffer
from driftline.assembly.label_changes import live_labels
from driftline.cli.output import to_type
from driftline.config import Config
from driftline.errors import BufferStoreError
from driftline.label_change import LabelChange, change_of, refusal
from driftline.phrases import count_of

if TYPE_CHECKING:
    from driftline.records import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What there is of a feed. `labels`: of its buffer, else of its `live` version. `examples` and `set_aside` by
    label; `unknown`: dead letters of labels that were none of the feed's."""

    labels: tuple[str, ...] = ()
    live: tuple[str, ...] = ()
    examples: Mapping[str, int] = field(default_factory=dict)
    set_aside: Mapping[str, int] = field(default_factory=dict)
    unknown: int = 0


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
