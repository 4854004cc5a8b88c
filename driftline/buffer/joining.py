"""The joining rules: which event, label and prediction belong together, and what is a duplicate or a conflict.

Pure: works on what `intake` loaded for one batch and leaves behind what is to be written. No I/O, no clock.
The rules (DESIGN §2 and invariants 3 and 4):

- The first event of an id wins. The same text again is a duplicate; another text is `conflicting_duplicate`.
- An event and its label join in either order. The first label wins; the same again is a duplicate, another one is
  `conflicting_label`. A label inside an event is that event's first label, whatever waited for it; a duplicate event
  that carries a label brings that label.
- The first prediction in topic order counts, also when it comes late, or again out of order after a retry.
- An example is fresh once its prediction came, at once where none is awaited, and never if its text is held out.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from driftline.buffer.counters import Tally
from driftline.buffer.holdouts import HoldoutSplit
from driftline.buffer.rules import FeedRules
from driftline.buffer.states import AWAITING, FRESH, HOLDOUT, PENDING, STATE_COUNTERS, to_micros
from driftline.records import DeadLetter, Event, Label, Position, Prediction


@dataclass(slots=True)
class Answer:
    """A served prediction, and where it stood on the predictions topic."""

    label: str | None
    version: int
    partition: int | None
    offset: int | None

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


@dataclass(slots=True)
class WaitingLabel:
    """A label without its event yet. `row` None: not stored yet."""

    label: str
    labelled_at: int
    position: Position
    value: bytes
    row: int | None = None


@dataclass(slots=True)
class WaitingPrediction:
    """A prediction without its event yet. `row` None: not stored yet."""

    answer: Answer
    row: int | None = None


@dataclass(slots=True)
class Batch:
    """What is known of the ids of one feed's records, and what changed."""

    entries: dict[str, Entry] = field(default_factory=dict)
    labels: dict[str, WaitingLabel] = field(default_factory=dict)
    predictions: dict[str, WaitingPrediction] = field(default_factory=dict)
    new: list[Entry] = field(default_factory=list)
    changed: dict[int, Entry] = field(default_factory=dict)
    joined: list[Entry] = field(default_factory=list)
    used_labels: list[int] = field(default_factory=list)
    used_predictions: list[int] = field(default_factory=list)
    letters: list[tuple[str, DeadLetter]] = field(default_factory=list)


