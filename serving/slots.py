"""Who sits in which slot of the bank: bookkeeping only, no tensors. The engine calls it under its lock.

A resident is pinned while it is live, staged, or asked for by a waiting request; only what is not pinned is evicted,
least recently used first. A slot is claimed before its weights are verified, and found only after (`settle`). One slot
is always left to staging: requests that name versions of their own choice must not be able to stop a swap.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from driftline.errors import Overloaded
from driftline.records import Manifest

if TYPE_CHECKING:
    from serving.bank import Adapter


@dataclass(slots=True, kw_only=True, eq=False)
class Resident:
    """A version in a slot, and the weights there; its manifest says what the head's rows mean.

    `pins` counts who still needs it; `used` is a logical time; `held_ms` is how long the engine was held to fill and
    prove it, until a swap accounts for that.
    """

    manifest: Manifest
    slot: int
    adapter: "Adapter"
    pins: int = 0
    used: int = 0
    held_ms: float = 0.0

    @property
    def feed(self) -> str:
        return self.manifest.feed

    @property
    def version(self) -> int:
        return self.manifest.version


class SlotTable:
    """The residents of `slots`. Not thread-safe."""

    def __init__(self, slots: Iterable[int]) -> None:
        self._free = sorted(slots, reverse=True)
        self._residents: dict[tuple[str, int], Resident] = {}
        self._time = 0

    def __len__(self) -> int:
        return len(self._residents)

    def versions(self) -> list[tuple[str, int]]:
        """(feed, version) of all residents."""
        return sorted(self._residents)

    def find(self, feed: str, version: int) -> Resident | None:
        """The settled resident, if there is one."""
        return self._residents.get((feed, version))

    def check_spare(self, resident: Resident | None) -> None:
        """Overloaded (retriable) if pinning this resident (None: one to be loaded) for a request took the last slot."""
        unpinned = len(self._free) + sum(one.pins == 0 for one in self._residents.values())
        if (resident is None or resident.pins == 0) and unpinned < 2:
            raise _no_slot()

    def claim(self, manifest: Manifest, adapter: "Adapter") -> Resident:
        """A slot for a version that has none, pinned once and not found yet; then `settle` or `discard` it.

        Overloaded (retriable) when every slot is pinned.
        """
        slot = self._free.pop() if self._free else self._evict()
        return Resident(manifest=manifest, slot=slot, adapter=adapter, pins=1)

    def settle(self, resident: Resident) -> None:
        """The claimed slot holds verified weights: it may be found."""
        self._touch(resident)
        self._residents[resident.feed, resident.version] = resident

    def discard(self, resident: Resident) -> None:
        """The claimed slot's weights were refused: it is free again."""
        self._free.append(resident.slot)

    def pin(self, resident: Resident) -> None:
        self._touch(resident)
        resident.pins += 1

    def unpin(self, resident: Resident) -> None:
        assert resident.pins > 0, "unpinned more often than pinned"
        resident.pins -= 1

    def _touch(self, resident: Resident) -> None:
        self._time += 1
        resident.used = self._time

    def _evict(self) -> int:
        idle = [resident for resident in self._residents.values() if resident.pins == 0]
        if not idle:
            raise _no_slot()
        oldest = min(idle, key=lambda resident: resident.used)
        del self._residents[oldest.feed, oldest.version]
        return oldest.slot


def _no_slot() -> Overloaded:
    return Overloaded("every slot of the adapter bank is in use: try again, or raise serve.slots", 1.0)
