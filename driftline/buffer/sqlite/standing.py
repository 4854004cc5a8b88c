"""Which versions the live one stands on, and what that makes of the examples that they learned.

`cycles.standing` is NULL for a version that was never live. What is live now and which way led to it is compared with
what was live when it was last looked at, so nothing is read of what both have in common.
"""

from collections.abc import Iterable

from driftline.buffer import lineage
from driftline.buffer.lineage import Learned
from driftline.buffer.sqlite import corrections, plans
from driftline.buffer.sqlite.examples import CHOSEN, become_due, move, numbers
from driftline.buffer.sqlite.unit import Unit
from driftline.buffer.states import FRESH, LEARNED, REMEMBERED, RETIRED, SET_ASIDE

UNSEEN, INSIDE, OUTSIDE = range(3)
"""It has been live: since the last look (counts as inside), in the live lineage, and outside it at the last look."""


class Parents:
    """The parent of each version of a feed, looked up as it is asked for."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._known: dict[int, int] = {}

    def __call__(self, version: int) -> int:
        if version not in self._known:
            query = "SELECT parent FROM cycles WHERE feed = ? AND version = ? AND outcome IS NOT 'abandoned'"
            row = self._unit.db.execute(query, (self._unit.feed, version)).fetchone()
            self._known[version] = min(row[0] if row else 0, version - 1)  # never up: a loop would not end
        return self._known[version]


def reconcile(unit: Unit, live_version: int) -> None:
    """Make learned and set-aside fit the live version, after a promotion or rollback by whomever."""
    parent, unseen = Parents(unit), _versions(unit, UNSEEN)
    leaving, entering = lineage.paths(max(_versions(unit, INSIDE, newest=1), default=0), live_version, parent)
    line = set(lineage.down(live_version, parent, floor=min(unseen, default=live_version)))
    changed = _stand(unit, entering, INSIDE, f"standing = {OUTSIDE}")
    changed |= _stand(unit, entering, INSIDE, "standing IS NULL AND outcome IN ('rejected', 'unjudged')")  # by hand
    _stand(unit, line.intersection(unseen), INSIDE, f"standing = {UNSEEN}")
    changed |= _stand(unit, {*leaving, *unseen} - line, OUTSIDE, f"standing IN ({UNSEEN}, {INSIDE})")
    if changed:
        settle(unit, plans.taken(unit, changed))


def _versions(unit: Unit, standing: int, newest: int = -1) -> list[int]:
    query = "SELECT version FROM cycles WHERE feed = ? AND standing = ? ORDER BY version DESC LIMIT ?"
    return [version for (version,) in unit.db.execute(query, (unit.feed, standing, newest))]


def _stand(unit: Unit, versions: Iterable[int], standing: int, condition: str) -> set[int]:
    """Change those that the condition holds for; returns their cycles."""
    rows = unit.db.execute(
        f"UPDATE cycles SET standing = ? WHERE feed = ? AND version IN {CHOSEN} AND {condition} RETURNING id",
        (standing, unit.feed, numbers(versions)),
    )
    return {cycle for (cycle,) in rows.fetchall()}


def settle(unit: Unit, seqs: Iterable[int]) -> None:
    """Move these examples where the versions that learned them, and have been live, send them (`lineage.settle`)."""
    among = numbers(seqs)
    rows = unit.db.execute(
        "SELECT seq, version, role, standing FROM cycle_examples JOIN cycles ON cycles.id = cycle "
        f"WHERE cycle_examples.feed = ? AND seq IN {CHOSEN} AND role IN ({plans.FRESH}, {plans.RETIRED}) "
        "AND +standing IS NOT NULL",
        (unit.feed, among),
    )
    learned = (Learned(seq, version, role == plans.RETIRED, at != OUTSIDE) for seq, version, role, at in rows)
    found = lineage.settle(learned, corrections.relearn_after(unit, among))
    for state in (FRESH, RETIRED, SET_ASIDE, REMEMBERED):
        move(unit, found.learned, state, LEARNED)
    for state in (RETIRED, SET_ASIDE):
        move(unit, found.remembered, state, REMEMBERED)
    for state in (LEARNED, REMEMBERED):
        move(unit, found.lost, state, SET_ASIDE)
    move(unit, found.wrongly, SET_ASIDE, FRESH)


def relearn(unit: Unit) -> int:
    """Everything set aside becomes fresh, with all its attempts."""
    query = "UPDATE examples SET state = ?, attempts = 0 WHERE feed = ? AND state = ? RETURNING seq"
    fresh = [seq for (seq,) in unit.db.execute(query, (FRESH, unit.feed, SET_ASIDE)).fetchall()]
    unit.tally.move(unit.feed, SET_ASIDE, FRESH, len(fresh))
    become_due(unit, fresh)
    return len(fresh)