class Joining:
    """Applies one feed's records in order. `now` is in microseconds; `numbers` gives the examples' numbers."""

    def __init__(self, rules: FeedRules, split: HoldoutSplit, batch: Batch, now: int, numbers: Iterator[int]) -> None:
        self.batch = batch
        self.counts: defaultdict[str, int] = defaultdict(int)
        self._rules = rules
        self._split = split
        self._now = now
        self._numbers = numbers

    def take(self, record: Event | Label | Prediction | DeadLetter) -> None:
        """Apply one record."""
        if isinstance(record, Event):
            self._event(record)
        elif isinstance(record, Label):
            self._label(record)
        elif isinstance(record, Prediction):
            self._prediction(record)
        else:
            kind = self._rules.kind_of(record.position.topic)
            if kind == "event":
                self._count("event_records")
            self.batch.letters.append((kind, record))

    def tally(self, tally: Tally, feed: int) -> None:
        """Add what was counted. Letters are counted where they are written."""
        for name, n in self.counts.items():
            tally.add(feed, name, n)

    def _event(self, event: Event) -> None:
        self._count("event_records")
        entry = self.batch.entries.get(event.event_id)
        if entry is None:
            self._first(event)
        elif entry.text != event.text:
            self._refuse(event, "conflicting_duplicate", "an event of this id came before, with another text")
        else:
            self._again(event, entry)

    def _first(self, event: Event) -> None:
        entry = Entry(
            event_id=event.event_id,
            text=event.text,
            holdout=self._split.held_out(event.text, self._rules.holdout_share),
            occurred_at=self._now if event.occurred_at is None else to_micros(event.occurred_at),
            source=event.source,
        )
        self.batch.entries[event.event_id] = entry
        self.batch.new.append(entry)
        self._count("pending")
        self._meet_prediction(entry)
        self._meet_label(event, entry)

    def _again(self, event: Event, entry: Entry) -> None:
        if event.label is None or event.label == entry.label:
            self._count("duplicates")
        elif entry.label is None:
            self._count("duplicates")
            self._join(entry, event.label, self._labelled_at(event))
        else:
            self._refuse(event, "conflicting_label", "an event of this id came before, with another label")

    def _meet_prediction(self, entry: Entry) -> None:
        waiting = self.batch.predictions.pop(entry.event_id, None)
        if waiting is None:
            return
        entry.answer = waiting.answer
        self._count("predictions_waiting", -1)
        if waiting.row is not None:
            self.batch.used_predictions.append(waiting.row)

    def _meet_label(self, event: Event, entry: Entry) -> None:
        waiting = self.batch.labels.pop(entry.event_id, None)
        if waiting is not None:
            self._count("labels_waiting", -1)
            if waiting.row is not None:
                self.batch.used_labels.append(waiting.row)
        if event.label is not None:
            self._join(entry, event.label, self._labelled_at(event))
            if waiting is not None:
                self._second_label(entry, waiting.label, waiting.position, waiting.value)
        elif waiting is not None:
            self._join(entry, waiting.label, waiting.labelled_at)

    def _labelled_at(self, event: Event) -> int:
        moment = event.labelled_at or event.occurred_at
        return self._now if moment is None else to_micros(moment)

    def _label(self, label: Label) -> None:
        entry = self.batch.entries.get(label.event_id)
        waiting = self.batch.labels.get(label.event_id)
        labelled_at = self._now if label.labelled_at is None else to_micros(label.labelled_at)
        if entry is not None and entry.label is None:
            self._join(entry, label.label, labelled_at)
        elif (known := entry or waiting) is not None:
            self._second_label(known, label.label, label.position, label.value or b"")
        else:
            self.batch.labels[label.event_id] = WaitingLabel(
                label.label, labelled_at, label.position, label.value or b""
            )
            self._count("labels_waiting")

    def _second_label(self, known: Entry | WaitingLabel, label: str, position: Position, value: bytes) -> None:
        if known.label == label:
            self._count("label_duplicates")
            return
        detail = "a label of this event came before, and was another one"
        letter = DeadLetter(
            feed=self._rules.feed, reason="conflicting_label", detail=detail, position=position, value=value
        )
        self.batch.letters.append(("label", letter))

    def _prediction(self, prediction: Prediction) -> None:
        position = prediction.position
        answer = Answer(
            prediction.label,
            prediction.adapter_version,
            position.partition if position else None,
            position.offset if position else None,
        )
        entry = self.batch.entries.get(prediction.event_id)
        if entry is not None:
            self._answer_event(entry, answer)
        elif (waiting := self.batch.predictions.get(prediction.event_id)) is None:
            self.batch.predictions[prediction.event_id] = WaitingPrediction(answer)
            self._count("predictions_waiting")
        else:
            self._count("prediction_duplicates")
            if answer.before(waiting.answer) and waiting.row is not None:
                self.batch.used_predictions.append(waiting.row)
            if answer.before(waiting.answer):
                self.batch.predictions[prediction.event_id] = WaitingPrediction(answer)

    def _answer_event(self, entry: Entry, answer: Answer) -> None:
        if entry.answer is not None:
            self._count("prediction_duplicates")
            if not answer.before(entry.answer):
                return
        entry.answer = answer
        if entry.state == AWAITING:
            self._move(entry, FRESH)
        self._touch(entry)

    def _join(self, entry: Entry, label: str, labelled_at: int) -> None:
        entry.label = label
        entry.labelled_at = labelled_at
        entry.joined_at = self._now
        entry.seq = next(self._numbers)
        if entry.holdout is not None:
            self._move(entry, HOLDOUT)
        else:
            awaits = self._rules.await_predictions and entry.answer is None
            self._move(entry, AWAITING if awaits else FRESH)
        self._count("examples")
        self.batch.joined.append(entry)
        self._touch(entry)

    def _move(self, entry: Entry, state: int) -> None:
        self._count(STATE_COUNTERS[entry.state], -1)
        self._count(STATE_COUNTERS[state])
        entry.state = state

    def _touch(self, entry: Entry) -> None:
        if entry.arrival is not None:
            self.batch.changed[entry.arrival] = entry

    def _refuse(self, event: Event, reason: str, detail: str) -> None:
        letter = DeadLetter(
            feed=event.feed, reason=reason, detail=detail, position=event.position, value=event.value or b""
        )
        self.batch.letters.append(("event", letter))

    def _count(self, name: str, n: int = 1) -> None:
        self.counts[name] += n
