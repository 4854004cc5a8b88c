"""What `intake` loads for one batch of one feed's records, and what `joining` leaves behind to be written."""

from dataclasses import dataclass, field

from driftline.buffer.states import PENDING
from driftline.records import DeadLetter, Position


@dataclass(slots=True)
class Answer:
    """A served prediction, and where it stood on the predictions topic. `arrived`: with this batch, or waiting for the
    event until now, so that `feature` is what came with it; of an answer that was stored before it is not read."""

    label: str | None
    version: int
    partition: int | None
    offset: int | None
    feature: bytes | None = None
    arrived: bool = True
    pulse: int = 0

    def before(self, other: "Answer") -> bool:
        """Whether this one stands earlier in the same partition."""
        if self.offset is None or other.offset is None:
            return False
        return self.partition == other.partition and self.offset < other.offset


@dataclass(slots=True)
class Entry:
    """A row of `events`, as it is and as it becomes. `arrival` None: not stored yet."""

    event_id: str
    text: str
    state: int = PENDING
    arrival: int | None = None
    seq: int | None = None
    label: str | None = None
    labelled_at: int | None = None
    joined_at: int | None = None
    holdout: int | None = None
    answer: Answer | None = None
    occurred_at: int = 0
    source: str | None = None
    trusted: bool = False


@dataclass(slots=True)
class WaitingLabel:
    """A label without its event yet, or one that meets another. `row` None: not stored yet."""

    label: str
    labelled_at: int
    position: Position
    value: bytes
    row: int | None = None
    labeller: str | None = None
    trusted: bool = False
    repeated: bool = False


@dataclass(slots=True, frozen=True)
class Corrected:
    """An example whose label was replaced."""

    entry: Entry
    was: str
    becomes: str
    labeller: str | None


@dataclass(slots=True)
class WaitingPrediction:
    """A prediction without its event yet. `row` None: not stored yet."""

    answer: Answer
    row: int | None = None


@dataclass(slots=True)
class Batch:
    """What is known of the ids of one feed's records, and what changed. `retried`: the records were read before."""

    entries: dict[str, Entry] = field(default_factory=dict)
    labels: dict[str, WaitingLabel] = field(default_factory=dict)
    predictions: dict[str, WaitingPrediction] = field(default_factory=dict)
    new: list[Entry] = field(default_factory=list)
    changed: dict[int, Entry] = field(default_factory=dict)
    joined: list[Entry] = field(default_factory=list)
    used_labels: list[int] = field(default_factory=list)
    used_predictions: list[int] = field(default_factory=list)
    letters: list[tuple[str, DeadLetter]] = field(default_factory=list)
    corrected: list[Corrected] = field(default_factory=list)
    due: list[Entry] = field(default_factory=list)
    retried: bool = False
