"""The buffer against a naive model of the joining rules, fed with random interleavings of everything.

The model keeps every record that came and what became of it, in plain dicts, and counts by looking at all of them. It
shares no code with the buffer.
"""

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pytest

from driftline.buffer import Buffer
from driftline.records import DeadLetter, Event, Label, Position, Prediction
from driftline.topics import Partition
from tests.fixtures.buffers import (
    EVENTS,
    FEED,
    KEY,
    LABELS,
    PREDICTIONS,
    at,
    event,
    label,
    letter,
    place,
    prediction,
    rules,
)

LABEL_WAIT_S, EVENT_WAIT_S, PREDICTION_WAIT_S = 50.0, 30.0, 10.0
MAX_EVENTS, MAX_LABELS = 9, 5


@dataclass
class Word:
    """What somebody said that an event is."""

    label: str
    at: datetime
    trusted: bool
    position: Position
    value: bytes
    since: float = 0.0
    repeated: bool = False


@dataclass
class Known:
    """An event that was accepted, or one that waits for nothing any more."""

    text: str
    position: Position
    since: float
    word: Word | None = None
    joined: float | None = None
    answer: tuple[str | None, int, int] | None = None  # label, version, offset
    offered: bool = False


@dataclass
class Naive:
    """What the design says, the slow way."""

    on_conflict: str = "last"
    retrying: bool = False
    known: dict[str, Known] = field(default_factory=dict)
    labels: dict[str, Word] = field(default_factory=dict)
    predictions: dict[str, tuple[str | None, int, int, float]] = field(default_factory=dict)
    fate: dict[Position, str] = field(default_factory=dict)  # of event records
    letters: dict[Position, tuple[str, str, bytes]] = field(default_factory=dict)  # kind, reason, value
    order: list[str] = field(default_factory=list)
    tally: Counter = field(default_factory=Counter)
    corrections: list[tuple[str, str, str]] = field(default_factory=list)  # event, was, becomes

    def take(self, record: Event | Label | Prediction | DeadLetter, now: float) -> None:
        if isinstance(record, Event):
            self.event(record, now)
        elif isinstance(record, Label):
            self.label(record, now)
        elif isinstance(record, Prediction):
            self.prediction(record, now)
        else:
            of_topic = {EVENTS: "event", LABELS: "label", PREDICTIONS: "prediction"}[record.position.topic]
            self.refuse(record.kind or of_topic, record.reason, record.position, record.value)

    def refuse(self, kind: str, reason: str, position: Position, value: bytes) -> None:
        self.letters[position] = (kind, reason, value)
        if kind == "event":
            self.fate[position] = "dead"

    def event(self, e: Event, now: float) -> None:
        if e.event_id in self.known and self.known[e.event_id].text != e.text:
            self.refuse("event", "conflicting_duplicate", e.position, e.value)
            return
        if e.refused_label is not None:
            self.refuse("label", e.refused_label.reason, e.position, e.value)
        self.tally["fell_back"] += e.time_fell_back and e.event_id not in self.known
        if e.event_id in self.known:
            self.fate[e.position] = "duplicate"
        else:
            self.known[e.event_id] = Known(e.text, e.position, now)
            self.fate[e.position] = "pending"
            if e.event_id in self.predictions:
                self.known[e.event_id].answer = self.predictions.pop(e.event_id)[:3]
        if e.label is not None:
            again = self.fate[e.position] == "duplicate"
            self.say(e.event_id, Word(e.label, e.occurred_at, False, e.position, e.value, repeated=again), now)
        if e.event_id in self.labels:
            self.say(e.event_id, self.labels.pop(e.event_id), now)

    def label(self, one: Label, now: float) -> None:
        word = Word(one.label, one.labelled_at, one.labeller == "boss", one.position, one.value, now)
        if one.event_id in self.known:
            self.say(one.event_id, word, now)
        elif one.event_id not in self.labels:
            self.labels[one.event_id] = word
        else:
            old = self.labels[one.event_id]
            if self.wins(old, word):
                del self.labels[one.event_id]
                self.labels[one.event_id] = word
                self.tally["corrected"] += old.label != word.label

    def say(self, event_id: str, word: Word, now: float) -> None:
        k = self.known[event_id]
        if k.word is None:
            k.word, k.joined = word, now
            self.fate[k.position] = "example"
            self.order.append(event_id)
        elif self.wins(k.word, word):
            if k.word.label != word.label:
                self.tally["corrected"] += 1
                self.corrections.append((event_id, k.word.label, word.label))
            k.word = word

    def wins(self, old: Word, new: Word) -> bool:
        if old.label == new.label:
            self.tally["label_duplicates"] += 1
            return new.trusted and not old.trusted
        if new.repeated and self.on_conflict != "dead_letter":
            self.tally["label_duplicates"] += 1
            return False
        if new.trusted != old.trusted:
            won = new.trusted
            lost_as = "letter"
        else:
            later = new.at >= old.at if self.retrying else True
            won = {"last": later, "first": not later, "dead_letter": False}[self.on_conflict]
            lost_as = "letter" if self.on_conflict == "dead_letter" else "duplicate"
        if not won and lost_as == "letter":
            self.refuse("label", "conflicting_label", new.position, new.value)
        elif not won:
            self.tally["label_duplicates"] += 1
        return won

    def prediction(self, p: Prediction, now: float) -> None:
        answer = (p.label, p.adapter_version, p.position.offset)
        if p.event_id in self.known:
            k = self.known[p.event_id]
            if k.answer is None or answer[2] < k.answer[2]:
                k.answer = answer
        elif p.event_id not in self.predictions or answer[2] < self.predictions[p.event_id][2]:
            self.predictions[p.event_id] = (*answer, now)

    def expire(self, now: float) -> None:
        for k in self.known.values():
            k.offered |= k.joined is not None and now - k.joined >= PREDICTION_WAIT_S
        pending = [i for i, k in self.known.items() if k.word is None]
        late = [i for i in pending if now - self.known[i].since >= LABEL_WAIT_S]
        for event_id in pending[: max(len(late), len(pending) - MAX_EVENTS)]:
            self.fate[self.known.pop(event_id).position] = "unlabelled"
        late = [i for i, w in self.labels.items() if now - w.since >= EVENT_WAIT_S]
        for event_id in list(self.labels)[: max(len(late), len(self.labels) - MAX_LABELS)]:
            word = self.labels.pop(event_id)
            self.refuse("label", "no_event", word.position, word.value)
        late = [i for i, w in self.predictions.items() if now - w[3] >= EVENT_WAIT_S]
        for event_id in list(self.predictions)[: max(len(late), len(self.predictions) - MAX_EVENTS)]:
            del self.predictions[event_id]
            self.tally["predictions_expired"] += 1

    def retry(self, position: Position) -> None:
        kind, _, _ = self.letters.pop(position)
        if kind == "event":
            del self.fate[position]


