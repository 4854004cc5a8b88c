"""What every reservoir shares: the entries, counts of what was offered, and drawing from them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class Uniform(Protocol):
    """The part of `numpy.random.Generator` that sampling needs, so that exact probabilities can be enumerated."""

    def integers(self, high: int, /) -> int | np.integer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservoirState:
    """What is kept: `entries` (seq, label) by slot; `seen` examples per class, offered so far; the classes that are
    `full` (only the class-balanced reservoir has any)."""

    entries: tuple[tuple[int, str], ...] = ()
    seen: dict[str, int] = field(default_factory=dict)
    full: frozenset[str] = frozenset()


class Reservoir(ABC):
    """At most `capacity` example numbers, a random sample of all that were offered. A subclass says of what kind.

    Either kind goes on from a state that the other made; what is kept by then stays a sample of the old kind until the
    stream has replaced it.
    """

    def __init__(self, capacity: int, state: ReservoirState | None = None) -> None:
        """Go on from `state`. If it holds more than `capacity` (the config was changed), call `shrink` first."""
        start = state or ReservoirState()
        self._capacity = capacity
        self._entries = list(start.entries)
        self._seen = dict(start.seen)
        self._full = set(start.full)

    def state(self) -> ReservoirState:
        """A snapshot; the reservoir made from it goes on exactly as this one."""
        return ReservoirState(entries=tuple(self._entries), seen=dict(self._seen), full=frozenset(self._full))

    def offer(self, seq: int, label: str, rng: Uniform) -> None:
        """Show one example of the stream, in stream order, once. The cost does not grow with the stream."""
        self._seen[label] = self._seen.get(label, 0) + 1
        slot = len(self._entries) if len(self._entries) < self._capacity else self._slot_for(label, rng)
        if slot is not None:
            self._put(slot, seq, label)

    def shrink(self, rng: Uniform) -> None:
        """Drop random entries until `capacity` are kept; what stays is a sample of the same kind."""
        while len(self._entries) > self._capacity:
            self._drop_one(rng)

    def sample(self, count: int, rng: Uniform, exclude: frozenset[int] = frozenset()) -> list[int]:
        """Up to `count` different numbers, uniform over what is kept and not excluded; fewer if there are fewer."""
        return draw_without_repeats([seq for seq, _ in self._entries if seq not in exclude], count, rng)

    @abstractmethod
    def _slot_for(self, label: str, rng: Uniform) -> int | None:
        """The slot that an example of this class, already counted in `_seen`, takes over; None: it is not kept."""

    @abstractmethod
    def _drop_one(self, rng: Uniform) -> None: ...

    def _put(self, slot: int, seq: int, label: str) -> None:
        """Into a slot in use, or the first one that is not."""
        self._entries[slot : slot + 1] = [(seq, label)]


def draw_without_repeats(pool: list[int], count: int, rng: Uniform) -> list[int]:
    """Up to `count` members of `pool`, every order equally likely (Fisher-Yates, stopped early). Leaves `pool`."""
    rest = list(pool)
    for i in range(min(count, len(rest))):
        j = i + int(rng.integers(len(rest) - i))
        rest[i], rest[j] = rest[j], rest[i]
    return rest[: min(count, len(rest))]
