"""Cycles: taken, acknowledged, and what a rollback does to learned examples (see `driftline.buffer.ledger`)."""

import json
import sqlite3
from collections.abc import Iterable, Sequence

from driftline.buffer.ledger import CycleRow, Outcome
from driftline.buffer.lineage import lineage
from driftline.buffer.rules import FeedRules
from driftline.buffer.sqlite import corrections
from driftline.buffer.sqlite.counters import Tally
from driftline.buffer.states import (
    FRESH,
    HOLDOUT,
    LEARNED,
    REMEMBERED,
    RETIRED,
    SET_ASIDE,
    TAKEN,
    WITHDRAWN,
    from_micros,
    to_micros,
)
from driftline.errors import BufferStoreError
from driftline.records import Cycle, Plan


def take(db: sqlite3.Connection, feed: int, cycle: Cycle, tally: Tally) -> None:
    """Write the cycle and mark its fresh and retired examples taken."""
    if (other := open_cycle(db, feed, cycle.feed)) is not None:
        raise BufferStoreError(f"feed {cycle.feed!r}: cycle {other.cycle_id} is still open: acknowledge it first")
    plan = cycle.plan
    _check_trainable(db, feed, cycle)
    for seqs, state in ((plan.fresh, FRESH), (plan.retired, RETIRED)):
        if move(db, feed, seqs, state, TAKEN, tally) != len(seqs):
            raise BufferStoreError(
                f"feed {cycle.feed!r}: cycle {cycle.cycle_id} names an example that is not available"
            )
    newest = max((*plan.fresh, *plan.replayed), default=0)
    document = json.dumps({"fresh": plan.fresh, "replayed": plan.replayed, "retired": plan.retired})
    db.execute(
        "INSERT INTO cycles (cycle_id, feed, parent, version, seed, taken_at, newest, plan) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (cycle.cycle_id, feed, cycle.parent, cycle.version, cycle.seed, to_micros(cycle.taken_at), newest, document),
    )


def _check_trainable(db: sqlite3.Connection, feed: int, cycle: Cycle) -> None:
    """Replayed examples exist, are this feed's, and are neither held out nor withdrawn."""
    wanted = set(cycle.plan.replayed)
    (found,) = db.execute(
        "SELECT COUNT(*) FROM events WHERE seq IN (SELECT value FROM json_each(?)) AND feed = ? "
        "AND state NOT IN (?, ?)",
        (json.dumps(sorted(wanted)), feed, HOLDOUT, WITHDRAWN),
    ).fetchone()
    if found != len(wanted):
        raise BufferStoreError(
            f"feed {cycle.feed!r}: cycle {cycle.cycle_id} replays an example that is unknown, held out or withdrawn"
        )


def open_cycle(db: sqlite3.Connection, feed: int, name: str) -> Cycle | None:
    """The feed's open cycle."""
    row = db.execute(f"SELECT {_COLUMNS} FROM cycles WHERE feed = ? AND outcome IS NULL", (feed,)).fetchone()
    return None if row is None else _cycle(row, name)


def all_cycles(db: sqlite3.Connection, feed: int, name: str) -> list[CycleRow]:
    """All cycles of the feed in the order they were taken."""
    rows = db.execute(f"SELECT {_COLUMNS}, outcome FROM cycles WHERE feed = ? ORDER BY taken_at, version", (feed,))
    return [CycleRow(cycle=_cycle(row, name), outcome=row[6]) for row in rows]


_COLUMNS = "cycle_id, parent, version, seed, taken_at, plan"


def _cycle(row: tuple, feed: str) -> Cycle:
    cycle_id, parent, version, seed, taken_at, plan = row[:6]
    return Cycle(
        cycle_id=cycle_id,
        feed=feed,
        parent=parent,
        version=version,
        plan=Plan(**{name: tuple(seqs) for name, seqs in json.loads(plan).items()}),
        seed=seed,
        taken_at=from_micros(taken_at),
    )


