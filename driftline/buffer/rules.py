"""What the buffer must know of a feed: labels, waits, bounds and shares. Plain values, so that tests can make them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from driftline.config import FeedConfig, FeedTopics, IngestConfig, LabelsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedRules:
    """How one feed's records are joined, held out and bounded. Waits in seconds, bounds in rows of this feed.
    `trusted`: labellers whose labels correct those of all others. `fast`: whether it has a fast clock."""

    feed: str
    topics: FeedTopics
    labels: tuple[str, ...]
    retired_labels: tuple[str, ...] = ()
    label_map: Mapping[str, str] = field(default_factory=dict)
    holdout_share: float = 0.1
    label_wait_s: float = 7 * 86400.0
    event_wait_s: float = 86400.0
    prediction_wait_s: float = 60.0
    await_predictions: bool = True
    segment_examples: int = 1000
    max_segments: int = 16
    segment_holdouts: int = 200
    max_waiting_events: int = 1_000_000
    max_waiting_labels: int = 1_000_000
    keep_letters_s: float = 30 * 86400.0
    max_letter_bytes: int = 1 << 30
    max_attempts: int = 3
    on_conflict: str = "last"
    trusted: frozenset[str] = frozenset()
    fast: bool = False


def feed_rules(
    name: str, feed: FeedConfig, topics: FeedTopics, ingest: IngestConfig, labels: LabelsConfig | None = None
) -> FeedRules:
    """The rules that the config sets for a feed."""
    labels = labels or LabelsConfig()
    return FeedRules(
        feed=name,
        topics=topics,
        labels=feed.labels,
        retired_labels=feed.retired_labels,
        label_map=feed.label_map,
        holdout_share=feed.evaluation.holdout_share,
        label_wait_s=feed.label_wait_s,
        event_wait_s=feed.event_wait_s,
        prediction_wait_s=feed.prediction_wait_s,
        await_predictions=feed.serve.score,
        segment_examples=feed.evaluation.segment_examples,
        max_segments=feed.evaluation.max_segments,
        segment_holdouts=feed.evaluation.segment_holdouts,
        max_waiting_events=ingest.max_waiting_events,
        max_waiting_labels=ingest.max_waiting_labels,
        keep_letters_s=ingest.keep_letters_s,
        max_letter_bytes=ingest.max_letter_bytes,
        max_attempts=feed.learner.max_attempts,
        on_conflict=labels.on_conflict,
        trusted=frozenset(labels.trusted),
        fast=feed.fast.enabled,
    )
