"""What a corrected label does to an example: by hand, and as what must hold after any order of everything."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from driftline.buffer import Buffer
from driftline.buffer.states import FRESH, LEARNED, REMEMBERED, RETIRED, SET_ASIDE, TAKEN
from driftline.cli.examples import read_corrections, show_corrections
from driftline.config import FeedConfig
from driftline.records import DeadLetter
from driftline.topics.codec import Codec
from stream.dead_letters import as_it_came
from tests.fixtures.buffers import EVENTS, FEED, KEY, LABELS, at, cycle, event, label, place, rules, up_to


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "buffer.sqlite3"


@pytest.fixture
def buffer(path: Path):
    opened = Buffer.open(path, rules(await_predictions=False, trusted=frozenset({"boss"})), KEY)
    opened.intake.append([event(f"e{i}", i, label="pos") for i in range(1, 11)], up_to(EVENTS, 30), at(0))
    yield opened
    opened.close()


def states(path: Path) -> dict[int, int]:
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT seq, state FROM examples"))


def correct(buffer: Buffer, *seqs: int, to: str = "neg", labeller: str = "ana", offset: int = 100) -> None:
    """Each seq is that of the event of its number."""
    buffer.intake.append([label(f"e{seq}", to, offset, labeller) for seq in seqs], {}, at(1))


def learn(buffer: Buffer, version: int, fresh: list[int], outcome: str = "promoted", **plan: object) -> None:
    buffer.ledger.take(cycle(version, fresh, **{"parent": version - 1} | plan))
    buffer.ledger.ack(f"cycle-{version}", outcome)


def named(buffer: Buffer) -> list[tuple[int, str, str, tuple[int, ...]]]:
    found = buffer.corrections.newest(FEED)
    return [(one.correction.seq, one.correction.was, one.correction.becomes, one.learned_by) for one in found]


def test_a_learned_example_is_fresh_again_and_the_versions_that_learned_it_are_named(
    buffer: Buffer, path: Path
) -> None:
    learn(buffer, 1, [1, 2, 3])
    learn(buffer, 2, [4, 5], replayed=(1, 3))
    correct(buffer, 1, 2, 6)
    assert {seq: state for seq, state in states(path).items() if seq < 7} == {
        1: FRESH,
        2: FRESH,
        3: LEARNED,
        4: LEARNED,
        5: LEARNED,
        6: FRESH,
    }
    assert [example.label for example in buffer.ledger.examples(FEED, [1, 2, 3])] == ["neg", "neg", "pos"]
    assert named(buffer) == [(6, "pos", "neg", ()), (2, "pos", "neg", (1,)), (1, "pos", "neg", (1, 2))]
    assert buffer.corrections.newest(FEED, 1)[0].correction.labeller == "ana"
    assert buffer.counts(FEED).corrected == 3
    assert buffer.corrections.labels(FEED, [1, 3]) == {1: "neg"}
    buffer.ledger.reconcile(FEED, 2, 0)
    assert states(path)[1] == FRESH, "that version 1 had learned it does not make it learned"
    learn(buffer, 3, [1, 2])
    buffer.ledger.reconcile(FEED, 3, 0)
    assert states(path)[1] == LEARNED
    correct(buffer, 1, to="pos", offset=101)
    assert named(buffer)[0] == (1, "neg", "pos", (3,)), "only what learned this wrong label"


def test_corrected_while_taken_it_is_fresh_after_the_promotion(buffer: Buffer, path: Path) -> None:
    buffer.ledger.take(cycle(1, [1, 2]))
    correct(buffer, 1)
    assert states(path)[1] == TAKEN
    buffer.ledger.ack("cycle-1", "promoted")
    buffer.ledger.reconcile(FEED, 1, 0)
    assert (states(path)[1], states(path)[2]) == (FRESH, LEARNED)
    assert named(buffer) == [(1, "pos", "neg", (1,))]
    assert buffer.ledger.new_count(FEED) == 9


def test_a_rejection_does_not_count_against_what_was_corrected_meanwhile(buffer: Buffer, path: Path) -> None:
    for version in (1, 2):
        learn(buffer, version, [1, 2], "rejected", parent=0)
    buffer.ledger.take(cycle(3, [1, 2]))
    correct(buffer, 1)
    buffer.ledger.ack("cycle-3", "rejected")
    assert (states(path)[1], states(path)[2]) == (FRESH, RETIRED)
    assert buffer.ledger.new_count(FEED) == 9, "with all its attempts"
    correct(buffer, 2)
    assert states(path)[2] == FRESH


def test_a_promotion_by_hand_of_what_learned_the_wrong_label_leaves_it_fresh(buffer: Buffer, path: Path) -> None:
    learn(buffer, 1, [1, 2], "rejected")
    correct(buffer, 1)
    buffer.ledger.reconcile(FEED, 1, 0)
    assert (states(path)[1], states(path)[2]) == (FRESH, LEARNED)


def test_set_aside_it_stays_until_versions_with_the_wrong_label_are_live_again(buffer: Buffer, path: Path) -> None:
    learn(buffer, 1, [1, 2])
    buffer.ledger.reconcile(FEED, 0, 0)
    correct(buffer, 1)
    assert (states(path)[1], states(path)[2]) == (SET_ASIDE, SET_ASIDE)
    buffer.ledger.reconcile(FEED, 1, 0)
    assert (states(path)[1], states(path)[2]) == (FRESH, LEARNED)


def test_a_remembered_one_is_learned_after_all(buffer: Buffer, path: Path) -> None:
    buffer.ledger.retire_overflow(FEED, keep=8)
    learn(buffer, 1, [3], retired=(1, 2))
    assert states(path)[1] == REMEMBERED
    correct(buffer, 1)
    assert (states(path)[1], states(path)[2]) == (FRESH, REMEMBERED)


def test_a_holdout_is_measured_by_its_new_label(tmp_path: Path) -> None:
    buffer = Buffer.open(tmp_path / "b.sqlite3", rules(await_predictions=False, holdout_share=0.999), KEY)
    buffer.intake.append([event("e1", 1, label="pos")], {}, at(0))
    buffer.exams.cache_predictions(FEED, 1, {1: "pos"})
    correct(buffer, 1)
    assert (buffer.exams.recent_holdouts(FEED, 9), buffer.exams.segments(FEED)[0].holdouts) == ([1], (1,))
    assert buffer.ledger.examples(FEED, [1])[0].label == "neg"
    assert buffer.exams.cached_predictions(FEED, 1) == {1: "pos"}
    assert buffer.counts(FEED).holdouts == 1
    buffer.close()


def test_a_trusted_labeller_stands_above_all_others(buffer: Buffer) -> None:
    correct(buffer, 1, labeller="boss")
    correct(buffer, 1, to="pos", offset=101)
    assert buffer.ledger.examples(FEED, [1])[0].label == "neg"
    (row,) = buffer.letters.newest(FEED, 10)
    assert (row.letter.reason, row.letter.kind, row.letter.position.topic) == ("conflicting_label", "label", LABELS)
    correct(buffer, 2, to="pos", labeller="boss", offset=102)
    correct(buffer, 2, offset=103)
    assert buffer.ledger.examples(FEED, [2])[0].label == "pos", "the boss said the same, so it stands"
    correct(buffer, 1, to="pos", labeller="boss", offset=104)
    assert buffer.ledger.examples(FEED, [1])[0].label == "pos", "between equals the last one counts"


def test_the_command_line_names_who_learned_a_wrong_label(buffer: Buffer, capsys: pytest.CaptureFixture[str]) -> None:
    learn(buffer, 1, [1, 2])
    learn(buffer, 2, [3], replayed=(1,))
    correct(buffer, 1, 5)
    rows = read_corrections(buffer, FEED, None)
    assert [(row["id"], row["was"], row["becomes"], row["learned_by"]) for row in rows] == [
        ("e5", "pos", "neg", ()),
        ("e1", "pos", "neg", (1, 2)),
    ]
    show_corrections(FEED, rows)
    shown = capsys.readouterr().out
    assert "learned wrongly by" in shown
    assert "1, 2" in shown
    show_corrections(FEED, [])
    assert "no label of reviews was corrected" in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_learned_by_its_wrong_label_alone_in_any_order(path: Path, seed: int) -> None:
    """After every step: learned is exactly what a version of the live lineage learned after its last correction (of
    what no open cycle holds), and every example is counted once."""
    run = _Run(path, seed)
    for _ in range(40):
        run.step()
    run.buffer.close()


class _Run:
    def __init__(self, path: Path, seed: int) -> None:
        self.rng, self.path = random.Random(seed), path
        self.rules = rules(await_predictions=False, max_attempts=2)
        self.buffer = Buffer.open(path, self.rules, KEY)
        self.buffer.intake.append([event(f"e{i}", i, label="pos") for i in range(1, 13)], {}, at(0))
        self.version = self.live = self.offset = 0
        self.parent: dict[int, int] = {}
        self.plans: dict[int, tuple[list[int], tuple[int, ...]]] = {}
        self.adopted: set[int] = set()
        self.corrected: dict[int, int] = {}
        self.labels = dict.fromkeys(range(1, 13), "pos")

    def step(self) -> None:
        busy = self.buffer.ledger.open_cycle(FEED) is not None
        turn = [self.end] if busy else [self.take, self.take, self.go_live, self.relearn, self.promote_by_hand]
        self.rng.choice([*turn, *turn, self.correct, self.reopen])()
        self.check()

    def correct(self) -> None:
        self.offset += 1
        seq = self.rng.randrange(1, 13)
        self.labels[seq] = "neg" if self.labels[seq] == "pos" else "pos"
        self.corrected[seq] = self.version
        correct(self.buffer, seq, to=self.labels[seq], offset=self.offset)

    def take(self) -> None:
        fresh = [example.seq for example in self.buffer.ledger.fresh(FEED, self.rng.randrange(1, 6))]
        retired = tuple(example.seq for example in self.buffer.ledger.retired(FEED, 3))
        if not fresh:
            return
        self.version += 1
        self.parent[self.version], self.plans[self.version] = self.live, (fresh, retired)
        self.buffer.ledger.take(cycle(self.version, fresh, parent=self.live, retired=retired))

    def end(self) -> None:
        outcome = self.rng.choice(["promoted", "promoted", "rejected", "abandoned"])
        self.buffer.ledger.ack(f"cycle-{self.version}", outcome)
        if outcome == "promoted":
            self.adopted.add(self.version)
            self.live = self.version
        elif outcome == "abandoned":
            del self.plans[self.version]
        self.buffer.ledger.reconcile(FEED, self.live, 0)

    def go_live(self) -> None:
        self.live = self.rng.choice([0, *sorted(self.adopted)])
        self.buffer.ledger.reconcile(FEED, self.live, 0)

    def promote_by_hand(self) -> None:
        self.live = self.rng.choice([0, *sorted(self.plans)])
        self.adopted |= {v for v in self.lineage() if v}
        self.buffer.ledger.reconcile(FEED, self.live, 0)

    def relearn(self) -> None:
        self.buffer.ledger.relearn(FEED)
        self.buffer.ledger.reconcile(FEED, self.live, 0)

    def reopen(self) -> None:
        self.buffer.close()
        self.buffer = Buffer.open(self.path, self.rules, KEY)

    def lineage(self) -> list[int]:
        line = [self.live]
        while line[-1]:
            line.append(self.parent[line[-1]])
        return line

    def check(self) -> None:
        found, counts = states(self.path), self.buffer.counts(FEED)
        examples = self.buffer.ledger.examples(FEED, range(1, 13))
        assert [example.label for example in examples] == list(self.labels.values())
        for name, state in (("fresh", FRESH), ("learned", LEARNED), ("taken", TAKEN), ("set_aside", SET_ASIDE)):
            assert getattr(counts, name) == sum(one == state for one in found.values())
        learned = {
            seq
            for version in self.lineage()
            if version in self.adopted
            for seq in self.plans[version][0]
            if version > self.corrected.get(seq, 0)
        }
        taken = {seq for seq, state in found.items() if state == TAKEN}
        assert {seq for seq, state in found.items() if state == LEARNED} == learned - taken


def test_an_event_that_is_delivered_twice_undoes_no_correction(buffer: Buffer) -> None:
    correct(buffer, 1)
    buffer.intake.append([event("e1", 60, label="pos")], {}, at(2))
    assert [example.label for example in buffer.ledger.examples(FEED, [1])] == ["neg"]
    counts = buffer.counts(FEED)
    assert (counts.corrected, counts.duplicates, counts.label_duplicates, counts.label_dead_letters) == (1, 1, 1, 0)


def test_a_refused_label_without_a_time_of_its_own_is_not_later_than_what_came_since(buffer: Buffer) -> None:
    """It is placed by when it was refused, though its record says nothing of a time."""
    codec = Codec(FEED, FeedConfig(labels=("neg", "pos"), label_map={"1": "neg"}))
    refused = DeadLetter(
        feed=FEED,
        reason="unknown_label",
        detail="…",
        position=place(LABELS, 70),
        value=b'{"id": "e1", "label": "1"}',
        kind="label",
    )
    buffer.intake.append([refused], {}, at(1))
    correct(buffer, 1, to="neg", offset=200)
    correct(buffer, 1, to="pos", offset=300)
    assert buffer.letters.mark_for_retry(FEED, None) == 1
    [(number, letter)] = buffer.letters.to_retry(FEED, 10)
    assert letter.at == at(1)
    buffer.intake.append([codec.label(as_it_came(letter))], {}, at(500), retried=[number])
    assert [example.label for example in buffer.ledger.examples(FEED, [1])] == ["pos"]