class Run:
    """One random history, applied to both."""

    def __init__(self, seed: int, path: Path) -> None:
        self.rng = random.Random(seed)
        self.path = path
        self.rules = rules(
            label_wait_s=LABEL_WAIT_S,
            event_wait_s=EVENT_WAIT_S,
            prediction_wait_s=PREDICTION_WAIT_S,
            max_waiting_events=MAX_EVENTS,
            max_waiting_labels=MAX_LABELS,
            segment_examples=7,
            on_conflict=self.rng.choice(["last", "last", "first", "dead_letter"]),
            trusted=frozenset({"boss"}),
        )
        self.buffer = Buffer.open(path, self.rules, KEY)
        self.naive = Naive(on_conflict=self.rules[FEED].on_conflict)
        self.now = 0.0
        self.offsets = Counter()

    def record(self) -> Event | Label | Prediction | DeadLetter:
        topic = self.rng.choice([EVENTS, EVENTS, LABELS, PREDICTIONS])
        self.offsets[topic] += self.rng.choice([1, 1, 3])
        return self.content(topic, self.offsets[topic])

    def content(self, topic: str, offset: int) -> Event | Label | Prediction | DeadLetter:
        rng, event_id = self.rng, f"e{self.rng.randrange(30)}"
        if rng.random() < 0.08:
            return letter(topic, offset)
        if topic == LABELS:
            return label(event_id, rng.choice(["neg", "pos"]), offset, rng.choice(["ana", "ana", "boss"]))
        if topic == PREDICTIONS:
            return prediction(event_id, rng.choice(["neg", "pos"]), rng.randrange(1, 4), offset)
        text = f"text of {event_id}" if rng.random() < 0.85 else "another text"
        plain = event(event_id, offset, text, rng.choice([None, None, "neg", "pos"]))
        if plain.label is not None or rng.random() < 0.7:
            return replace(plain, time_fell_back=rng.random() < 0.1)
        refused = letter(EVENTS, offset, rng.choice(["unknown_label", "wrong_type"]))
        return replace(plain, refused_label=replace(refused, value=plain.value, kind="label"))

    def label_of_event(self, offset: int) -> Label | DeadLetter:
        """What a label that was refused inside an event is after a retry."""
        if self.rng.random() < 0.3:
            return replace(letter(EVENTS, offset, "unknown_label"), kind="label")
        found = label(f"e{self.rng.randrange(30)}", self.rng.choice(["neg", "pos"]), offset)
        return replace(found, position=place(EVENTS, offset), labeller=None)

    def step(self) -> None:
        self.rng.choice([self.append, self.append, self.append, self.wait, self.retry, self.reopen])()
        self.compare()

    def append(self) -> None:
        records = [self.record() for _ in range(self.rng.randrange(1, 12))]
        positions = {Partition(topic=topic, partition=0): last + 1 for topic, last in self.offsets.items()}
        for _ in range(self.rng.choice([1, 1, 2])):  # the same batch may come again
            self.buffer.intake.append(records, positions, at(self.now))
        for record in records:
            self.naive.take(record, self.now)

    def wait(self) -> None:
        self.now += self.rng.choice([1, 5, 25, 60])
        self.buffer.intake.expire(at(self.now))
        self.naive.expire(self.now)

    def retry(self) -> None:
        self.buffer.letters.mark_for_retry(FEED, None)
        letters = self.buffer.letters.to_retry(FEED, self.rng.randrange(1, 9))
        again = [
            self.label_of_event(one.position.offset)
            if (one.kind, one.position.topic) == ("label", EVENTS)
            else self.content(one.position.topic, one.position.offset)
            for _, one in letters
        ]
        for _ in range(self.rng.choice([1, 2])):  # the second time nothing is marked any more
            self.buffer.intake.append(again, {}, at(self.now), retried=[number for number, _ in letters])
        for _, one in letters:
            self.naive.retry(one.position)
        self.naive.retrying = True
        for record in again:
            self.naive.take(record, self.now)
        self.naive.retrying = False

    def reopen(self) -> None:
        self.buffer.close()
        self.buffer = Buffer.open(self.path, self.rules, KEY)

    def compare(self) -> None:
        self.compare_counts()
        self.compare_examples()
        found = {
            one.letter.position: (one.letter.reason, one.letter.value)
            for one in self.buffer.letters.newest(FEED, 10**6)
            if one.state != "resolved"
        }
        assert found == {position: (reason, value) for position, (_, reason, value) in self.naive.letters.items()}

    def compare_counts(self) -> None:
        counts, naive = self.buffer.counts(FEED), self.naive
        fates, kinds = Counter(naive.fate.values()), Counter(kind for kind, _, _ in naive.letters.values())
        assert counts.event_records == len(naive.fate)
        assert (counts.examples, counts.unlabelled) == (fates["example"], fates["unlabelled"])
        assert (counts.pending, counts.duplicates) == (fates["pending"], fates["duplicate"])
        assert (counts.dead_letters, counts.label_dead_letters) == (kinds["event"], kinds["label"])
        assert counts.prediction_dead_letters == kinds["prediction"]
        assert counts.dead_letters == fates["dead"]
        assert counts.by_reason == dict(Counter(reason for _, reason, _ in naive.letters.values()))
        assert (counts.labels_waiting, counts.predictions_waiting) == (len(naive.labels), len(naive.predictions))
        assert counts.label_duplicates == naive.tally["label_duplicates"]
        assert counts.corrected == naive.tally["corrected"]
        assert counts.times_fell_back == naive.tally["fell_back"]
        assert counts.predictions_expired == naive.tally["predictions_expired"]
        assert counts.event_records == (
            counts.examples + counts.unlabelled + counts.pending + counts.dead_letters + counts.duplicates
        )

    def compare_examples(self) -> None:
        examples = self.buffer.ledger.examples_after(FEED, 0)
        assert [e.event_id for e in examples] == self.naive.order
        for example in examples:
            k = self.naive.known[example.event_id]
            assert (example.text, example.label, example.labelled_at) == (k.text, k.word.label, k.word.at)
            answer = example.answer and (example.answer.label, example.answer.adapter_version)
            assert answer == (k.answer and k.answer[:2])
        found = [one.correction for one in self.buffer.corrections.newest(FEED)][::-1]
        assert [(one.event_id, one.was, one.becomes) for one in found] == self.naive.corrections
        fresh = {e.event_id for e in self.buffer.ledger.fresh(FEED, 10**6)}
        assert fresh == {i for i in self.naive.order if self.naive.known[i].answer or self.naive.known[i].offered}
        assert self.buffer.ledger.fresh_count(FEED) == len(fresh)