def feed_of(db: sqlite3.Connection, cycle_id: str) -> str:
    """The name of the feed that a cycle belongs to. BufferStoreError for an unknown cycle."""
    row = db.execute(
        "SELECT feeds.name FROM cycles JOIN feeds ON feeds.id = cycles.feed WHERE cycle_id = ?", (cycle_id,)
    ).fetchone()
    if row is None:
        raise BufferStoreError(f"there is no cycle {cycle_id!r} in this buffer: is state.path the learner's own?")
    return str(row[0])


def acknowledge(
    db: sqlite3.Connection, feed: int, rules: FeedRules, cycle_id: str, outcome: Outcome, tally: Tally
) -> None:
    """End a cycle; its examples go where the outcome sends them."""
    row = db.execute(f"SELECT {_COLUMNS}, outcome FROM cycles WHERE cycle_id = ?", (cycle_id,)).fetchone()
    if row[6] == outcome:
        return
    if row[6] is not None:
        raise BufferStoreError(f"cycle {cycle_id} ended as {row[6]}, it cannot become {outcome}")
    plan = _cycle(row, rules.feed).plan
    _give_back_corrected(db, feed, plan, row[2], tally)
    if outcome == "promoted":
        move(db, feed, plan.fresh, TAKEN, LEARNED, tally)
        move(db, feed, plan.retired, TAKEN, REMEMBERED, tally)
    else:
        move(db, feed, plan.retired, TAKEN, RETIRED, tally)
        _give_back(db, feed, plan.fresh, rules.max_attempts if outcome == "rejected" else None, tally)
    db.execute(
        "UPDATE cycles SET outcome = ?, adopted = ? WHERE cycle_id = ?", (outcome, outcome == "promoted", cycle_id)
    )
    if outcome != "promoted":  # another version that has learned them may have gone live meanwhile
        _settle(db, feed, {*plan.fresh, *plan.retired}, tally)


def _give_back_corrected(db: sqlite3.Connection, feed: int, plan: Plan, version: int, tally: Tally) -> None:
    """What was corrected while it was taken may have been trained with its wrong label: it is fresh, whatever the
    outcome, with all its attempts."""
    after = corrections.relearn_after(db, (*plan.fresh, *plan.retired))
    move(db, feed, [seq for seq, newest in after.items() if version <= newest], TAKEN, FRESH, tally)


def _give_back(db: sqlite3.Connection, feed: int, seqs: Sequence[int], max_attempts: int | None, tally: Tally) -> None:
    """Taken examples become fresh again; with `max_attempts` this attempt counts, and the last one retires them."""
    if max_attempts is not None:
        numbers = json.dumps(list(seqs))
        chosen = f"seq IN (SELECT value FROM json_each(?)) AND state = {TAKEN}"
        db.execute(f"UPDATE events SET attempts = attempts + 1 WHERE {chosen}", (numbers,))
        rows = db.execute(f"SELECT seq FROM events WHERE {chosen} AND attempts >= ?", (numbers, max_attempts))
        move(db, feed, [seq for (seq,) in rows], TAKEN, RETIRED, tally)
    move(db, feed, seqs, TAKEN, FRESH, tally)


def move(db: sqlite3.Connection, feed: int, seqs: Iterable[int], before: int, after: int, tally: Tally) -> int:
    """Change those of the feed's examples that are in state `before`; returns how many."""
    done = db.execute(
        "UPDATE events SET state = ? WHERE seq IN (SELECT value FROM json_each(?)) AND feed = ? AND state = ?",
        (after, json.dumps(list(seqs)), feed, before),
    ).rowcount
    tally.move(feed, before, after, done)
    return done


def retire_overflow(db: sqlite3.Connection, feed: int, over: int, tally: Tally) -> int:
    """The `over` oldest fresh examples wait for the reservoir from now on."""
    rows = db.execute(
        "SELECT seq FROM events WHERE feed = ? AND state = ? AND seq IS NOT NULL ORDER BY seq LIMIT ?",
        (feed, FRESH, over),
    )
    return move(db, feed, [seq for (seq,) in rows.fetchall()], FRESH, RETIRED, tally)


def parents(db: sqlite3.Connection, feed: int) -> dict[int, int]:
    """Version → parent, of every cycle that may have published one."""
    rows = db.execute("SELECT version, parent FROM cycles WHERE feed = ? AND outcome IS NOT 'abandoned'", (feed,))
    return dict(rows.fetchall())


