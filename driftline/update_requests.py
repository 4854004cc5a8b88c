"""A request for an update as it stands in Redis: who asked, and what is to be taken in before. Pure.

ID ACTOR [newline {"positions": {"TOPIC": {"PARTITION": NEXT_OFFSET}}, "wait_s": SECONDS}]
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from driftline.topics import Partition

__all__ = ["UPDATE_WAIT_S", "Wanted", "encode_request", "wanted"]

UPDATE_WAIT_S = 60.0
"""How long an update waits for what was on its way when it was asked for, unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the buffer should have read (next offsets), and for how many seconds that is waited for."""

    positions: Mapping[Partition, int] = field(default_factory=dict)
    wait_s: float = 0.0


class _Document(msgspec.Struct):
    positions: dict[str, dict[str, int]]
    wait_s: float


def encode_request(actor: str, what: Wanted) -> str:
    """A request unlike any other."""
    head = f"{uuid.uuid4().hex} {actor}"
    if not what.positions:
        return head
    topics: dict[str, dict[str, int]] = {}
    for place, offset in what.positions.items():
        topics.setdefault(place.topic, {})[str(place.partition)] = offset
    return f"{head}\n{msgspec.json.encode(_Document(topics, what.wait_s)).decode()}"


def wanted(request: str) -> Wanted:
    """What a request waits for; nothing where it says none, as those of an older Driftline."""
    try:
        document = msgspec.json.decode(request.rpartition("\n")[2], type=_Document)
        places = [
            (Partition(topic=topic, partition=int(number)), offset)
            for topic, offsets in document.positions.items()
            for number, offset in offsets.items()
        ]
    except (ValueError, msgspec.DecodeError):
        return Wanted()
    return Wanted(positions=dict(places), wait_s=document.wait_s)
