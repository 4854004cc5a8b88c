"""The engine: admits requests to versions, and swaps what is live.

Guards (invariant 7): a request is answered entirely by the version it was admitted under, and by one pulse; a swap
changes one reference between two batches; a refused version leaves everything as it was.

Delivery: every admitted request is answered or failed exactly once, also while closing. Ordering: none between
requests. Atomicity: `activate` happens or does not. Idempotency: predicting, staging and activating again change
nothing. Errors: BadInput, Overloaded, NotReady, ServingError, ArtefactError, and what the loader raises.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from driftline import metrics
from driftline.base import Base
from driftline.config import FeedConfig, ServeConfig
from driftline.errors import BadInput, ConfigError, ServingError
from driftline.experts.choice import are_words, mixture_of, spoken
from driftline.records import Manifest
from driftline.tasks import task_named
from serving.answers import Answer, Asked, Request, version_zero
from serving.bank import AdapterBank, Merged
from serving.fast import FastReplica
from serving.fast_answers import MixedFeed
from serving.loop import BatchLoop
from serving.mixing import MixLoop
from serving.residency import Loader, Residency
from serving.slots import Resident

if TYPE_CHECKING:
    from driftline.artefact.weights import Weights

__all__ = ["Answer", "Asked", "Engine", "Loader"]


@dataclass(frozen=True, slots=True)
class _Live:
    """What a feed serves: replaced whole, never changed. `resident` is None at version 0."""

    version: int
    revision: int
    resident: Resident | None


class Engine:
    """Answers texts of many feeds with many versions of one base model. All methods are thread-safe."""

    def __init__(self, base: Base, section: ServeConfig, feeds: Mapping[str, FeedConfig]) -> None:
        """ConfigError if the slots cannot hold all feeds and two versions beside."""
        if section.slots < len(feeds) + 2:
            raise ConfigError(f"serve.slots = {section.slots}: {len(feeds)} feeds need at least {len(feeds) + 2}")
        self._base = base
        self._labels = {name: feed.labels for name, feed in feeds.items()}
        self._tasks = {name: task_named(feed.task) for name, feed in feeds.items()}
        self._bank = AdapterBank(base, section.slots)
        self._loop = BatchLoop(
            base,
            self._bank,
            max_batch_tokens=section.max_batch_tokens,
            max_queue_inputs=section.max_queue_inputs,
            threads=section.threads,
            on_computed=self._computed,
            on_failed=self._finish,
        )
        self._fast = {name: _mixed_feed(name, feed, base) for name, feed in feeds.items() if feed.fast.enabled}
        self._mixing = MixLoop(self._fast, self._finish)
        self._residency = Residency(base, self._bank, self._loop, section.host_cache_versions)
        self._live = dict.fromkeys(feeds, _Live(0, 0, None))  # guarded by the residency's lock, as is the next
        self._staged: dict[str, Resident] = {}
        self._activating = threading.Lock()
        self.pauses_ms: deque[float] = deque(maxlen=10_000)

    def start(self) -> None:
        """Start the engine's threads. Once."""
        self._loop.start()
        self._mixing.start()

    def close(self) -> None:
        """Admit nothing more, answer everything admitted, stop the threads. Idempotent."""
        self._loop.close()
        self._mixing.close()

    def use_loader(self, loader: Loader) -> None:
        """Where versions come from that a request names and no slot or cache holds. It checks what it returns."""
        self._residency.loader = loader

    @property
    def alive(self) -> bool:
        """Whether the engine's threads run and take requests in."""
        return self._loop.alive and self._mixing.alive

    @property
    def fast(self) -> dict[str, FastReplica]:
        """The fast states that are mixed in, of the feeds with a fast clock. Change one by `between_mixes` only."""
        return {feed: one.replica for feed, one in self._fast.items()}

    @property
    def queued_inputs(self) -> int:
        """Texts that wait."""
        return self._loop.waiting

    def feeds(self) -> list[str]:
        """The feeds it knows, sorted."""
        return sorted(self._labels)

    def labels(self, feed: str) -> tuple[str, ...]:
        """The feed's labels by the config: what version 0 answers over; another version answers with its own.
        BadInput unknown_feed."""
        if feed not in self._labels:
            raise BadInput("unknown_feed", f"no feed {feed!r}; known feeds: {', '.join(self.feeds())}", status=404)
        return self._labels[feed]

    # --- answering

    def predict(
        self, feed: str, texts: Sequence[str], version: int | None = None, asked: Asked = Asked.MIXTURE
    ) -> list[Answer]:
        """Answers in the order of `texts`, all by one version (None: the live one). Blocks.

        Texts that fit one token budget together form one batch if nothing else waits, so a lone caller's batches are
        the same every time. Errors as `submit`, and ServingError if the batch failed.
        """
        return self.submit(feed, texts, version, asked).result()

    def submit(
        self, feed: str, texts: Sequence[str], version: int | None = None, asked: Asked = Asked.MIXTURE
    ) -> "Future[list[Answer]]":
        """Admit a request; it is answered by the version that is live now, or the one named, with the newest fast state
        where the feed has one (`serving.fast_answers`).

        Texts are taken as they are (clean them before). May block to load a version that is not resident. BadInput for
        an unknown feed, Overloaded when the queue or all slots are full, NotReady when the engine does not run,
        UnknownVersion and ArtefactError from the loader.
        """
        self.labels(feed)
        self._loop.check_room(len(texts))
        mixed = self._is_mixed(feed, asked)
        if not texts or (not mixed and (self.active(feed)[0] if version is None else version) == 0):
            return self._version_zero(feed, len(texts))
        tokens = self._base.tokenize(texts)
        resident = self._pinned(feed, version)
        if resident is None and not mixed:  # rolled back to version 0 meanwhile
            return self._version_zero(feed, len(texts))
        request = self._request(feed, texts, resident, asked)
        request.future.set_running_or_notify_cancel()  # cannot be cancelled any more: it is unpinned exactly once
        try:
            self._loop.add(request, tokens)
        except ServingError:
            if resident is not None:
                self._residency.unpin(resident)
            raise
        return request.future

    def between_mixes(self, work: Callable[[], None]) -> None:
        """Run `work` while no answer is mixed; waits for it. NotReady when the engine does not run."""
        self._mixing.between(work)

    def _is_mixed(self, feed: str, asked: Asked) -> bool:
        return feed in self._fast and asked is not Asked.HEAD

    def _version_zero(self, feed: str, count: int) -> "Future[list[Answer]]":
        metrics.ANSWERS.labels(feed, "_none").inc(count)
        return version_zero(self._tasks[feed], self.labels(feed), count)

    def _pinned(self, feed: str, version: int | None) -> Resident | None:
        """The resident of the version, or (None) of the live one, pinned; None for version 0."""
        if version is None:
            return self._pin_live(feed)
        return self._residency.bring(feed, version) if version else None

    def _request(self, feed: str, texts: Sequence[str], resident: Resident | None, asked: Asked) -> Request:
        manifest = None if resident is None else resident.manifest
        return Request(
            feed=feed,
            texts=texts,
            resident=resident,
            labels=self._labels[feed] if manifest is None else manifest.labels,
            task=self._tasks[feed] if manifest is None else task_named(manifest.task),
            asked=asked,
            mixed=self._is_mixed(feed, asked),
            results=[None] * len(texts),
            left=len(texts),
        )

    def _computed(self, request: Request) -> None:
        """The engine is through with it; called on its thread."""
        if request.mixed:
            self._mixing.add(request)
        else:
            self._finish(request, request.answers)

    def _finish(self, request: Request, result: "list[Answer] | ServingError") -> None:
        """The only place where a request gets what it waits for."""
        if request.resident is not None:
            self._residency.unpin(request.resident)
        if isinstance(result, ServingError):
            metrics.FAILED_INPUTS.labels(request.feed).inc(len(request.texts))
            request.future.set_exception(result)
            return
        metrics.ANSWERED_INPUTS.labels(request.feed).inc(len(result))
        for label, n in Counter(answer.label for answer in result).items():
            metrics.ANSWERS.labels(request.feed, self._shown(request.feed, label)).inc(n)
        request.future.set_result(result)

    def _shown(self, feed: str, label: str | None) -> str:
        if label is None:
            return "_none"
        return label if label in self._labels[feed] else "_other"

    def active(self, feed: str) -> tuple[int, int]:
        """(version, revision) that new requests of the feed are answered by."""
        live = self._live[feed]
        return live.version, live.revision

    def resident(self, feed: str, version: int) -> bool:
        """Whether the version can be answered without loading anything."""
        with self._residency.lock:
            return version == 0 or self._residency.table.find(feed, version) is not None

    def residents(self) -> list[tuple[str, int]]:
        """(feed, version) of all slots in use, sorted."""
        with self._residency.lock:
            return self._residency.table.versions()

    def _pin_live(self, feed: str) -> Resident | None:
        with self._residency.lock:
            resident = self._live[feed].resident
            if resident is not None:
                self._residency.table.pin(resident)
            return resident

    # --- swapping

    def stage(self, feed: str, manifest: Manifest, weights: "Weights") -> None:
        """Load a checked version into a spare slot, run its probe between two batches, and hold it for `activate`.

        Idempotent. ArtefactError probe_mismatch: nothing changed. Overloaded: no slot is free, try again.
        """
        self._hold(feed, self._residency.admit(feed, manifest, weights))

    def restage(self, feed: str, version: int) -> bool:
        """As `stage`, for a version that this engine has proven before and still keeps; False if it does not."""
        if version == 0:
            return True
        resident = self._residency.find(feed, version)
        if resident is None:
            return False
        self._hold(feed, resident)
        return True

    def activate(self, feed: str, version: int, revision: int) -> None:
        """Answer the feed's new requests by this version from now on. It is staged, or 0. Idempotent.

        Merging happens here, in the caller's thread; the flip runs between two batches. How long the swap held the
        engine, filling the slot and the probe included, goes to `pauses_ms`. ServingError if the version is not staged.
        """
        with self._activating:
            resident = self._residency.pin(feed, version) if version else None
            if version and resident is None:
                raise ServingError(f"version {version} of feed {feed!r} is not staged: stage it first")
            merged = self._bank.merge(resident.adapter) if resident else None
            self._loop.call(lambda: self._flip(feed, _Live(version, revision, resident), merged))
            self._hold(feed, None)

    def _hold(self, feed: str, resident: Resident | None) -> None:
        """Keep a pinned resident as the feed's staged one; the one before is let go."""
        with self._residency.lock:
            before = self._staged.pop(feed, None)
            if before is not None:
                self._residency.table.unpin(before)
            if resident is not None:
                self._staged[feed] = resident

    def _flip(self, feed: str, live: _Live, merged: Merged | None) -> None:
        """Runs on the engine thread, between two batches."""
        started = time.perf_counter()
        with self._residency.lock:
            before = self._live[feed].resident
            if before is not None:
                self._bank.use_merged(before.slot, None)
                self._residency.table.unpin(before)
            if live.resident is not None:
                self._bank.use_merged(live.resident.slot, merged)
            self._live[feed] = live
            pause_ms = (time.perf_counter() - started) * 1000
            if live.resident is not None:
                pause_ms += live.resident.held_ms
                live.resident.held_ms = 0.0
        self.pauses_ms.append(pause_ms)
        metrics.SWAPS.labels(feed).inc()
        metrics.SWAP_PAUSE_MS.observe(pause_ms)
        metrics.LIVE_VERSION.labels(feed).set(live.version)
        metrics.LIVE_REVISION.labels(feed).set(live.revision)


def _mixed_feed(name: str, feed: FeedConfig, base: Base) -> MixedFeed:
    names = base.features(spoken(feed.labels)).numpy() if "names" in feed.fast.experts else None  # (C, d)
    replica = FastReplica(name, feed.labels, mixture_of(feed.fast), base.hidden_size)
    return MixedFeed(replica=replica, base_names=names, are_words=are_words(feed.labels))
