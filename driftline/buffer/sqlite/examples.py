"""The table of examples: read by number and by state, and moved from one state to another. Every statement follows an
index."""

import json
from collections.abc import Iterable, Sequence

from driftline.buffer.sqlite.unit import Unit
from driftline.buffer.states import AWAITING, FRESH, HOLDOUT, UNLEARNABLE, from_micros
from driftline.records import Example, ServedAnswer

CHOSEN = "(SELECT value FROM json_each(?))"
_COLUMNS = """examples.seq, event_id, text, label, occurred_at, labelled_at, source, holdout, answer_version,
    answer_label"""
_OF_FEED = "JOIN events ON events.arrival = examples.arrival WHERE examples.feed = ?"
_BY_STATE = "examples INDEXED BY examples_by_state"
"""By itself SQLite goes through all examples of a feed by number, to spare itself the sorting of a few."""


def numbers(seqs: Iterable[int]) -> str:
    """What `CHOSEN` is given."""
    return json.dumps(list(seqs))


def by_state(unit: Unit, state: int, limit: int) -> list[Example]:
    """The oldest examples of a state, by number."""
    query = f"SELECT {_COLUMNS} FROM {_BY_STATE} {_OF_FEED} AND state = ? ORDER BY examples.seq LIMIT ?"
    rows = unit.db.execute(query, (unit.feed, state, limit))
    return [_example(row, unit.rules.feed) for row in rows]


def after(unit: Unit, seq: int) -> list[Example]:
    """All examples with a greater number, hold-outs included."""
    query = f"SELECT {_COLUMNS} FROM examples {_OF_FEED} AND examples.seq > ? ORDER BY examples.seq"
    rows = unit.db.execute(query, (unit.feed, seq))
    return [_example(row, unit.rules.feed) for row in rows]


def by_number(unit: Unit, seqs: Sequence[int]) -> list[Example]:
    """These examples in this order, repeats included. KeyError for a number that there is none of."""
    query = f"SELECT {_COLUMNS} FROM examples {_OF_FEED} AND examples.seq IN {CHOSEN}"
    rows = unit.db.execute(query, (unit.feed, numbers(seqs)))
    found = {row[0]: _example(row, unit.rules.feed) for row in rows}
    return [found[seq] for seq in seqs]


def returned(unit: Unit) -> int:
    """How many fresh examples a rejected cycle gave back."""
    query = (  # by itself SQLite would go through all examples of the feed
        "SELECT COUNT(*) FROM examples INDEXED BY examples_returned "
        f"WHERE feed = ? AND state = {FRESH} AND attempts > 0"
    )
    (count,) = unit.db.execute(query, (unit.feed,)).fetchone()
    return int(count)


def unanswered(unit: Unit) -> tuple[int, int] | None:
    """The least and the greatest number of those that wait for the answer that was served; None if none does."""
    query = f"SELECT seq FROM {_BY_STATE} WHERE feed = ? AND state = {AWAITING} ORDER BY seq"
    ends = [unit.db.execute(f"{query} {order} LIMIT 1", (unit.feed,)).fetchone() for order in ("ASC", "DESC")]
    return (ends[0][0], ends[1][0]) if ends[0] else None


def recent_holdouts(unit: Unit, count: int) -> list[int]:
    """Numbers of the newest hold-outs, rising."""
    query = f"SELECT seq FROM {_BY_STATE} WHERE feed = ? AND state = {HOLDOUT} ORDER BY seq DESC LIMIT ?"
    return sorted(seq for (seq,) in unit.db.execute(query, (unit.feed, count)))


def oldest(unit: Unit, state: int, count: int) -> list[int]:
    """Numbers of the oldest examples of a state, rising."""
    query = f"SELECT seq FROM {_BY_STATE} WHERE feed = ? AND state = ? ORDER BY seq LIMIT ?"
    return [seq for (seq,) in unit.db.execute(query, (unit.feed, state, count))]


def move(unit: Unit, seqs: Iterable[int], before: int, after: int) -> int:
    """Change those of these examples that are in state `before`; returns how many. What may be learned from then on is
    due for the fast clock; what may not any more is not."""
    moved = unit.db.execute(
        f"UPDATE examples SET state = ? WHERE feed = ? AND seq IN {CHOSEN} AND +state = ? RETURNING seq",
        (after, unit.feed, numbers(seqs), before),
    ).fetchall()
    unit.tally.move(unit.feed, before, after, len(moved))
    if before in UNLEARNABLE and after not in UNLEARNABLE:
        become_due(unit, [seq for (seq,) in moved])
    elif after in UNLEARNABLE:
        no_more_due(unit, [seq for (seq,) in moved])
    return len(moved)


def become_due(unit: Unit, seqs: Iterable[int]) -> None:
    """The fast clock, if the feed has one, has to learn these; once each, however often it is said."""
    if unit.rules.fast:
        query = "INSERT OR IGNORE INTO due SELECT ?, value FROM json_each(?)"
        unit.tally.add(unit.feed, "due", unit.db.execute(query, (unit.feed, numbers(seqs))).rowcount)


def no_more_due(unit: Unit, seqs: Iterable[int]) -> None:
    """These have been learned, or may not be."""
    query = f"DELETE FROM due WHERE feed = ? AND seq IN {CHOSEN}"
    unit.tally.add(unit.feed, "due", -unit.db.execute(query, (unit.feed, numbers(seqs))).rowcount)


def _example(row: tuple, feed: str) -> Example:
    seq, event_id, text, label, occurred_at, labelled_at, source, holdout, version, answer = row
    return Example(
        seq=seq,
        feed=feed,
        event_id=event_id,
        text=text,
        label=label,
        occurred_at=from_micros(occurred_at),
        labelled_at=from_micros(labelled_at),
        source=source,
        holdout=holdout is not None,
        answer=None if version is None else ServedAnswer(label=answer, adapter_version=version),
    )
