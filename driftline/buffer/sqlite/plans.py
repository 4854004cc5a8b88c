"""The plan of each cycle, a row for each example: in its order by cycle, and by example for who learned what."""

from collections.abc import Collection, Iterable

from driftline.buffer.sqlite.examples import CHOSEN, numbers
from driftline.buffer.sqlite.unit import Unit
from driftline.records import Plan

FRESH, REPLAYED, RETIRED = range(3)
"""Roles."""


def write(unit: Unit, cycle: int, plan: Plan) -> None:
    """The plan of a cycle, which is numbered in the file."""
    roles = ((FRESH, plan.fresh), (REPLAYED, plan.replayed), (RETIRED, plan.retired))
    rows = [(role, seq) for role, seqs in roles for seq in seqs]
    unit.db.executemany(
        "INSERT INTO cycle_examples (cycle, place, role, feed, seq) VALUES (?, ?, ?, ?, ?)",
        [(cycle, place, role, unit.feed, seq) for place, (role, seq) in enumerate(rows)],
    )


def read(unit: Unit, cycle: int) -> Plan:
    """The plan of a cycle."""
    seqs: tuple[list[int], list[int], list[int]] = ([], [], [])
    for role, seq in unit.db.execute("SELECT role, seq FROM cycle_examples WHERE cycle = ? ORDER BY place", (cycle,)):
        seqs[role].append(seq)
    return Plan(fresh=tuple(seqs[FRESH]), replayed=tuple(seqs[REPLAYED]), retired=tuple(seqs[RETIRED]))


def taken(unit: Unit, cycles: Iterable[int]) -> set[int]:
    """The fresh and retired examples of these cycles."""
    query = f"SELECT seq FROM cycle_examples WHERE cycle IN {CHOSEN} AND role <> {REPLAYED}"
    return {seq for (seq,) in unit.db.execute(query, (numbers(cycles),))}


def learners(unit: Unit, seqs: Collection[int], up_to: int) -> dict[int, list[int]]:
    """Example → the versions up to `up_to` that were to train on it, fresh or replayed, rising.

    A feed's cycles are numbered as their versions rise, so plans of later ones are not even looked at.
    """
    rows = unit.db.execute(
        "SELECT seq, version FROM cycle_examples JOIN cycles ON cycles.id = cycle WHERE cycle_examples.feed = ?1 "
        f"AND seq IN (SELECT value FROM json_each(?2)) AND role IN ({FRESH}, {REPLAYED}) "
        "AND cycle <= (SELECT id FROM cycles WHERE feed = ?1 AND version <= ?3 ORDER BY version DESC LIMIT 1) "
        "AND outcome IS NOT 'abandoned'",
        (unit.feed, numbers(seqs), up_to),
    )
    found: dict[int, list[int]] = {}
    for seq, version in rows:
        found.setdefault(seq, []).append(version)
    return {seq: sorted(versions) for seq, versions in found.items()}
