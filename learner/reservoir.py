"""Reservoir sampling over example numbers: which past examples replay may draw from.

Uniform (Vitter, "Random Sampling with a Reservoir", 1985, algorithm R): the n-th example is kept with probability
capacity/n, in the place of a random entry. By class (Chrysakis & Moens, "Online Continual Learning from Imbalanced
Data", ICML 2020, algorithm 1): while there is room, keep everything; then a class that has never been the largest takes
the place of a random member of the largest classes, and a class that has ("full") is a uniform reservoir of its own. So
every class keeps a uniform sample of its own examples. Uniform is the same with all examples in one class.

Pure: randomness is an argument, and only `rng.integers(n)` is asked, so that exact probabilities can be enumerated.
"""

from bisect import insort
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch

from learner.bag import Share

EVERYTHING = ""
"""The one class of a uniform reservoir; no label is empty."""


class Uniform(Protocol):
    """The part of `numpy.random.Generator` that sampling needs."""

    def integers(self, high: int, /) -> int | np.integer: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservoirState:
    """`Owner` of what is kept: `entries` (seq, label) by slot; `seen` examples per label, offered so far; the `full`
    classes."""

    entries: tuple[tuple[int, str], ...] = ()
    seen: dict[str, int] = field(default_factory=dict)
    full: frozenset[str] = frozenset()

    def relabelled(self, labels: Mapping[int, str]) -> "ReservoirState":
        """With these examples' labels as they are now: each is filed, and counted as offered, under its right class.
        Examples that were offered and not kept stay counted as they came."""
        wrong = [(was, labels[seq]) for seq, was in self.entries if labels.get(seq, was) != was]
        if not wrong:
            return self
        seen = dict(self.seen)
        for was, becomes in wrong:
            seen[was] = seen.get(was, 1) - 1
            seen[becomes] = seen.get(becomes, 0) + 1
        entries = tuple((seq, labels.get(seq, was)) for seq, was in self.entries)
        return replace(self, entries=entries, seen=seen)

    def without(self, seqs: Collection[int]) -> "ReservoirState":
        """As if these had never been kept; they stay counted as seen."""
        return replace(self, entries=tuple(entry for entry in self.entries if entry[0] not in seqs))

    def pack(self) -> Share:
        classes = sorted({*self.seen, *(label for _, label in self.entries)})
        number = {label: index for index, label in enumerate(classes)}
        return Share(
            tensors={
                "seqs": torch.tensor([seq for seq, _ in self.entries], dtype=torch.int64),  # (N,)
                "classes": torch.tensor([number[label] for _, label in self.entries], dtype=torch.int64),  # (N,)
            },
            facts={
                "classes": classes,
                "seen": [self.seen.get(label, 0) for label in classes],
                "full": sorted(self.full),
            },
        )

    @classmethod
    def unpack(cls, share: Share) -> "ReservoirState":
        classes: list[str] = share.facts["classes"]
        seqs, numbers = share.tensors["seqs"].tolist(), share.tensors["classes"].tolist()
        seen = dict(zip(classes, share.facts["seen"], strict=True))
        return cls(
            entries=tuple((seq, classes[number]) for seq, number in zip(seqs, numbers, strict=True)),
            seen={label: count for label, count in seen.items() if count},
            full=frozenset(share.facts["full"]),
        )


class Reservoir:
    """At most `capacity` example numbers. The cost of `offer` does not grow with the stream.

    It goes on from any state. After a change of kind, or a larger capacity, what is kept stays a sample of the old kind
    until the stream has replaced it; new room is filled with what comes next.
    """

    def __init__(self, capacity: int, state: ReservoirState | None = None, *, by_class: bool) -> None:
        """`by_class`: balance the classes. If `state` holds more than `capacity`, call `shrink` first."""
        start = state or ReservoirState()
        self._capacity = capacity
        self._by_class = by_class
        self._entries = list(start.entries)
        self._seen = dict(start.seen)
        self._full = set(start.full)
        self._index()

    def state(self) -> ReservoirState:
        """A snapshot; the reservoir made from it goes on exactly as this one."""
        return ReservoirState(entries=tuple(self._entries), seen=dict(self._seen), full=frozenset(self._full))

    def offer(self, seq: int, label: str, rng: Uniform) -> None:
        """Show one example of the stream, in stream order, once."""
        self._seen[label] = self._seen.get(label, 0) + 1
        if len(self._entries) < self._capacity:
            self._slots.setdefault(self._class(label), []).append(len(self._entries))
            self._entries.append((seq, label))
            return
        largest = self._largest()
        self._full.update(largest)
        if self._class(label) not in self._full:
            candidates = self._members(largest)
            self._replace(candidates[int(rng.integers(len(candidates)))], seq, label)
        else:
            own = self._slots.get(self._class(label), [])
            drawn = int(rng.integers(self._offered(label)))
            if drawn < len(own):  # as likely any of them
                self._replace(own[drawn], seq, label)

    def shrink(self, rng: Uniform) -> None:
        """Drop random members of the largest classes until `capacity` is kept. Each class stays a uniform sample."""
        while len(self._entries) > self._capacity:
            largest = self._largest()
            self._full.update(largest)
            candidates = self._members(largest)
            del self._entries[candidates[int(rng.integers(len(candidates)))]]
            self._index()

    def sample(self, count: int, rng: Uniform, exclude: frozenset[int] = frozenset()) -> list[int]:
        """Up to `count` different numbers, uniform over what is kept and not excluded; fewer if there are fewer."""
        return draw_without_repeats([seq for seq, _ in self._entries if seq not in exclude], count, rng)

    def _class(self, label: str) -> str:
        return label if self._by_class else EVERYTHING

    def _offered(self, label: str) -> int:
        """Examples of the label's class so far."""
        return self._seen[label] if self._by_class else sum(self._seen.values())

    def _largest(self) -> list[str]:
        most = max(len(slots) for slots in self._slots.values())
        return [label for label in sorted(self._slots) if len(self._slots[label]) == most]

    def _members(self, labels: list[str]) -> list[int]:
        return [slot for label in labels for slot in self._slots[label]]

    def _index(self) -> None:
        """Slots by class, rising, so that a reservoir made from a state draws exactly as the one it came from."""
        self._slots: dict[str, list[int]] = {}
        for slot, (_, label) in enumerate(self._entries):
            self._slots.setdefault(self._class(label), []).append(slot)

    def _replace(self, slot: int, seq: int, label: str) -> None:
        self._slots[self._class(self._entries[slot][1])].remove(slot)
        self._entries[slot] = (seq, label)
        insort(self._slots.setdefault(self._class(label), []), slot)


def draw_without_repeats(pool: list[int], count: int, rng: Uniform) -> list[int]:
    """Up to `count` members of `pool`, every order equally likely (Fisher-Yates, stopped early). Leaves `pool`."""
    rest = list(pool)
    for i in range(min(count, len(rest))):
        j = i + int(rng.integers(len(rest) - i))
        rest[i], rest[j] = rest[j], rest[i]
    return rest[: min(count, len(rest))]
