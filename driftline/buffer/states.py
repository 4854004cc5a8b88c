"""The states of a row of `events`, and how times are stored."""

from datetime import UTC, datetime, timedelta

PENDING = 0
"""An event that waits for its label."""
AWAITING = 1
"""An example that waits for the prediction that was served for it."""
FRESH = 2
"""An example that the learner may take."""
TAKEN = 3
"""In the open cycle's plan, to be learned or to be offered to the reservoir."""
LEARNED = 4
"""A live version, or an ancestor of it, learned it."""
RETIRED = 5
"""Not to be learned fresh any more; waits to be offered to the reservoir."""
REMEMBERED = 6
"""Was retired and has been offered to the reservoir of a live version."""
SET_ASIDE = 7
"""Only versions that were rolled back learned it."""
HOLDOUT = 8
"""Held out: nothing trains on it."""

WITHDRAWN = 9
"""Its label is not among the feed's any more (`retired_labels`): nothing trains on it and nothing is measured on it."""

UNLEARNABLE = (PENDING, AWAITING, SET_ASIDE, HOLDOUT, WITHDRAWN)
"""Not yet, not now, or never to be learned by either clock."""

STATE_COUNTERS = {
    PENDING: "pending",
    AWAITING: "awaiting_prediction",
    FRESH: "fresh",
    TAKEN: "taken",
    LEARNED: "learned",
    RETIRED: "retired",
    REMEMBERED: "remembered",
    SET_ASIDE: "set_aside",
    HOLDOUT: "holdouts",
    WITHDRAWN: "withdrawn",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since the epoch, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC time that `to_micros` was given."""
    return _EPOCH + timedelta(microseconds=micros)
