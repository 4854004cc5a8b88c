"""Keeps the engine at what the registry names as live, and at the newest pulses (`serving.follow`, in a thread beside).
Guards invariant 7 for a replica's whole life.

The live record is the truth; what `wait_for_change` says is a hint, so the record is read again after every wake-up,
every timeout and every reconnect. Any failure leaves the incumbent serving and is logged, counted and told in /readyz,
the status and the heartbeat. A fast state that cannot be had holds up nothing.

Ordering: revisions only rise; an older one is refused as registry_lost. Idempotency: `sync` may be called at any time.
Errors: `sync` raises none; `load_version` raises what the checks raise.
"""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from driftline import metrics
from driftline.artefact.manifest import Trust
from driftline.artefact.weights import Weights
from driftline.base import Base
from driftline.clock import Clock, SystemClock
from driftline.errors import DriftlineError, Overloaded
from driftline.journal import Journal
from driftline.records import LiveRecord, Manifest, ReplicaStatus
from driftline.registry import Registry, check_not_lost
from serving.engine import Engine
from serving.follow import Follower, code_of, reason_of
from serving.seen import SeenNumbers
from serving.stage import Verifier

log = structlog.get_logger()

WAIT_S = 1.0
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
RECONNECT_S = 0.5
SYSTEM_CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a live record was not taken up. Tried again when the record changes, or at `retry_at` if there is one."""

    record: tuple[int, int] | None
    reason: str
    retry_at: float | None
    wait_s: float


class Watcher:
    """One per process. `sync` from one thread only (the one that runs `run`, or a driver); the rest from any."""

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        trust: Trust,
        base: Base,
        feeds: Sequence[str],
        *,
        replica: str,
        role: str,
        url: str | None,
        heartbeat_s: float,
        seen: Path,
        clock: Clock = SYSTEM_CLOCK,
        journal: Journal | None = None,
    ) -> None:
        """`seen` is the folder in which this replica keeps the revisions and pulses it has seen. Swaps and refusals are
        journaled where there is a journal."""
        self._registry = registry
        self._engine = engine
        self._verifier = Verifier(registry, trust, base)
        pulses = SeenNumbers(seen / f"{role}-{replica}.pulses.json")
        self.follower = Follower(registry, trust, engine.fast, engine.between_mixes, pulses)
        self._feeds = tuple(feeds)
        self._replica, self._role, self.url = replica, role, url
        self._heartbeat_s = heartbeat_s
        self._clock = clock
        self._journal = journal
        self._seen = SeenNumbers(seen / f"{role}-{replica}.json")
        self._failures: dict[str, _Failure] = {}
        self._caught_up: set[str] = set()
        self._last_ids: dict[str, str] = {}
        engine.use_loader(self.load_version)

    # --- what others may ask

    @property
    def refused(self) -> dict[str, str]:
        """For each feed that is not at what the registry names as live, or whose fast state stands still: why."""
        standing = {
            feed: f"its fast state stays at pulse {self._engine.fast[feed].number}: {reason}"
            for feed, reason in self.follower.refused.items()
        }
        return standing | {feed: failure.reason for feed, failure in dict(self._failures).items()}

    def ready(self, feed: str) -> bool:
        """Whether the feed has been at the live version since this process started, and its pulses were asked for."""
        return feed in self._caught_up and self.follower.looked(feed)

    def all_ready(self) -> bool:
        """Whether all feeds are ready."""
        return all(map(self.ready, self._feeds))

    def status(self) -> ReplicaStatus:
        """What the heartbeat tells."""
        active = {feed: self._engine.active(feed) for feed in self._feeds if self.ready(feed)}
        return ReplicaStatus(
            replica=self._replica,
            role=self._role,
            url=self.url,
            serving={feed: version for feed, (version, _) in active.items()},
            revisions={feed: revision for feed, (_, revision) in active.items()},
            refused=self.refused,
            pulses={feed: one.number for feed, one in self._engine.fast.items()},
            fell_back=tuple(sorted(feed for feed, one in self._engine.fast.items() if one.fell_back)),
            seen_at=self._clock.now(),
            pid=os.getpid(),
        )

    def load_version(self, feed: str, version: int) -> tuple[Manifest, Weights]:
        """A version that a request names: fetched and checked. UnknownVersion, ArtefactError, RegistryUnavailable."""
        return self._verifier.fetch(feed, version)

    # --- following

    def sync(self, feed: str) -> bool:
        """Read the live record and follow it; True if the engine's live version or revision changed."""
        record = None
        try:
            live = self._registry.live(feed)
            record = (live.version, live.revision)
            check_not_lost(live, self._seen.of(feed))
            return self._follow(feed, live)
        except DriftlineError as error:
            self._fail(feed, record, error)
        except Exception as error:  # whatever a strange artefact breaks, the incumbent goes on serving
            log.exception("sync_failed", feed=feed)
            self._fail(feed, record, error)
        return False

    def run(self, stop: threading.Event) -> None:
        """Follow all feeds and their pulses and send heartbeats until `stop` is set. Returns within about a second of
        that."""
        beside = [
            threading.Thread(target=self._beat, args=(stop,), name="heartbeat", daemon=True),
            threading.Thread(target=self.follower.run, args=(stop,), name="pulses", daemon=True),
        ]
        for thread in beside:
            thread.start()
        while not stop.is_set():
            for feed in self._feeds:
                self.sync(feed)
            try:
                self._wait()
            except DriftlineError:  # Redis is away: `sync` says so
                stop.wait(RECONNECT_S)
            except Exception:  # whatever it was, following must go on
                log.exception("watch_failed")
                stop.wait(RECONNECT_S)
        for thread in beside:
            thread.join()

    def _follow(self, feed: str, live: LiveRecord) -> bool:
        if not self._worth_trying(feed, live):
            return False
        changed = (live.version, live.revision) != self._engine.active(feed)
        if changed:
            self._switch(feed, live)
        self._seen.note(feed, live.revision)
        self._failures.pop(feed, None)
        self._caught_up.add(feed)
        return changed

    def _switch(self, feed: str, live: LiveRecord) -> None:
        if not self._engine.restage(feed, live.version):
            manifest, weights = self.load_version(feed, live.version)
            self._engine.stage(feed, manifest, weights)
        self._engine.activate(feed, live.version, live.revision)
        pause_ms = round(self._engine.pauses_ms[-1], 3)
        self._tell("swapped", feed=feed, version=live.version, revision=live.revision, pause_ms=pause_ms)

    def _worth_trying(self, feed: str, live: LiveRecord) -> bool:
        failure = self._failures.get(feed)
        if failure is None or failure.record != (live.version, live.revision):
            return True
        return failure.retry_at is not None and time.monotonic() >= failure.retry_at

    def _fail(self, feed: str, record: tuple[int, int] | None, error: Exception) -> None:
        before = self._failures.get(feed)
        again = before is not None and before.record == record
        busy = isinstance(error, Overloaded)  # passes by itself, soon
        wait_s = min(before.wait_s * 2, LAST_RETRY_S) if before is not None and again and not busy else FIRST_RETRY_S
        if not isinstance(error, DriftlineError):  # nobody foresaw it, memory that ran out for a moment say
            wait_s = LAST_RETRY_S
        final = isinstance(error, DriftlineError) and not error.retriable
        reason = reason_of(error)
        self._failures[feed] = _Failure(record, reason, None if final else time.monotonic() + wait_s, wait_s)
        if before is not None and again and before.reason == reason:
            return
        metrics.REFUSALS.labels(feed, code_of(error)).inc()
        version, revision = record or (None, None)
        self._tell("refused", feed=feed, version=version, revision=revision, reason=reason)

    def _tell(self, kind: str, **fields: Any) -> None:
        log.info(kind, **fields)
        if self._journal is not None:
            self._journal.append(kind, replica=self._replica, role=self._role, **fields)

    def _wait(self) -> None:
        """Until something changed, a second at most."""
        missing = [feed for feed in self._feeds if feed not in self._last_ids]
        if missing:  # a change before this is seen by the sync that follows
            self._last_ids.update({feed: self._registry.last_change(feed) for feed in missing})
            return
        self._last_ids.update(self._registry.wait_for_change(self._last_ids, WAIT_S))

    def _beat(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._registry.heartbeat(self.status())
            except DriftlineError as error:
                log.debug("heartbeat_failed", error=str(error))
            except Exception:
                log.exception("heartbeat_failed")
            stop.wait(self._heartbeat_s)
