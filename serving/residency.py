"""Brings versions into the bank's slots, proves them, and keeps what was proven in main memory: slots ↔ host cache.

Guards: a version is found only after its probe passed; a refused version leaves nothing behind; a resident that is
returned is pinned, so it stays in its slot until it is unpinned.

Locks: `lock` guards the slot table and what the engine keeps of it, and is held for moments only; `_staging` lets one
thread at a time write slots; `_bringing` lets one request at a time fetch a version, outside the other two.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch

from driftline import metrics
from driftline.base import Base
from driftline.errors import NotReady
from driftline.records import Manifest
from serving.bank import Adapter, AdapterBank, Merged, pack
from serving.loop import BatchLoop
from serving.probing import check_probe, probe_texts
from serving.slots import Resident, SlotTable

if TYPE_CHECKING:
    from driftline.artefact.weights import Weights

Loader = Callable[[str, int], "tuple[Manifest, Weights]"]
HOST = torch.device("cpu")
T = TypeVar("T")


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
        self._proven: OrderedDict[tuple[str, int], tuple[Manifest, Adapter]] = OrderedDict()  # guarded by _staging
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
            resident = self.find(feed, version) or self._load(feed, version)
            resident.held_ms = 0.0  # not a swap's
            return resident

    def _load(self, feed: str, version: int) -> Resident:
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
        proven = self._proven.get((feed, version))
        if resident is not None or proven is None:
            return resident
        manifest, adapter = proven
        with self._claimed(manifest, adapter) as resident:
            self._on_engine(resident, lambda: self._bank.put(resident.slot, adapter))
        return resident

    def _prove(self, feed: str, manifest: Manifest, weights: "Weights") -> Resident:
        """Fill a slot, and let it be found once it answers the probe as the trainer did, both ways that serve later.

        One job for all of it, because each job waits for the batch before it.
        """
        adapter = pack(weights, manifest.alpha / manifest.rank, HOST)
        tokens, merged = self._base.tokenize(probe_texts()), self._bank.merge(adapter)
        with self._claimed(manifest, adapter) as resident:
            stacked, fused = self._on_engine(
                resident, lambda: self._put_and_answer(resident.slot, adapter, tokens, merged)
            )
            rows = adapter.head_bias.shape[0]
            answers = [stacked[:, :rows], fused[:, :rows]]  # (8, R) each
            check_probe(answers, manifest.probe, feed, manifest.version, self._base.device)
        return resident

    @contextmanager
    def _claimed(self, manifest: Manifest, adapter: Adapter) -> Iterator[Resident]:
        """A slot to fill: found by others if all goes well, given back if not."""
        with self.lock:
            resident = self.table.claim(manifest, adapter)
        try:
            yield resident
        except BaseException:
            with self.lock:
                self.table.discard(resident)
            raise
        self._settle(resident)

    def _on_engine(self, resident: Resident, work: Callable[[], T]) -> T:
        """Run between two batches; how long that held the engine is put to the resident's account."""

        def timed() -> T:
            started = time.perf_counter()
            try:
                return work()
            finally:
                resident.held_ms += (time.perf_counter() - started) * 1000

        return self._loop.call(timed)

    def _put_and_answer(
        self, slot: int, adapter: Adapter, tokens: Sequence[list[int]], merged: Merged
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits from the stacks and from the merged weights. Runs on the engine thread."""
        self._bank.put(slot, adapter)
        stacked, _ = self._loop.forward(tokens, [slot] * len(tokens))
        self._bank.use_merged(slot, merged)
        try:
            return stacked, self._loop.forward(tokens, [slot] * len(tokens))[0]
        finally:
            self._bank.use_merged(slot, None)

    def _settle(self, resident: Resident) -> None:
        with self.lock:
            self.table.settle(resident)
            metrics.RESIDENT_VERSIONS.set(len(self.table))
        key = (resident.feed, resident.version)
        self._proven[key] = resident.manifest, resident.adapter
        self._proven.move_to_end(key)
        while len(self._proven) > self._limit:
            self._proven.popitem(last=False)