def reconcile(db: sqlite3.Connection, feed: int, live_version: int, tally: Tally) -> None:
    """Make learned and set-aside fit the live version, after a promotion or rollback by whomever."""
    inside = json.dumps(lineage(parents(db, feed), live_version))
    promoted_by_hand = db.execute(
        "UPDATE cycles SET adopted = 1 WHERE feed = ? AND adopted = 0 AND outcome = 'rejected' "
        "AND version IN (SELECT value FROM json_each(?)) RETURNING version",
        (feed, inside),
    )
    changed = {version for (version,) in promoted_by_hand}
    rows = db.execute(
        "SELECT version FROM cycles WHERE feed = ? AND adopted = 1 "
        "AND version NOT IN (SELECT value FROM json_each(?)) ORDER BY version",
        (feed, inside),
    )
    outside = [version for (version,) in rows]
    changed |= _outside(db, feed).symmetric_difference(outside)
    if changed:
        db.execute("UPDATE feeds SET outside = ? WHERE id = ?", (json.dumps(outside), feed))
        _settle(db, feed, _named(db, feed, changed), tally)


def _outside(db: sqlite3.Connection, feed: int) -> set[int]:
    """The adopted versions that were outside the live lineage when it was last looked at."""
    (document,) = db.execute("SELECT outside FROM feeds WHERE id = ?", (feed,)).fetchone()
    return set(json.loads(document))


def _named(db: sqlite3.Connection, feed: int, versions: Iterable[int]) -> set[int]:
    """The fresh and retired examples of these versions' plans."""
    rows = db.execute(
        "SELECT plan FROM cycles WHERE feed = ? AND adopted = 1 AND version IN (SELECT value FROM json_each(?))",
        (feed, json.dumps(sorted(versions))),
    )
    plans = [json.loads(plan) for (plan,) in rows]
    return {seq for plan in plans for seq in (*plan["fresh"], *plan["retired"])}


def _settle(db: sqlite3.Connection, feed: int, among: set[int], tally: Tally) -> None:
    """Learned: what a version of the live lineage learned. Set aside: what only adopted versions outside it did. Fresh:
    what was set aside, and versions of the live lineage learned with a label that was wrong.

    All adopted plans are read, but only examples `among` these are written. What is to be learned again after a version
    (`relearn_after`) was not learned by that one, nor by any before it.
    """
    outside, after = _outside(db, feed), corrections.relearn_after(db, among)
    learned: set[int] = set()
    remembered: set[int] = set()
    lost: set[int] = set()
    wrongly: set[int] = set()
    for version, plan in db.execute("SELECT version, plan FROM cycles WHERE feed = ? AND adopted = 1", (feed,)):
        seqs = json.loads(plan)
        stale = {seq for seq, newest in after.items() if version <= newest}
        fresh, retired = among.intersection(seqs["fresh"]), among.intersection(seqs["retired"])
        if version in outside:
            lost |= (fresh | retired) - stale
        else:
            learned |= fresh - stale
            remembered |= retired - stale
            wrongly |= (fresh | retired) & stale
    for state in (FRESH, RETIRED, SET_ASIDE, REMEMBERED):
        move(db, feed, learned, state, LEARNED, tally)
    for state in (RETIRED, SET_ASIDE):
        move(db, feed, remembered - learned, state, REMEMBERED, tally)
    for state in (LEARNED, REMEMBERED):
        move(db, feed, lost - learned - remembered, state, SET_ASIDE, tally)
    move(db, feed, wrongly - learned - remembered, SET_ASIDE, FRESH, tally)


def relearn(db: sqlite3.Connection, feed: int, tally: Tally) -> int:
    """Everything set aside becomes fresh, with all its attempts."""
    done = db.execute(
        "UPDATE events SET state = ?, attempts = 0 WHERE feed = ? AND state = ?", (FRESH, feed, SET_ASIDE)
    ).rowcount
    tally.move(feed, SET_ASIDE, FRESH, done)
    return done
