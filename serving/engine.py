"""The engine: admits requests to the versions in the bank's slots, and swaps what is live.

Guards (invariant 7): a request is answered entirely by the version it was admitted under; a version is found only after
its probe passed; a swap changes one reference between two batches; a refused version leaves everything as it was.

Delivery: every admitted request is answered or failed exactly once, also while closing. Ordering: none between
requests. Atomicity: `activate` happens or does not. Idempotency: predicting, staging and activating again change
nothing. Errors: BadInput, Overloaded, NotReady, ServingError, ArtefactError, and what the loader raises.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from driftline import metrics
from driftline.base import Base
from driftline.config import ServeConfig
from driftline.errors import BadInput, ConfigError, NotReady, ServingError
from driftline.records import Manifest, Probe
from serving.answers import Answer, Request, version_zero
from serving.bank import Adapter, AdapterBank, pack
from serving.loop import BatchLoop
from serving.probing import check_probe, probe_texts
from serving.slots import Resident, SlotTable

if TYPE_CHECKING:
    from driftline.artefact.weights import Weights

__all__ = ["Answer", "Engine", "Loader"]

Loader = Callable[[str, int], "tuple[Manifest, Weights]"]


@dataclass(frozen=True, slots=True)
class _Live:
    """What a feed serves: replaced whole, never changed. `resident` is None at version 0."""

    version: int
    revision: int
    resident: Resident | None


class Engine:
    """Answers texts of many feeds with many versions of one base model. All methods are thread-safe."""

    def __init__(self, base: Base, section: ServeConfig, feeds: Mapping[str, Sequence[str]]) -> None:
        """`feeds` maps a feed to its labels. ConfigError if the slots cannot hold all feeds and two versions beside."""
        if section.slots < len(feeds) + 2:
            raise ConfigError(f"serve.slots = {section.slots}: {len(feeds)} feeds need at least {len(feeds) + 2}")
        self._base = base
        self._labels = {feed: tuple(labels) for feed, labels in feeds.items()}
        self._bank = AdapterBank(base, section.slots)
        self._loop = BatchLoop(
            base,
            self._bank,
            max_batch_tokens=section.max_batch_tokens,
            max_queue_inputs=section.max_queue_inputs,
            threads=section.threads,
            on_done=lambda request: self._unpin(request.resident),
        )
        self._lock = threading.Lock()  # guards the next three
        self._table = SlotTable(self._bank.slots)
        self._live = dict.fromkeys(feeds, _Live(0, 0, None))
        self._staged: dict[str, Resident] = {}
        self._staging = threading.Lock()  # one at a time writes slots; guards the next
        self._proven: OrderedDict[tuple[str, int], Adapter] = OrderedDict()
        self._proven_limit = section.host_cache_versions
        self._bringing = threading.Lock()
        self._loader: Loader | None = None
        self.pauses_ms: deque[float] = deque(maxlen=10_000)

    def start(self) -> None:
        """Start the engine thread. Once."""
        self._loop.start()

    def close(self) -> None:
        """Admit nothing more, answer everything admitted, stop the thread. Idempotent."""
        self._loop.close()

    def use_loader(self, loader: Loader) -> None:
        """Where versions come from that a request names and no slot or cache holds. It verifies what it returns."""
        self._loader = loader

    @property
    def alive(self) -> bool:
        """Whether the engine thread runs and takes requests in."""
        return self._loop.alive

    @property
    def queued_inputs(self) -> int:
        """Texts that wait."""
        return self._loop.waiting

    def feeds(self) -> list[str]:
        """The feeds it knows, sorted."""
        return sorted(self._labels)

    def labels(self, feed: str) -> tuple[str, ...]:
        """The feed's labels in the order of the head's rows. BadInput unknown_feed."""
        if feed not in self._labels:
            raise BadInput("unknown_feed", f"no feed {feed!r}; known feeds: {', '.join(self.feeds())}", status=404)
        return self._labels[feed]

    # --- answering ---

    def predict(self, feed: str, texts: Sequence[str], version: int | None = None) -> list[Answer]:
        """Answers in the order of `texts`, all by one version (None: the live one). Blocks.

        Texts that fit one token budget together form one batch if nothing else waits, so a lone caller's batches are
        the same every time. Errors as `submit`, and ServingError if the batch failed.
        """
        return self.submit(feed, texts, version).result()

    def submit(self, feed: str, texts: Sequence[str], version: int | None = None) -> "Future[list[Answer]]":
        """Admit a request; it is answered by the version that is live now, or the one named.

        Texts are taken as they are (clean them before). May block to load a version that is not resident. BadInput for
        an unknown feed, Overloaded when the queue or all slots are full, NotReady when the engine does not run,
        UnknownVersion and ArtefactError from the loader.
        """
        labels = self.labels(feed)
        self._loop.check_room(len(texts))
        if not texts or (self.active(feed)[0] if version is None else version) == 0:
            return version_zero(labels, len(texts))
        tokens = self._base.tokenize(texts)
        resident = self._pin_live(feed) if version is None else self._bring(feed, version)
        if resident is None:  # rolled back to version 0 meanwhile
            return version_zero(labels, len(texts))
        request = Request(resident, labels, [None] * len(tokens), left=len(tokens))
        request.future.set_running_or_notify_cancel()  # cannot be cancelled any more: it is unpinned exactly once
        try:
            self._loop.add(request, tokens)
        except ServingError:
            self._unpin(resident)
            raise
        return request.future

    def active(self, feed: str) -> tuple[int, int]:
        """(version, revision) that new requests of the feed are answered by."""
        live = self._live[feed]
        return live.version, live.revision

    def resident(self, feed: str, version: int) -> bool:
        """Whether the version can be answered without loading anything."""
        with self._lock:
            return version == 0 or self._table.find(feed, version) is not None

    def residents(self) -> list[tuple[str, int]]:
        """(feed, version) of all slots in use, sorted."""
        with self._lock:
            return self._table.versions()

    # --- swapping ---

    def stage(self, feed: str, manifest: Manifest, weights: "Weights") -> None:
        """Load a checked version into a spare slot, run its probe between two batches, and hold it for `activate`.

        Idempotent. ArtefactError probe_mismatch: nothing changed. Overloaded: no slot is free, try again.
        """
        with self._staging:
            resident = self._find_proven(feed, manifest.version)
            self._hold(feed, resident or self._prove(feed, manifest, weights))

    def restage(self, feed: str, version: int) -> bool:
        """As `stage`, for a version that this engine has proven before and still keeps; False if it does not."""
        with self._staging:
            resident = self._find_proven(feed, version) if version else None
            if resident is not None:
                self._hold(feed, resident)
            return version == 0 or resident is not None

    def activate(self, feed: str, version: int, revision: int) -> None:
        """Answer the feed's new requests by this version from now on. It is staged, or 0. Idempotent.

        Merging happens here, in the caller's thread; the flip runs between two batches, and how long it held the engine
        is appended to `pauses_ms`. ServingError if the version is not staged.
        """
        with self._staging:
            resident = self._pin(feed, version) if version else None
            if version and resident is None:
                raise ServingError(f"version {version} of feed {feed!r} is not staged: stage it first")
            merged = self._bank.merge(resident.adapter) if resident else None
            self._loop.call(lambda: self._flip(feed, _Live(version, revision, resident), merged))
            self._release_staged(feed)

    # --- pins ---

    def _pin(self, feed: str, version: int) -> Resident | None:
        with self._lock:
            resident = self._table.find(feed, version)
            if resident is not None:
                self._table.pin(resident)
            return resident

    def _pin_live(self, feed: str) -> Resident | None:
        with self._lock:
            resident = self._live[feed].resident
            if resident is not None:
                self._table.pin(resident)
            return resident

    def _unpin(self, resident: Resident) -> None:
        with self._lock:
            self._table.unpin(resident)

    def _hold(self, feed: str, resident: Resident) -> None:
        """Keep a pinned resident as the feed's staged one; the one before is let go."""
        self._release_staged(feed)
        with self._lock:
            self._staged[feed] = resident

    def _release_staged(self, feed: str) -> None:
        with self._lock:
            before = self._staged.pop(feed, None)
            if before is not None:
                self._table.unpin(before)

    # --- filling slots: all of these return the resident pinned ---

    def _bring(self, feed: str, version: int) -> Resident:
        """The version that a request names; loaded if it is nowhere. The registry is asked outside the staging lock."""
        resident = self._pin(feed, version)
        if resident is not None:
            return resident
        with self._bringing:
            with self._staging:
                resident = self._find_proven(feed, version)
            if resident is not None:
                return resident
            if self._loader is None:
                raise NotReady(f"version {version} of feed {feed!r} is not resident, and no registry is connected")
            manifest, weights = self._loader(feed, version)
            with self._staging:
                return self._find_proven(feed, version) or self._prove(feed, manifest, weights)

    def _find_proven(self, feed: str, version: int) -> Resident | None:
        """From the slots, or back into one from the host cache, where only proven versions are."""
        resident = self._pin(feed, version)
        adapter = self._proven.get((feed, version))
        if resident is not None or adapter is None:
            return resident
        resident = self._fill(feed, version, adapter)
        self._settle(resident)
        return resident

    def _prove(self, feed: str, manifest: Manifest, weights: "Weights") -> Resident:
        """Fill a slot, and let it be found once it answers the probe as the trainer did."""
        adapter = pack(weights, manifest.alpha / manifest.rank, self._base.device)
        resident = self._fill(feed, manifest.version, adapter)
        try:
            self._check_probe(resident, manifest.probe)
        except BaseException:
            self._discard(resident)
            raise
        self._settle(resident)
        return resident

    def _fill(self, feed: str, version: int, adapter: Adapter) -> Resident:
        with self._lock:
            resident = self._table.claim(feed, version, adapter)
        try:
            self._loop.call(lambda: self._bank.put(resident.slot, adapter))
        except BaseException:
            self._discard(resident)
            raise
        return resident

    def _settle(self, resident: Resident) -> None:
        with self._lock:
            self._table.settle(resident)
            metrics.RESIDENT_VERSIONS.set(len(self._table))
        key = (resident.feed, resident.version)
        self._proven[key] = resident.adapter
        self._proven.move_to_end(key)
        while len(self._proven) > self._proven_limit:
            self._proven.popitem(last=False)

    def _discard(self, resident: Resident) -> None:
        with self._lock:
            self._table.discard(resident)

    def _check_probe(self, resident: Resident, probe: Probe) -> None:
        """Compare both ways that serve later: from the stacks, and from merged weights. Two short jobs."""
        tokens = self._base.tokenize(probe_texts())
        slots = [resident.slot] * len(tokens)
        merged = self._bank.merge(resident.adapter)
        stacked = self._loop.call(lambda: self._loop.forward(tokens, slots))
        fused = self._loop.call(lambda: self._forward_merged(tokens, slots, merged))
        classes = len(self._labels[resident.feed])
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

    def _flip(self, feed: str, live: _Live, merged: Mapping[str, torch.Tensor] | None) -> None:
        """Runs on the engine thread, between two batches."""
        started = time.perf_counter()
        with self._lock:
            before = self._live[feed].resident
            if before is not None:
                self._bank.use_merged(before.slot, None)
                self._table.unpin(before)
            if live.resident is not None:
                self._bank.use_merged(live.resident.slot, merged)
            self._live[feed] = live
        pause_ms = (time.perf_counter() - started) * 1000
        self.pauses_ms.append(pause_ms)
        metrics.SWAPS.labels(feed).inc()
        metrics.SWAP_PAUSE_MS.observe(pause_ms)
        metrics.LIVE_VERSION.labels(feed).set(live.version)
        metrics.LIVE_REVISION.labels(feed).set(live.revision)
