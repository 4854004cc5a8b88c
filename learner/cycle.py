"""The learner's cycle: take → draw replay → update → evaluate → decide → publish → acknowledge (DESIGN §4).

Guards invariants 5, 6 and 10: the plan is in the buffer before training starts, so a crash repeats the same turn; the
registry's outcome for the cycle id decides whether there is anything left to do; the gate sees hold-outs only.

Delivery: an example is learned by exactly one published outcome. Ordering: one cycle of a feed at a time. Atomicity:
`take`, `publish` and `ack` are each all or nothing, and every prefix of the three can be resumed. Idempotency: by cycle
id. Errors: LeaseLost, RegistryUnavailable and BufferFull leave the cycle open; the next turn resumes it.
"""

import hashlib
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from driftline.artefact.manifest import Signer, decode_manifest
from driftline.base import Base
from driftline.buffer import Buffer, Outcome
from driftline.clock import Clock
from driftline.config import FeedConfig
from driftline.errors import RegistryConflict
from driftline.records import Cycle, GateDecision, LiveRecord, PublishOutcome
from driftline.registry import Lease, Registry, check_not_lost
from driftline.splitting import SAMPLE_TEXTS
from learner.arrivals import Arrivals
from learner.gate import decide
from learner.holdouts import Holdouts
from learner.manifests import Judged, draft
from learner.memory import give_back_memory
from learner.model import LoraModel
from learner.publishing import Publisher, is_judged
from learner.recipes import recipe_of
from learner.schedule import missed_tick
from learner.training import Training
from learner.versions import Versions

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleReport:
    """What one turn did. Seconds are wall time; they, and the decision, are missing where a crashed turn was only
    acknowledged."""

    cycle: Cycle
    decision: GateDecision | None
    outcome: str
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    trained_examples: int = 0
    mean_loss: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What a feed's learner works with; built by the command line, shared with nobody else.

    `keep_waiting`: while paused or stopped, so many fresh examples wait on; what comes beyond goes to replay.
    """

    buffer: Buffer
    registry: Registry
    versions: Versions
    model: LoraModel
    base: Base
    signer: Signer
    lease: Lease
    clock: Clock
    config_sha256: str
    keep_waiting: int


class Learner:
    """One feed's learner. One thread only. `turn` does at most one cycle."""

    def __init__(self, feed: str, section: FeedConfig, shop: Workshop) -> None:
        self.feed = feed
        self._section = section
        self._shop = shop
        self._holdouts = Holdouts(feed, section, shop.buffer, shop.model)
        self._publisher = Publisher(shop.registry, shop.signer, shop.lease, shop.clock)
        self._arrivals = Arrivals(feed, shop.buffer, section.schedule.max_examples)
        self._training = Training(feed, section, shop.buffer, shop.model)

    @property
    def lease(self) -> Lease:
        """The lease that publishing needs; whoever runs the learner acquires it."""
        return self._shop.lease

    def turn(self, *, at_least: int | None = None) -> CycleReport | None:
        """Resume an open cycle, else start one if enough examples wait.

        Enough: as the schedule says, of those that no cycle has taken yet, or `at_least` fresh ones of any kind. None:
        nothing to do, paused, or an open cycle was given up because its parent is no longer live (or promotion paused,
        or a class of its examples given up).
        """
        live = self._live()
        cycle = self._shop.buffer.ledger.open_cycle(self.feed) or self._take(live, at_least)
        if cycle is None:
            return None
        recorded = self._shop.registry.cycle_outcome(self.feed, cycle.cycle_id)
        if recorded is not None:
            return self._acknowledge(CycleReport(cycle=cycle, decision=None, outcome=recorded.status), recorded)
        if cycle.parent != live.version or live.paused or self._is_withdrawn(cycle):
            self._abandon(cycle, live)
            return None
        try:
            return self._acknowledge(*self._learn(cycle, live))
        except RegistryConflict:  # the number is taken: the counter was set back; the next turn asks for another
            self._abandon(cycle, live)
            raise

    def awaits(self, request: str) -> bool:
        """Whether the update that was asked for should wait for what was on its way then."""
        return self._arrivals.awaited(request)

    def has_open_cycle(self) -> bool:
        """True after a crash between `take` and `ack`."""
        return self._shop.buffer.ledger.open_cycle(self.feed) is not None

    def missed_tick(self) -> bool:
        """Whether a tick came while no learner ran."""
        last_taken_at = self._shop.buffer.ledger.last_taken_at(self.feed)
        return missed_tick(self._section.schedule, last_taken_at, self._shop.clock.now())

    def ready(self) -> bool:
        """Whether so many examples that no cycle has taken yet wait that a tick would start an update."""
        wanted = self._section.schedule.enough(self._shop.buffer.ledger.example_count(self.feed))
        return self._shop.buffer.ledger.new_count(self.feed) >= wanted

    def keep_house(self) -> None:
        """What is due between cycles: full segments are closed; while paused, what waits beyond the limit goes to
        replay, so that ingest goes on."""
        self.close_segments()
        if self.overflows() and self._live().paused:
            self.retire_overflow()

    def overflows(self) -> bool:
        """Whether more fresh examples wait than a feed that learns nothing may keep. Asks nothing but the buffer."""
        return self._shop.buffer.ledger.fresh_count(self.feed) > self._shop.keep_waiting

    def retire_overflow(self) -> None:
        """What waits beyond the limit goes to replay. Asks nothing but the buffer."""
        self._shop.buffer.ledger.retire_overflow(self.feed, keep=self._shop.keep_waiting)

    def close_segments(self, *, minimum_open: int | None = None) -> None:
        """Write the retention rows that are due, with the incumbent as it is now.

        `minimum_open`: at the end of a stream, also that of the open segment if it has so many hold-outs.
        """
        while (segment := self._holdouts.next_to_close(minimum_open)) is not None:
            incumbent = self._shop.versions.load(self._live().version)
            self._holdouts.close(segment, incumbent, self._shop.clock.now())

    def _live(self) -> LiveRecord:
        """The live record, and the buffer's examples as it makes them.

        Reconciled every time: after a crash the buffer may have seen the revision, but not yet what it means for a
        cycle that was acknowledged since.
        """
        ledger, registry = self._shop.buffer.ledger, self._shop.registry
        while True:
            seen = ledger.seen_revision(self.feed)  # first: a newer one seen meanwhile must not make it look lost
            live = registry.live(self.feed)
            check_not_lost(live, seen)
            if ledger.reconcile(self.feed, live.version, live.revision):
                return live

    def _take(self, live: LiveRecord, at_least: int | None) -> Cycle | None:
        buffer = self._shop.buffer
        enough = self.ready() if at_least is None else buffer.ledger.fresh_count(self.feed) >= at_least
        if live.paused or not enough:
            return None
        fresh = buffer.ledger.fresh(self.feed, self._section.schedule.max_examples)
        version = self._shop.registry.next_version(self.feed, above=buffer.ledger.last_version(self.feed))
        seed = cycle_seed(self._section.learner.seed, self.feed, version)
        cycle = Cycle(
            cycle_id=uuid.UUID(int=seed << 64 | version).hex,
            feed=self.feed,
            parent=live.version,
            version=version,
            plan=self._training.plan(fresh, self._shop.versions.load(live.version), seed),
            seed=seed,
            taken_at=self._shop.clock.now(),
        )
        buffer.ledger.take(cycle)
        return cycle

    def _is_withdrawn(self, cycle: Cycle) -> bool:
        """Whether its plan holds examples that nothing may train on any more: their class was given up since."""
        plan = cycle.plan
        return bool(self._shop.buffer.labels.withdrawn(self.feed, (*plan.fresh, *plan.replayed, *plan.retired)))

    def _abandon(self, cycle: Cycle, live: LiveRecord) -> None:
        self._shop.buffer.ledger.ack(cycle.cycle_id, "abandoned")
        log.info("cycle_abandoned", feed=self.feed, cycle=cycle.cycle_id, parent=cycle.parent, live=live.version)

    def _learn(self, cycle: Cycle, live: LiveRecord) -> tuple[CycleReport, PublishOutcome]:
        seconds = {"train": 0.0, "evaluate": 0.0}
        parent, exam = self._shop.versions.load(cycle.parent), self._holdouts.exam()
        with _measured(seconds, "evaluate"):
            incumbent = self._holdouts.predictions(parent, exam.seqs)
            best = parent if live.anchor == parent.version else self._shop.versions.load(live.anchor)
            anchor = None if best is parent else self._holdouts.predictions(best, exam.seqs)
        with _measured(seconds, "train"):
            candidate = self._training.update(cycle, parent)
        knows = {
            name: one.knows
            for name, one in (("incumbent", parent), ("anchor", best))
            if one.knows is not None and one.knows != set(self._section.labels)
        }
        with _measured(seconds, "evaluate"):
            answers, within = self._holdouts.answer(cycle.version, exam.seqs, knows)
        decision = decide(
            self._shop.model.task,
            answers,
            incumbent,
            anchor,
            exam.truth,
            exam.sets,
            self._section.gate,
            finite=candidate.finite,
            knows=knows,
            within=within,
        )
        recipe = recipe_of(cycle, self._section, self._shop.model)
        judged = Judged(
            cycle=cycle,
            recipe=recipe,
            parts=self._shop.versions.store(candidate.result.weights, candidate.state, recipe, self._fast_state()),
            probe=candidate.probe,
            decision=decision,
            evaluation=exam.figures(answers),
            broken_words=self._broken_words(cycle),
        )
        manifest = draft(judged, self._section, self._shop.model, self._shop.config_sha256, self._shop.clock.now())
        outcome, decision = self._publisher.publish(manifest)
        report = CycleReport(
            cycle=cycle,
            decision=decision,
            outcome=outcome.recorded or outcome.status,
            train_seconds=seconds["train"],
            evaluate_seconds=seconds["evaluate"],
            trained_examples=candidate.result.examples,
            mean_loss=candidate.result.mean_loss,
        )
        return report, outcome

    def _fast_state(self) -> bytes | None:
        """As it was kept last, which may be some pulses ago."""
        kept = self._shop.buffer.fast.kept(self.feed) if self._section.fast.enabled else None
        return None if kept is None else kept.state

    def _broken_words(self, cycle: Cycle) -> float | None:
        sample = self._shop.buffer.ledger.examples(self.feed, cycle.plan.fresh[:SAMPLE_TEXTS])
        return self._shop.base.broken_words([example.text for example in sample])

    def _ending(self, report: CycleReport, outcome: PublishOutcome) -> Outcome:
        """What the outcome means for the cycle's examples; after a crash the manifest says why it was rejected."""
        if report.outcome == "promoted":
            return "promoted"
        manifest = self._shop.registry.manifest(self.feed, outcome.version)
        return "rejected" if is_judged(decode_manifest(manifest.document).decision) else "unjudged"

    def _acknowledge(self, report: CycleReport, outcome: PublishOutcome) -> CycleReport:
        buffer, cycle = self._shop.buffer, report.cycle
        buffer.ledger.remember_revision(self.feed, outcome.revision)  # first: should Redis lose it now, it is missed
        buffer.ledger.ack(cycle.cycle_id, self._ending(report, outcome))
        log.info("cycle_done", feed=self.feed, version=cycle.version, outcome=report.outcome, loss=report.mean_loss)
        live = self._live()
        self._holdouts.forget({live.version, live.anchor, cycle.version})
        self._shop.registry.collect_garbage(self.feed)
        give_back_memory()
        return report


@contextmanager
def _measured(seconds: dict[str, float], activity: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[activity] += time.perf_counter() - start


def cycle_seed(seed: int, feed: str, version: int) -> int:
    """A 63-bit seed that depends on nothing but its arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{feed}:{version}".encode()).digest()[:8]) >> 1


__all__ = ["CycleReport", "Learner", "Workshop", "cycle_seed"]
