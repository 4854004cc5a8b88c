"""The buffer between stream and learner. What crosses it, one module each; `ls` shows the faces:

intake (what ingest appends) · ledger (what the learner takes and acknowledges) · exams (what versions are measured on)
· fast (what the fast clock takes and leaves behind) · letters · labels · corrections · counts — protocols that say what
any implementation promises, and what they hand over
rules · batch, joining, holdouts, lineage, merging — decisions that any implementation shares: pure, no I/O
sqlite/ — the implementation: one file, opened by `Buffer.open`
"""

from driftline.buffer.corrections import Corrections, NamedCorrection
from driftline.buffer.counts import FeedCounts
from driftline.buffer.exams import Cell, Exams, Labelling, Scored, Segment
from driftline.buffer.fast import FastClockBooks, KeptState, Learned, Lesson
from driftline.buffer.intake import Intake, IntakeCounts
from driftline.buffer.labels import Adopted, Labels
from driftline.buffer.ledger import CycleRow, Ledger, Outcome
from driftline.buffer.letters import LetterRow, Letters
from driftline.buffer.rules import FeedRules, feed_rules
from driftline.buffer.sqlite.buffer import Buffer

__all__ = [
    "Adopted",
    "Buffer",
    "Cell",
    "Corrections",
    "CycleRow",
    "Exams",
    "FastClockBooks",
    "FeedCounts",
    "FeedRules",
    "Intake",
    "IntakeCounts",
    "KeptState",
    "Labelling",
    "Labels",
    "Learned",
    "Ledger",
    "Lesson",
    "LetterRow",
    "Letters",
    "NamedCorrection",
    "Outcome",
    "Scored",
    "Segment",
    "feed_rules",
]
