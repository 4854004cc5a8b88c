"""What Prometheus is told of how good the served answers are, and of their labels.

For the housekeeping thread: it reads the last 1,000 examples of a feed at most every few seconds, their answers only
after something new was labelled. Not covered: answers without a label yet; nobody knows whether they are right.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from driftline import metrics
from driftline.buffer import Buffer
from driftline.config import FeedConfig
from driftline.figures import accuracy, macro_f1

EVERY = timedelta(seconds=5)
LAST_EXAMPLES = 1000
QUANTILES = (0.5, 0.95)


class Quality:
    """Sets the gauges of all feeds. One thread only."""

    def __init__(self, buffer: Buffer, feeds: Mapping[str, FeedConfig]) -> None:
        self._buffer = buffer
        self._feeds = dict(feeds)
        self._measured_at: datetime | None = None
        self._seen: dict[str, tuple[int, ...]] = {}

    def measure(self, now: datetime) -> None:
        """Measure, unless that was done moments ago."""
        if self._measured_at is not None and abs(now - self._measured_at) < EVERY:  # a clock set back must not stop it
            return
        self._measured_at = now
        for feed, section in self._feeds.items():
            self._labelling(feed, now)
            counts = self._buffer.counts(feed)
            seen = (counts.examples, counts.awaiting_prediction, counts.corrected, counts.withdrawn)
            if seen != self._seen.get(feed):
                self._answers(feed, section)
                self._seen[feed] = seen

    def _answers(self, feed: str, section: FeedConfig) -> None:
        """Without scorer only what was answered counts, as in `status`."""
        rows = self._buffer.exams.scored(feed, last=LAST_EXAMPLES)
        scored = [row for row in rows if section.serve.score or row.answered]
        metrics.SERVED_EXAMPLES.labels(feed).set(len(scored))
        predicted, truth = [row.predicted for row in scored], [row.label for row in scored]
        metrics.SERVED_ACCURACY.labels(feed).set(accuracy(predicted, truth) or 0.0)
        metrics.SERVED_MACRO_F1.labels(feed).set(macro_f1(predicted, truth, section.labels) or 0.0)

    def _labelling(self, feed: str, now: datetime) -> None:
        found = self._buffer.exams.labelling(feed, last=LAST_EXAMPLES, now=now)
        if found.coverage is not None:
            metrics.LABEL_COVERAGE.labels(feed).set(found.coverage)
        for share in QUANTILES if found.delays_s else ():
            delay = found.delays_s[round(share * (len(found.delays_s) - 1))]
            metrics.LABEL_DELAY_SECONDS.labels(feed, f"{share:g}").set(delay)
