"""The table of cycles: taken and acknowledged (see `driftline.buffer.ledger`)."""

import sqlite3
from collections.abc import Sequence

from driftline.buffer.ledger import CycleRow, Outcome
from driftline.buffer.sqlite import corrections, plans, standing
from driftline.buffer.sqlite.examples import CHOSEN, move, numbers
from driftline.buffer.sqlite.unit import Unit
from driftline.buffer.states import (
    FRESH,
    HOLDOUT,
    LEARNED,
    REMEMBERED,
    RETIRED,
    TAKEN,
    WITHDRAWN,
    from_micros,
    to_micros,
)
from driftline.errors import BufferStoreError
from driftline.records import Cycle, Plan

_COLUMNS = "id, cycle_id, parent, version, seed, taken_at, outcome"


def take(unit: Unit, cycle: Cycle) -> None:
    """Write the cycle and mark its fresh and retired examples taken."""
    plan, where = cycle.plan, f"feed {cycle.feed!r}: cycle {cycle.cycle_id}"
    if (other := open_cycle(unit)) is not None:
        raise BufferStoreError(f"feed {cycle.feed!r}: cycle {other.cycle_id} is still open: acknowledge it first")
    if not _trainable(unit, plan.replayed):
        raise BufferStoreError(f"{where} replays an example that is unknown, held out or withdrawn")
    for seqs, state in ((plan.fresh, FRESH), (plan.retired, RETIRED)):
        if move(unit, seqs, state, TAKEN) != len(seqs):
            raise BufferStoreError(f"{where} names an example that is not available")
    made = unit.db.execute(
        "INSERT INTO cycles (cycle_id, feed, parent, version, seed, taken_at) VALUES (?, ?, ?, ?, ?, ?)",
        (cycle.cycle_id, unit.feed, cycle.parent, cycle.version, cycle.seed, to_micros(cycle.taken_at)),
    )
    plans.write(unit, int(made.lastrowid or 0), plan)


def _trainable(unit: Unit, replayed: Sequence[int]) -> bool:
    """Whether these exist and are neither held out nor withdrawn."""
    wanted = set(replayed)
    (found,) = unit.db.execute(
        f"SELECT COUNT(*) FROM examples WHERE feed = ? AND seq IN {CHOSEN} AND +state NOT IN (?, ?)",
        (unit.feed, numbers(wanted), HOLDOUT, WITHDRAWN),
    ).fetchone()
    return bool(found == len(wanted))


def open_cycle(unit: Unit) -> Cycle | None:
    """The feed's open cycle."""
    row = unit.db.execute(f"SELECT {_COLUMNS} FROM cycles WHERE feed = ? AND outcome IS NULL", (unit.feed,)).fetchone()
    return None if row is None else _row(unit, row).cycle


def all_cycles(unit: Unit) -> list[CycleRow]:
    """All cycles of the feed in the order they were taken."""
    rows = unit.db.execute(f"SELECT {_COLUMNS} FROM cycles WHERE feed = ? ORDER BY id", (unit.feed,)).fetchall()
    return [_row(unit, row) for row in rows]


def feed_of(db: sqlite3.Connection, cycle_id: str) -> str:
    """The name of the feed that a cycle belongs to. BufferStoreError for an unknown cycle."""
    row = db.execute(
        "SELECT feeds.name FROM cycles JOIN feeds ON feeds.id = cycles.feed WHERE cycle_id = ?", (cycle_id,)
    ).fetchone()
    if row is None:
        raise BufferStoreError(f"there is no cycle {cycle_id!r} in this buffer: is state.path the learner's own?")
    return str(row[0])


def acknowledge(unit: Unit, cycle_id: str, outcome: Outcome) -> None:
    """End a cycle; its examples go where the outcome sends them."""
    row = unit.db.execute(f"SELECT {_COLUMNS} FROM cycles WHERE cycle_id = ?", (cycle_id,)).fetchone()
    number, _, _, version, *_, before = row
    if before == outcome:
        return
    if before is not None:
        raise BufferStoreError(f"cycle {cycle_id} ended as {before}, it cannot become {outcome}")
    promoted = outcome == "promoted"
    unit.db.execute(
        "UPDATE cycles SET outcome = ?, standing = ? WHERE id = ?",
        (outcome, standing.UNSEEN if promoted else None, number),
    )
    plan = plans.read(unit, number)
    _give_back_corrected(unit, plan, version)
    if promoted:
        move(unit, plan.fresh, TAKEN, LEARNED)
        move(unit, plan.retired, TAKEN, REMEMBERED)
        return
    move(unit, plan.retired, TAKEN, RETIRED)
    _give_back(unit, plan.fresh, judged=outcome == "rejected")
    # a version that was promoted by hand meanwhile may have learned them
    standing.settle(unit, (*plan.fresh, *plan.retired))


def _give_back_corrected(unit: Unit, plan: Plan, version: int) -> None:
    """What was corrected while it was taken may have been trained with its wrong label: it is fresh, whatever the
    outcome, with all its attempts."""
    after = corrections.relearn_after(unit, numbers((*plan.fresh, *plan.retired)))
    move(unit, [seq for seq, newest in after.items() if version <= newest], TAKEN, FRESH)


def _give_back(unit: Unit, seqs: Sequence[int], *, judged: bool) -> None:
    """Taken examples become fresh again; where they were judged this attempt counts, and the last one retires them."""
    if judged:
        chosen = f"feed = ? AND seq IN {CHOSEN} AND +state = {TAKEN}"
        values = (unit.feed, numbers(seqs))
        unit.db.execute(f"UPDATE examples SET attempts = attempts + 1 WHERE {chosen}", values)
        query = f"SELECT seq FROM examples WHERE {chosen} AND attempts >= ?"
        rows = unit.db.execute(query, (*values, unit.rules.max_attempts)).fetchall()
        move(unit, [seq for (seq,) in rows], TAKEN, RETIRED)
    move(unit, seqs, TAKEN, FRESH)


def _row(unit: Unit, row: tuple) -> CycleRow:
    number, cycle_id, parent, version, seed, taken_at, outcome = row
    cycle = Cycle(
        cycle_id=cycle_id,
        feed=unit.rules.feed,
        parent=parent,
        version=version,
        plan=plans.read(unit, number),
        seed=seed,
        taken_at=from_micros(taken_at),
    )
    return CycleRow(cycle=cycle, outcome=outcome)
