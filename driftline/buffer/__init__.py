"""The buffer between stream and learner: `Buffer` and what it hands over. One module per concern:

store (SQLite file) · batch, joining (pure rules) · intake (append) · corrections · expiry (waits and bounds) ·
outbox (dead letters) · examples (reading) · labels (their change) · cycles (take, ack, rollback) ·
segments (hold-outs, matrix) · scoring · counters · facade
"""

from driftline.buffer.corrections import NamedCorrection
from driftline.buffer.counters import FeedCounts
from driftline.buffer.cycles import CycleRow, Outcome
from driftline.buffer.facade import Buffer
from driftline.buffer.intake import IntakeCounts
from driftline.buffer.labels import Adopted
from driftline.buffer.outbox import LetterRow
from driftline.buffer.rules import FeedRules, feed_rules
from driftline.buffer.scoring import Scored
from driftline.buffer.segments import Segment

__all__ = [
    "Adopted",
    "Buffer",
    "CycleRow",
    "FeedCounts",
    "FeedRules",
    "IntakeCounts",
    "LetterRow",
    "NamedCorrection",
    "Outcome",
    "Scored",
    "Segment",
    "feed_rules",
]