@pytest.mark.parametrize("seed", range(40))
def test_the_buffer_does_what_the_naive_model_does(seed: int, tmp_path: Path) -> None:
    run = Run(seed, tmp_path / "buffer.sqlite3")
    for _ in range(60):
        run.step()
    run.buffer.close()


@pytest.mark.parametrize("seed", range(5))
def test_the_cut_into_batches_changes_nothing(seed: int, tmp_path: Path) -> None:
    source = Run(seed, tmp_path / "unused.sqlite3")
    records = [source.record() for _ in range(300)]
    source.buffer.close()
    whole = Buffer.open(tmp_path / "whole.sqlite3", source.rules, KEY)
    whole.intake.append(records, {}, at(0))
    single = Buffer.open(tmp_path / "single.sqlite3", source.rules, KEY)
    for record in records:
        single.intake.append([record], {}, at(0))
    assert whole.counts(FEED) == single.counts(FEED)
    assert whole.ledger.examples_after(FEED, 0) == single.ledger.examples_after(FEED, 0)
    assert whole.exams.segments(FEED) == single.exams.segments(FEED)
    assert [replace(row, at=at(0)) for row in whole.letters.newest(FEED, 1000)] == [
        replace(row, at=at(0)) for row in single.letters.newest(FEED, 1000)
    ]
    whole.close()
    single.close()
