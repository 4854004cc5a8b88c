"""The buffer: the durable hand-over from the stream to the learner, one SQLite file (DESIGN §1).

Keeps invariants 1, 3 and 4 with the modules beside it; each says there which part.

Delivery: `append` counts each record once, by its position; an example is in at most one open cycle and is given back
until a cycle that has it is promoted. Ordering: examples are numbered in the order they were joined in, and come out
by number. Atomicity: each method is one transaction (`expire`: one per batch), synced to the disk when it
returns. Idempotency: `append` and `ack` may be repeated after a crash. Errors: BufferFull (nothing was written, try
again), BufferStoreError. Safe in several processes and threads.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Self

from driftline.buffer import cycles, examples, intake, labelling, outbox, scoring, segments
from driftline.buffer.corrections import CorrectionBook, newest_version
from driftline.buffer.counters import FeedCounts, read_counter, read_counts, read_total, tallied
from driftline.buffer.expiry import LIMIT as EXPIRY_LIMIT
from driftline.buffer.expiry import Expiry
from driftline.buffer.holdouts import HoldoutSplit
from driftline.buffer.labels import LabelBook, check_adopted
from driftline.buffer.rules import FeedRules
from driftline.buffer.segments import Cell
from driftline.buffer.states import from_micros, to_micros
from driftline.buffer.store import Store, check_split, open_for_reading, open_store
from driftline.errors import BufferStoreError, TopicRecreated
from driftline.records import Cycle, DeadLetter, Example
from driftline.topics import Partition


class Buffer:
    """See the module. Feeds are named as in the config; a feed that the buffer was not opened with is refused."""

    def __init__(self, store: Store, rules: Mapping[str, FeedRules], holdout_key: bytes) -> None:
        self._store = store
        self._rules = dict(rules)
        self._holdout_key = holdout_key
        self._split = HoldoutSplit(holdout_key)
        self.labels = LabelBook(store, self._rules)
        self.corrections = CorrectionBook(store)

    @classmethod
    def open(
        cls,
        path: Path,
        rules: Mapping[str, FeedRules],
        holdout_key: bytes,
        *,
        read_only: bool = False,
        identity: str | None = None,
    ) -> Self:
        """Open the file, and make it if need be (not if `read_only`). BufferStoreError says what is wrong with it.

        `identity`: of a file that is made now (see `identity`); None: one that no other buffer has.
        """
        if read_only:
            return cls(open_for_reading(path), rules, holdout_key)
        shares = {feed: rule.holdout_share for feed, rule in rules.items()}
        return cls(open_store(path, shares, holdout_key, identity), rules, holdout_key)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._store.close()

    def identity(self) -> str:
        """What tells this buffer from all others: whoever keeps its examples' numbers elsewhere keeps it with them."""
        with self._store.reading() as db:
            (identity,) = db.execute("SELECT value FROM settings WHERE name = 'identity'").fetchone()
        return str(identity)

    def check_split(self) -> None:
        """BufferStoreError if opening for writing would refuse this key or these shares. A read-only buffer may ask."""
        shares = {feed: rule.holdout_share for feed, rule in self._rules.items()}
        with self._store.reading() as db:
            check_split(db, self._store.path, shares, self._holdout_key)

    # Ingest

    def positions(self) -> dict[Partition, int]:
        """The next offset of every partition of the feeds' topics that was ever read for that feed."""
        with self._store.reading() as db:
            return intake.all_positions(db, intake.owners(self._numbered()))

    def bind_topic(self, topic: str, identity: str) -> None:
        """Remember which topic its feed's positions belong to. TopicRecreated if it is another one now."""
        feed = intake.owners(self._numbered())[topic]
        with self._store.writing() as db:
            db.execute("INSERT OR IGNORE INTO topics VALUES (?, ?, ?)", (feed, topic, identity))
            query = "SELECT identity FROM topics WHERE feed = ? AND topic = ?"
            (known,) = db.execute(query, (feed, topic)).fetchone()
        if known != identity:
            raise TopicRecreated(
                f"topic {topic!r} was made anew ({identity}; the buffer has read {known}), so the stored positions do "
                "not belong to it: point the config at the old topic or cluster, give the feed a new topic name, or "
                f"move {self._store.path} away to start with an empty buffer"
            )

    def append(
        self,
        records: Sequence[intake.Record],
        positions: Mapping[Partition, int],
        now: datetime,
        *,
        retried: Sequence[int] = (),
    ) -> intake.IntakeCounts:
        """Take the records and move the positions (next offsets), in one transaction.

        Records before the stored position of their partition are skipped, for partitions named in `positions`.
        `retried`: the records come from these dead letters, one each, and `positions` is empty. BufferFull: nothing was
        written.
        """
        feeds = {feed: self._feed(feed) for feed in {record.feed for record in records}}
        with self._store.writing() as db:
            for feed, number in feeds.items():  # what changed in another one holds up none of these
                check_adopted(db, number, self._rules[feed])
            return intake.Intake(db, self._numbered(), self._split, to_micros(now)).take(records, positions, retried)

    def expire(self, now: datetime, *, current: Iterable[str] | None = None) -> None:
        """Apply waits and bounds to every feed.

        `current`: feeds whose topics are read up to date (None: all). Of the others nothing is given up for waiting too
        long, because what it waits for may stand unread on a topic; examples are offered and bounds hold all the same.
        """
        up_to_date = set(self._rules if current is None else current)
        for feed in self._rules:
            for handle in (Expiry.offer, Expiry.let_go, Expiry.refuse_labels, Expiry.drop_predictions):
                while self._expire(feed, handle, to_micros(now), feed in up_to_date) == EXPIRY_LIMIT:
                    pass

    def _expire(self, feed: str, handle: Callable[[Expiry], int], now: int, current: bool) -> int:
        with self._store.writing() as db:
            expiry = Expiry(db, self._feed(feed), self._rules[feed], now, current)
            handled = handle(expiry)
            expiry.write_counts()
        return handled

    def waiting_examples(self) -> int:
        """Examples that wait to be taken, or for their prediction: what back-pressure looks at. Of the config's feeds
        only: nothing would ever take those of others."""
        with self._store.reading() as db:
            return read_total(db, self._feeds(), ("fresh", "awaiting_prediction"))

    def letters_to_send(self, limit: int) -> list[tuple[int, DeadLetter]]:
        """The oldest dead letters that are not on the dead-letter topic yet, at most about 16 MiB of them."""
        with self._store.reading() as db:
            return outbox.waiting(db, outbox.TO_SEND, self._feeds(), limit)

    def mark_sent(self, letters: Sequence[tuple[int, DeadLetter]]) -> None:
        """These, as `letters_to_send` gave them, are durable on the topic."""
        with self._store.writing() as db:
            outbox.mark_sent(db, [(number, letter.reason) for number, letter in letters])

    def letters_to_retry(self, limit: int) -> list[tuple[int, DeadLetter]]:
        """The oldest dead letters marked for retry, at most about 16 MiB of them."""
        with self._store.reading() as db:
            return outbox.waiting(db, outbox.RETRY, self._feeds(), limit)

    def mark_for_retry(self, feed: str | None, ids: Sequence[int] | None) -> int:
        """Mark dead letters (of one feed or all; these numbers or all), so that ingest tries them again; how many."""
        with self._store.writing() as db:
            return outbox.mark_for_retry(db, None if feed is None else self._feed(feed), ids)

    def letters(self, feed: str, limit: int, reason: str | None = None) -> list[outbox.LetterRow]:
        """The feed's newest dead letters, of one reason or all, newest first."""
        with self._store.reading() as db:
            return outbox.listed(db, self._feed(feed), limit, reason)

    def letter_numbers(self, feed: str) -> list[int]:
        """The numbers of the feed's dead letters that are not resolved, those marked for retry included."""
        with self._store.reading() as db:
            return outbox.numbers(db, self._feed(feed))

    def letter_reasons(self, feed: str) -> dict[str, dict[str, int]]:
        """How many dead letters are not resolved: kind (event, label, prediction) → reason → number. Reads them all."""
        with self._store.reading() as db:
            return outbox.reasons(db, self._feed(feed))

    def counts(self, feed: str) -> FeedCounts:
        """All counters of the feed, as of one moment."""
        with self._store.reading() as db:
            return read_counts(db, self._feed(feed))

    def others(self) -> dict[str, int]:
        """Feeds that the file holds and the config does not name, such as one under its old name: how many examples."""
        with self._store.reading() as db:
            known = db.execute("SELECT name, id FROM feeds ORDER BY id").fetchall()
            return {name: read_counter(db, number, "examples") for name, number in known if name not in self._rules}

    # Learner

    def fresh(self, feed: str, limit: int) -> list[Example]:
        """The oldest examples that may be taken: new ones, and those that a rejected cycle gave back."""
        with self._store.reading() as db:
            return examples.fresh(db, self._feed(feed), limit)

    def fresh_count(self, feed: str) -> int:
        """How many examples may be taken."""
        with self._store.reading() as db:
            return read_counter(db, self._feed(feed), "fresh")

    def new_count(self, feed: str) -> int:
        """How many of them no cycle has taken yet: what a tick goes by (a rejection alone starts no update)."""
        with self._store.reading() as db:
            return read_counter(db, self._feed(feed), "fresh") - examples.returned(db, self._feed(feed))

    def example_count(self, feed: str) -> int:
        """How many examples the feed has had in all, hold-outs included."""
        with self._store.reading() as db:
            return read_counter(db, self._feed(feed), "examples")

    def unanswered(self, feed: str) -> tuple[int, int] | None:
        """The least and the greatest number of the examples that wait for the answer that was served."""
        with self._store.reading() as db:
            return examples.unanswered(db, self._feed(feed))

    def retired(self, feed: str, limit: int) -> list[Example]:
        """The oldest examples that wait to be offered to the reservoir."""
        with self._store.reading() as db:
            return examples.retired(db, self._feed(feed), limit)

    def retire_overflow(self, feed: str, keep: int) -> int:
        """Retire the oldest fresh examples beyond the `keep` newest; returns how many. For a paused feed."""
        with tallied(self._store) as (db, tally):
            over = read_counter(db, self._feed(feed), "fresh") - keep
            return cycles.retire_overflow(db, self._feed(feed), over, tally) if over > 0 else 0

    def take(self, cycle: Cycle) -> None:
        """Write the cycle, before anything is trained; its fresh and retired examples are taken.

        BufferStoreError if another cycle of the feed is open, or an example is not available (also: a replayed one that
        is held out); nothing is changed then.
        """
        with tallied(self._store) as (db, tally):
            check_adopted(db, self._feed(cycle.feed), self._rules[cycle.feed])
            cycles.take(db, self._feed(cycle.feed), cycle, tally)

    def open_cycle(self, feed: str) -> Cycle | None:
        """The cycle that was taken and not acknowledged, if any: after a crash it is to be run again."""
        with self._store.reading() as db:
            return cycles.open_cycle(db, self._feed(feed), feed)

    def ack(self, cycle_id: str, outcome: cycles.Outcome) -> None:
        """End a cycle. The same outcome again changes nothing; another one is a BufferStoreError.

        promoted: fresh → learned, retired → remembered. rejected: one attempt more, back to fresh, or retired after
        `max_attempts`. abandoned (nothing was published): back to fresh, no attempt counted.
        """
        with tallied(self._store) as (db, tally):
            feed = cycles.feed_of(db, cycle_id)
            cycles.acknowledge(db, self._feed(feed), self._rules[feed], cycle_id, outcome, tally)

    def last_taken_at(self, feed: str) -> datetime | None:
        """When the feed's newest cycle was taken; None if there was none yet."""
        with self._store.reading() as db:
            (micros,) = db.execute("SELECT MAX(taken_at) FROM cycles WHERE feed = ?", (self._feed(feed),)).fetchone()
        return None if micros is None else from_micros(micros)

    def last_version(self, feed: str) -> int:
        """The greatest version number that a cycle of the feed was taken for; 0 if none."""
        with self._store.reading() as db:
            return newest_version(db, self._feed(feed))

    def has_version(self, feed: str, version: int) -> bool:
        """Whether a cycle of the feed was taken for this version from this buffer, as the file is now."""
        query = "SELECT 1 FROM cycles WHERE feed = ? AND version = ? LIMIT 1"
        with self._store.reading() as db:
            return db.execute(query, (self._feed(feed), version)).fetchone() is not None

    def cycles(self, feed: str) -> list[cycles.CycleRow]:
        """All cycles of the feed in the order they were taken."""
        with self._store.reading() as db:
            return cycles.all_cycles(db, self._feed(feed), feed)

    def lineage(self, feed: str, version: int) -> list[int]:
        """The version, its parent, … down to 0."""
        with self._store.reading() as db:
            return cycles.lineage(cycles.parents(db, self._feed(feed)), version)

    def examples(self, seqs: Sequence[int]) -> list[Example]:
        """These examples in this order. KeyError for a number that there is none of."""
        with self._store.reading() as db:
            return examples.by_number(db, seqs)

    def examples_after(self, feed: str, seq: int) -> list[Example]:
        """The feed's examples with a greater number, hold-outs included, by number."""
        with self._store.reading() as db:
            return examples.after(db, self._feed(feed), seq)

    def reconcile(self, feed: str, live_version: int) -> None:
        """After any change of the live record: examples that only versions outside its lineage learned are set aside,
        those that a version inside learned are learned. Idempotent."""
        with tallied(self._store) as (db, tally):
            cycles.reconcile(db, self._feed(feed), live_version, tally)

    def relearn(self, feed: str) -> int:
        """Make what was set aside fresh again; returns how many."""
        with tallied(self._store) as (db, tally):
            return cycles.relearn(db, self._feed(feed), tally)

    def remember_revision(self, feed: str, revision: int) -> None:
        """Remember the newest revision of the live record that was seen."""
        with self._store.writing() as db:
            db.execute(
                "UPDATE feeds SET seen_revision = MAX(seen_revision, ?) WHERE id = ?", (revision, self._feed(feed))
            )

    def seen_revision(self, feed: str) -> int:
        """The newest revision ever remembered; 0 at the start."""
        with self._store.reading() as db:
            row = db.execute("SELECT seen_revision FROM feeds WHERE id = ?", (self._feed(feed),)).fetchone()
        return row[0] if row else 0

    # Evaluation

    def scored(self, feed: str, *, last: int | None = None) -> list[scoring.Scored]:
        """Examples with the answer each is scored by, in the order their events arrived.

        `last`: only those of the newest so many; None reads the whole feed.
        """
        with self._store.reading() as db:
            return scoring.scored(db, self._feed(feed), last)

    def labelling(self, feed: str, *, last: int, now: datetime) -> labelling.Labelling:
        """How soon and how many of the events get a label, by the newest `last` labelled ones. Through indices only."""
        with self._store.reading() as db:
            return labelling.read(db, self._feed(feed), last, to_micros(now))

    def segments(self, feed: str) -> list[segments.Segment]:
        """All segments in order; the closed ones come first, only the last may still grow."""
        with self._store.reading() as db:
            return segments.read(db, self._feed(feed))

    def recent_holdouts(self, feed: str, n: int) -> list[int]:
        """Numbers of the newest n hold-outs, rising."""
        with self._store.reading() as db:
            return examples.recent_holdouts(db, self._feed(feed), n)

    def close_segment(
        self, feed: str, index: int, row: Mapping[int, tuple[int, int]], version: int, at: datetime
    ) -> None:
        """Close the first segment that is open, with its matrix row (segment index → correct, n) of `version`.

        When more than `max_segments` are closed, neighbours are merged in pairs and all indices change: read the
        segments again. BufferStoreError for any other segment than the first open one.
        """
        with tallied(self._store) as (db, tally):
            check_adopted(db, self._feed(feed), self._rules[feed])
            measured = segments.Measured(index=index, row=row, version=version, at=at)
            segments.close(db, self._feed(feed), self._rules[feed], measured, tally)

    def matrix(self, feed: str) -> list[list[Cell]]:
        """a[i][j] = (correct, n) on the hold-outs of segment j when segment i closed; square, None for j > i."""
        with self._store.reading() as db:
            return segments.matrix(db, self._feed(feed))

    def cached_predictions(self, feed: str, version: int) -> dict[int, str | None]:
        """What `cache_predictions` stored of the version: example number → label."""
        with self._store.reading() as db:
            return scoring.cached(db, self._feed(feed), version)

    def cache_predictions(self, feed: str, version: int, predictions: Mapping[int, str | None]) -> None:
        """Store answers of a version on hold-outs, beside those already there."""
        with self._store.writing() as db:
            check_adopted(db, self._feed(feed), self._rules[feed])
            scoring.cache(db, self._feed(feed), version, predictions)

    def forget_predictions(self, feed: str, keep: set[int]) -> None:
        """Drop the stored answers of all versions but these."""
        with self._store.writing() as db:
            scoring.forget(db, self._feed(feed), keep)

    def _numbered(self) -> dict[str, tuple[int, FeedRules]]:
        return {feed: (self._store.feed_id(feed), rules) for feed, rules in self._rules.items()}

    def _feeds(self) -> list[int]:
        return [self._store.feed_id(feed) for feed in self._rules]

    def _feed(self, feed: str) -> int:
        if feed not in self._rules:
            raise BufferStoreError(
                f"feed {feed!r} is not in the config: its feeds are {', '.join(sorted(self._rules))}"
            )
        return self._store.feed_id(feed)
