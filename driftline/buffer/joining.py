"""The joining rules: which event, label and prediction belong together, and what is a duplicate or a conflict.

Pure: works on what `intake` loaded for one batch and leaves behind what is to be written. No I/O, no clock.
The rules (DESIGN §2 and invariants 3 and 4):

- The first event of an id wins. The same text again is a duplicate; another text is `conflicting_duplicate`.
- An event and its label join in either order. A label inside an event is that event's first label, whatever waited for
  it; a duplicate event that carries a label brings that label, by no labeller, but corrects no other: it may be the
  same record, delivered twice. One that cannot be used is a dead letter of a label, at the event's position; the event
  is one without label.
- Of two labels that differ, a trusted labeller's stands, whenever it comes; the other is `conflicting_label`. Between
  equals `on_conflict` decides: the last one stands (a correction), or the first (the other is counted a label
  duplicate), or the first with a `conflicting_label`. Later is what is read later; labels that are retried are placed
  by their times. Labels that wait for their event replace each other in the same way. The label of a withdrawn example
  yields to any of the feed's.
- The first prediction in topic order counts, also when it comes late, or again out of order after a retry.
- An example is fresh once its prediction came, at once where none is awaited, and never if its text is held out. Then
  it is due for the fast clock, and again whenever its label is corrected.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from driftline.buffer.batch import Answer, Batch, Corrected, Entry, WaitingLabel, WaitingPrediction
from driftline.buffer.counts import LABEL, WITHDRAWN_LABEL
from driftline.buffer.holdouts import HoldoutSplit
from driftline.buffer.rules import FeedRules
from driftline.buffer.states import (
    AWAITING,
    FRESH,
    HOLDOUT,
    LEARNED,
    REMEMBERED,
    RETIRED,
    STATE_COUNTERS,
    TAKEN,
    WITHDRAWN,
    to_micros,
)
from driftline.records import DeadLetter, Event, Label, Prediction, Record


class Joining:
    """Applies one feed's records in order. `now` is in microseconds; `numbers` gives the examples' numbers."""

    def __init__(self, rules: FeedRules, split: HoldoutSplit, batch: Batch, now: int, numbers: Iterator[int]) -> None:
        self.batch = batch
        self.counts: defaultdict[str, int] = defaultdict(int)
        self._rules = rules
        self._split = split
        self._now = now
        self._numbers = numbers

    def take(self, record: Record) -> None:
        """Apply one record."""
        if isinstance(record, Event):
            self._event(record)
        elif isinstance(record, Label):
            self._label(record)
        elif isinstance(record, Prediction):
            self._prediction(record)
        else:
            kind = record.kind or self._rules.topics.kind_of(record.position.topic)
            if kind == "event":
                self._count("event_records")
            self.batch.letters.append((kind, record))

    def _event(self, event: Event) -> None:
        self._count("event_records")
        entry = self.batch.entries.get(event.event_id)
        if entry is not None and entry.text != event.text:
            self._refuse(event)
            return
        if event.refused_label is not None:
            self.batch.letters.append(("label", event.refused_label))
        if entry is None:
            self._first(event)
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
        if event.time_fell_back:
            self._count("times_fell_back")
        self._meet_prediction(entry)
        self._meet_label(event, entry)

    def _again(self, event: Event, entry: Entry) -> None:
        self._count("duplicates")
        if event.label is not None:
            self._label_event(entry, replace(self._inside(event, event.label), repeated=True))

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
            self._label_event(entry, self._inside(event, event.label))
        if waiting is not None:
            self._label_event(entry, waiting)

    def _inside(self, event: Event, label: str) -> WaitingLabel:
        """The label that an event carries."""
        moment = event.labelled_at or event.occurred_at
        labelled_at = self._now if moment is None else to_micros(moment)
        return WaitingLabel(label, labelled_at, event.position, event.value or b"")

    def _label(self, label: Label) -> None:
        if label.time_fell_back:
            self._count("times_fell_back")
        given = WaitingLabel(
            label.label,
            self._now if label.labelled_at is None else to_micros(label.labelled_at),
            label.position,
            label.value or b"",
            labeller=label.labeller,
            trusted=label.labeller in self._rules.trusted,
            repeated=label.repeated,
        )
        entry, waiting = self.batch.entries.get(label.event_id), self.batch.labels.get(label.event_id)
        if entry is not None:
            self._label_event(entry, given)
        elif waiting is None:
            self.batch.labels[label.event_id] = given
            self._count("labels_waiting")
        elif self._replaces(waiting, given):
            if waiting.label != given.label:
                self._count("corrected")
            if waiting.row is not None:
                self.batch.used_labels.append(waiting.row)
            del self.batch.labels[label.event_id]  # the new one waits at the end
            self.batch.labels[label.event_id] = given

    def _label_event(self, entry: Entry, given: WaitingLabel) -> None:
        """The event's first label makes it an example; a later one may correct it."""
        if entry.label is None:
            self._join(entry, given)
        elif self._replaces(entry, given):
            if entry.label != given.label:
                self._correct(entry, given)
            entry.label, entry.labelled_at, entry.trusted = given.label, given.labelled_at, given.trusted
            self._touch(entry)

    def _replaces(self, known: Entry | WaitingLabel, given: WaitingLabel) -> bool:
        """Whether a second label takes the place of the one that stands; one that does not is accounted for. The same
        label does if a trusted labeller vouches for it now."""
        if isinstance(known, Entry) and known.state == WITHDRAWN and given.label in self._rules.labels:
            return True  # whoever said it, there is no such class any more
        if known.label == given.label:
            self._count("label_duplicates")
            return given.trusted and not known.trusted
        if given.repeated and self._rules.on_conflict != "dead_letter":
            self._count("label_duplicates")  # a producer that delivers twice must not undo a correction
            return False
        if known.trusted != given.trusted:
            if not given.trusted:
                self._refuse_label(given, "a trusted labeller's label of this event stands")
            return given.trusted
        if self._rules.on_conflict == "dead_letter":
            self._refuse_label(given, "another label of this event came before")
            return False
        replaces = self._later(known, given) == (self._rules.on_conflict == "last")
        if not replaces:
            self._count("label_duplicates")
        return replaces

    def _later(self, known: Entry | WaitingLabel, given: WaitingLabel) -> bool:
        """What is read later is later. A retried label was read before, nobody knows how long: its time places it."""
        return not self.batch.retried or given.labelled_at >= (known.labelled_at or 0)

    def _correct(self, entry: Entry, given: WaitingLabel) -> None:
        """Where that sends an example, the versions tell that have learned it: the intake's part."""
        was = str(entry.label)
        self.batch.corrected.append(Corrected(entry, was, given.label, given.labeller))
        self._count((WITHDRAWN_LABEL if entry.state == WITHDRAWN else LABEL) + was, -1)
        self._count(LABEL + given.label)
        if entry.state in (LEARNED, REMEMBERED, RETIRED):
            self._move(entry, FRESH)
        elif entry.state == WITHDRAWN:  # its label is among the feed's again
            self._move(entry, FRESH if entry.holdout is None else HOLDOUT)
        elif entry.state in (FRESH, TAKEN):
            self.batch.due.append(entry)
        self._count("corrected")

    def _refuse_label(self, label: WaitingLabel, detail: str) -> None:
        letter = DeadLetter(
            feed=self._rules.feed,
            reason="conflicting_label",
            detail=detail,
            position=label.position,
            value=label.value,
            kind="label",
        )
        self.batch.letters.append(("label", letter))

    def _prediction(self, prediction: Prediction) -> None:
        if prediction.time_fell_back:
            self._count("times_fell_back")
        position = prediction.position
        answer = Answer(
            prediction.label,
            prediction.adapter_version,
            position.partition if position else None,
            position.offset if position else None,
            prediction.feature if self._rules.fast else None,
            pulse=prediction.pulse,
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

    def _join(self, entry: Entry, given: WaitingLabel) -> None:
        entry.label, entry.labelled_at, entry.trusted = given.label, given.labelled_at, given.trusted
        entry.joined_at = self._now
        entry.seq = next(self._numbers)
        if entry.holdout is not None:
            self._move(entry, HOLDOUT)
        else:
            awaits = self._rules.await_predictions and entry.answer is None
            self._move(entry, AWAITING if awaits else FRESH)
        self._count("examples")
        self._count(LABEL + given.label)
        self.batch.joined.append(entry)
        self._touch(entry)

    def _move(self, entry: Entry, state: int) -> None:
        self._count(STATE_COUNTERS[entry.state], -1)
        self._count(STATE_COUNTERS[state])
        entry.state = state
        if state == FRESH:
            self.batch.due.append(entry)

    def _touch(self, entry: Entry) -> None:
        if entry.arrival is not None:
            self.batch.changed[entry.arrival] = entry

    def _refuse(self, event: Event) -> None:
        letter = DeadLetter(
            feed=event.feed,
            reason="conflicting_duplicate",
            detail="an event of this id came before, with another text",
            position=event.position,
            value=event.value or b"",
        )
        self.batch.letters.append(("event", letter))

    def _count(self, name: str, n: int = 1) -> None:
        self.counts[name] += n
