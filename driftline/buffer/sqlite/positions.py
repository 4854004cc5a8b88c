"""How far each topic was read for its feed, and which topic that was."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from driftline.errors import TopicRecreated
from driftline.topics import Partition


def read(db: sqlite3.Connection, owner: Mapping[str, int]) -> dict[Partition, int]:
    """Every stored next offset of a topic for the feed that owns it; not where another feed has read that topic to."""
    rows = db.execute('SELECT feed, topic, "partition", next_offset FROM positions')
    return {
        Partition(topic=topic, partition=partition): offset
        for feed, topic, partition, offset in rows
        if owner.get(topic) == feed
    }


def write(db: sqlite3.Connection, positions: Mapping[Partition, int], owner: Mapping[str, int]) -> None:
    """Move the stored positions forward, never back."""
    db.executemany(
        "INSERT INTO positions VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET next_offset = MAX(next_offset, excluded.next_offset)",
        [(owner[one.topic], one.topic, one.partition, offset) for one, offset in positions.items()],
    )


def bind(db: sqlite3.Connection, feed: int, topic: str, identity: str, path: Path) -> None:
    """Note the topic's identity, or compare it with the one that was noted. TopicRecreated."""
    db.execute("INSERT OR IGNORE INTO topics VALUES (?, ?, ?)", (feed, topic, identity))
    query = "SELECT identity FROM topics WHERE feed = ? AND topic = ?"
    (known,) = db.execute(query, (feed, topic)).fetchone()
    if known != identity:
        raise TopicRecreated(
            f"topic {topic!r} was made anew ({identity}; the buffer has read {known}), so the stored positions do "
            "not belong to it: point the config at the old topic or cluster, give the feed a new topic name, or "
            f"move {path} away to start with an empty buffer"
        )
