"""Class-balancing reservoir sampling: every class keeps a sample of its own, and no class is drowned.

Chrysakis & Moens, "Online Continual Learning from Imbalanced Data" (ICML 2020), algorithm 1: while there is room, keep
everything; then a class that has never been the largest takes the place of a random member of the largest classes, and
a class that has ("full") is a uniform reservoir of its own: its n-th example is kept with probability m/n, m being how
many of the class are kept. So every class keeps a uniform sample of its own examples.
"""

from bisect import insort

from learner.reservoirs.reservoir import Reservoir, ReservoirState, Uniform


class ClassBalancedReservoir(Reservoir):
    """`Reservoir` "class_balanced"."""

    def __init__(self, capacity: int, state: ReservoirState | None = None) -> None:
        super().__init__(capacity, state)
        self._index()

    def _slot_for(self, label: str, rng: Uniform) -> int | None:
        largest = self._largest()
        self._full.update(largest)
        if label not in self._full:
            return self._any_of(self._members(largest), rng)
        own = self._slots.get(label, [])
        return self._any_of(own, rng) if int(rng.integers(self._seen[label])) < len(own) else None

    def _drop_one(self, rng: Uniform) -> None:
        largest = self._largest()
        self._full.update(largest)
        del self._entries[self._any_of(self._members(largest), rng)]
        self._index()

    def _put(self, slot: int, seq: int, label: str) -> None:
        if slot < len(self._entries):
            self._slots[self._entries[slot][1]].remove(slot)
        insort(self._slots.setdefault(label, []), slot)
        super()._put(slot, seq, label)

    def _largest(self) -> list[str]:
        most = max(len(slots) for slots in self._slots.values())
        return [label for label in sorted(self._slots) if len(self._slots[label]) == most]

    def _members(self, labels: list[str]) -> list[int]:
        return [slot for label in labels for slot in self._slots[label]]

    @staticmethod
    def _any_of(slots: list[int], rng: Uniform) -> int:
        return slots[int(rng.integers(len(slots)))]

    def _index(self) -> None:
        """Slots by class, rising, so that a reservoir made from a state draws exactly as the one it came from."""
        self._slots: dict[str, list[int]] = {}
        for slot, (_, label) in enumerate(self._entries):
            self._slots.setdefault(label, []).append(slot)
