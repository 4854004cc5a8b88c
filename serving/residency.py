"""Brings versions into the bank's slots, proves them, and keeps what was proven in main memory: slots ↔ host cache.

Guards: a version is found only after its probe passed; a refused version leaves nothing behind; a resident that is
returned is pinned, so it stays in its slot until it is unpinned.

Locks: `lock` guards the slot table and what the engine keeps of it, and is held for moments only; `_staging` lets one
thread at a time write slots; `_bringing` lets one request at a time fetch a version, outside the other two.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from driftline import metrics
from driftline.base import Base
from driftline.errors import NotReady
from driftline.records import Manifest, Probe
from serving.bank import Adapter, AdapterBank, pack
from serving.loop import BatchLoop
from serving.probing import check_probe, probe_texts
from serving.slots import Resident, SlotTable

if TYPE_CHECKING:
    from driftline.artefact.weights import Weights

Loader = Callable[[str, int], "tuple[Manifest, Weights]"]
HOST = torch.device("cpu")


class Residency:
    """Which versions are in slots. Thread-safe. Every method that returns a resident returns it pinned once more."""

    def __init__(self, base: Base, bank: AdapterBank, loop: BatchLoop, host_cache_versions: int) -> None:
        self._base = base
        self._bank = bank
        self._loop = loop
        self._limit = host_cache_versions
        self.lock = threading.Lock()
        self.table = SlotTable(bank.slots)
        self._staging = threading.Lock()
        self._bringing = threading.Lock()
        self._proven: OrderedDict[tuple[str, int], Adapter] = OrderedDict()  # on the host, guarded by _staging
        self.loader: Loader | None = None

    def pin(self, feed: str, version: int) -> Resident | None:
        """The version's resident, if it has a slot."""
        with self.lock:
            resident = self.table.find(feed, version)
            if resident is not None:
                self.table.pin(resident)
            return resident

    def unpin(self, resident: Resident) -> None:
        """Undo one pin."""
        with self.lock:
            self.table.unpin(resident)

    def find(self, feed: str, version: int) -> Resident | None:
        """From the slots, or back into one from the host cache; None if it was never proven or is kept no longer."""
        with self._staging:
            return self._find(feed, version)

    def admit(self, feed: str, manifest: Manifest, weights: "Weights") -> Resident:
        """A checked version's resident, proven now if it is not yet. ArtefactError probe_mismatch, Overloaded."""
        with self._staging:
            return self._find(feed, manifest.version) or self._prove(feed, manifest, weights)

    def bring(self, feed: str, version: int) -> Resident:
        """The version that a request names; loaded if it is nowhere.

        Overloaded, NotReady without a loader, and what the loader raises.
        """
        resident = self._pin_spared(feed, version)
        if resident is not None:
            return resident
        with self._bringing:
            self._check_spare()
            resident = self.find(feed, version)
            if resident is not None:
                return resident
            if self.loader is None:
                raise NotReady(f"version {version} of feed {feed!r} is not resident, and no registry is connected")
            manifest, weights = self.loader(feed, version)
            self._check_spare()
            return self.admit(feed, manifest, weights)

    def _pin_spared(self, feed: str, version: int) -> Resident | None:
        with self.lock:
            resident = self.table.find(feed, version)
            if resident is not None:
                self.table.check_spare(resident)
                self.table.pin(resident)
            return resident

    def _check_spare(self) -> None:
        with self.lock:
            self.table.check_spare(None)

    def _find(self, feed: str, version: int) -> Resident | None:
        resident = self.pin(feed, version)
        adapter = self._proven.get((feed, version))
        if resident is not None or adapter is None:
            return resident
        resident = self._fill(feed, version, adapter)
        self._settle(resident)
        return resident

    def _prove(self, feed: str, manifest: Manifest, weights: "Weights") -> Resident:
        """Fill a slot, and let it be found once it answers the probe as the trainer did."""
        adapter = pack(weights, manifest.alpha / manifest.rank, HOST)
        resident = self._fill(feed, manifest.version, adapter)
        try:
            self._check_probe(resident, manifest.probe)
        except BaseException:
            self._discard(resident)
            raise
        self._settle(resident)
        return resident

    def _fill(self, feed: str, version: int, adapter: Adapter) -> Resident:
        with self.lock:
            resident = self.table.claim(feed, version, adapter)
        try:
            self._loop.call(lambda: self._bank.put(resident.slot, adapter))
        except BaseException:
            self._discard(resident)
            raise
        return resident

    def _settle(self, resident: Resident) -> None:
        with self.lock:
            self.table.settle(resident)
            metrics.RESIDENT_VERSIONS.set(len(self.table))
        key = (resident.feed, resident.version)
        self._proven[key] = resident.adapter
        self._proven.move_to_end(key)
        while len(self._proven) > self._limit:
            self._proven.popitem(last=False)

    def _discard(self, resident: Resident) -> None:
        with self.lock:
            self.table.discard(resident)

    def _check_probe(self, resident: Resident, probe: Probe) -> None:
        """Compare both ways that serve later: stacked, and merged. One job, because each job waits for a batch."""
        tokens = self._base.tokenize(probe_texts())
        slots = [resident.slot] * len(tokens)
        merged = self._bank.merge(resident.adapter)
        stacked, fused = self._loop.call(
            lambda: (self._loop.forward(tokens, slots), self._forward_merged(tokens, slots, merged))
        )
        classes = resident.adapter.head_bias.shape[0]
        answers = [stacked[:, :classes], fused[:, :classes]]  # (8, C) each
        check_probe(answers, probe, resident.feed, resident.version, self._base.device)

    def _forward_merged(
        self, tokens: Sequence[list[int]], slots: Sequence[int], merged: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        self._bank.use_merged(slots[0], merged)
        try:
            return self._loop.forward(tokens, slots)
        finally:
            self._bank.use_merged(slots[0], None)
