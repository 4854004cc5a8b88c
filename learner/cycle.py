"""The learner's cycle: take → draw replay → update → evaluate → decide → publish → acknowledge (DESIGN §4).

Guards invariants 5, 6 and 10: the plan is in the buffer before training starts, so a crash repeats the same turn; the
registry's outcome for the cycle id decides whether there is anything left to do; the gate sees hold-outs only.

Delivery: an example is learned by exactly one published outcome. Ordering: one cycle of a feed at a time. Atomicity:
`take`, `publish` and `ack` are each all or nothing, and every prefix of the three can be resumed. Idempotency: by cycle
id. Errors: LeaseLost, RegistryUnavailable and BufferFull leave the cycle open; the next turn resumes it.
"""

import hashlib
import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version as library_version
from typing import TypeVar

import numpy as np
import structlog

from driftline.artefact.manifest import SignedManifest, Signer
from driftline.artefact.probe import PROBE_TEXTS
from driftline.base import Base
from driftline.buffer import Buffer
from driftline.clock import Clock
from driftline.config import FeedConfig
from driftline.records import (
    Cycle,
    Example,
    ExampleRanges,
    GateDecision,
    GateReason,
    LiveRecord,
    Manifest,
    Plan,
    Probe,
    PublishOutcome,
)
from driftline.registry import Lease, Registry, check_not_lost
from learner.evaluation import accuracy_on
from learner.gate import decide
from learner.holdouts import EVALUATION_BATCH_TOKENS, Holdouts
from learner.model import LoraModel
from learner.strategies import strategy_named
from learner.threads import training_threads
from learner.trainer_state import TrainerState
from learner.update import Lesson, UpdateResult, run_update
from learner.versions import BlobNames, Version, Versions

log = structlog.get_logger()
T = TypeVar("T")
LIBRARIES = ("torch", "transformers", "peft", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleReport:
    """What one turn did. Seconds are wall time."""

    cycle: Cycle
    decision: GateDecision | None
    outcome: str
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    trained_examples: int = 0
    mean_loss: float | None = None


@dataclass(slots=True)
class _Stopwatch:
    """Adds up wall seconds per activity of one cycle."""

    seconds: dict[str, float] = field(default_factory=dict)

    def measure(self, activity: str, work: Callable[[], T]) -> T:
        start = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[activity] = self.seconds.get(activity, 0.0) + time.perf_counter() - start


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What a feed's learner works with; built by the command line, shared with nobody else.

    `keep_waiting`: while paused, so many fresh examples wait on; what comes beyond goes to replay.
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
        self._strategy = strategy_named(section.learner.strategy)

    @property
    def lease(self) -> Lease:
        """The lease that publishing needs; whoever runs the learner acquires it."""
        return self._shop.lease

    def turn(self, *, at_least: int | None = None) -> CycleReport | None:
        """Resume an open cycle, or start one if at least `at_least` (default: min_examples) fresh examples wait.

        None: nothing to do (too few, paused, or an open cycle's parent is no longer live and it was given up).
        """
        live = self._live()
        cycle = self._shop.buffer.open_cycle(self.feed)
        if cycle is None:
            cycle = self._take(live, at_least if at_least is not None else self._section.schedule.min_examples)
        if cycle is None:
            return None
        recorded = self._shop.registry.cycle_outcome(self.feed, cycle.cycle_id)
        if recorded is not None:
            return self._acknowledge(
                CycleReport(cycle=cycle, decision=None, outcome=recorded.recorded or recorded.status)
            )
        if cycle.parent != live.version:
            self._shop.buffer.ack(cycle.cycle_id, "abandoned")
            log.info("cycle_abandoned", feed=self.feed, cycle=cycle.cycle_id, parent=cycle.parent, live=live.version)
            return None
        return self._acknowledge(self._learn(cycle, live))

    def has_open_cycle(self) -> bool:
        """True after a crash between `take` and `ack`."""
        return self._shop.buffer.open_cycle(self.feed) is not None

    def close_segments(self, *, minimum_open: int | None = None) -> int:
        """Write the retention rows that are due, with the incumbent as it is now."""
        live = self._shop.registry.live(self.feed)
        incumbent = self._shop.versions.load(live.version)
        return self._holdouts.close_segments(incumbent, self._shop.clock.now(), minimum_open=minimum_open)

    def _live(self) -> LiveRecord:
        live = self._shop.registry.live(self.feed)
        check_not_lost(live, self._shop.buffer.seen_revision(self.feed))
        if live.revision != self._shop.buffer.seen_revision(self.feed):
            self._shop.buffer.reconcile(self.feed, live.version)
            self._shop.buffer.remember_revision(self.feed, live.revision)
        return live

    def _take(self, live: LiveRecord, at_least: int) -> Cycle | None:
        buffer = self._shop.buffer
        if live.paused:
            buffer.retire_overflow(self.feed, keep=self._shop.keep_waiting)
            return None
        fresh = buffer.fresh(self.feed, self._section.schedule.max_examples)
        if len(fresh) < at_least or not fresh:
            return None
        version = self._shop.registry.next_version(self.feed)
        seed = cycle_seed(self._section.learner.seed, self.feed, version)
        state = self._state_of(self._shop.versions.load(live.version))
        replayed = self._strategy.draw(fresh, state, self._section.learner, np.random.default_rng([seed, 0]))
        retired = buffer.retired(self.feed, self._section.learner.reservoir_examples)
        cycle = Cycle(
            cycle_id=uuid.UUID(int=seed << 64 | version).hex,
            feed=self.feed,
            parent=live.version,
            version=version,
            plan=Plan(
                fresh=tuple(e.seq for e in fresh),
                replayed=tuple(replayed),
                retired=tuple(e.seq for e in retired),
            ),
            seed=seed,
            taken_at=self._shop.clock.now(),
        )
        buffer.take(cycle)
        return cycle

    def _learn(self, cycle: Cycle, live: LiveRecord) -> CycleReport:
        watch = _Stopwatch()
        parent = self._shop.versions.load(cycle.parent)
        anchor = self._shop.versions.load(live.anchor)
        sets = self._holdouts.sets()
        everything = sorted({seq for seqs in sets.values() for seq in seqs})
        references = watch.measure(
            "evaluate", lambda: [self._holdouts.predictions(version, everything) for version in (parent, anchor)]
        )
        result, state = watch.measure("train", lambda: self._update(cycle, parent))
        answers = watch.measure("evaluate", lambda: self._holdouts.answer(cycle.version, everything))
        truth = self._holdouts.truth(everything)
        incumbent_answers, anchor_answers = references[0], references[1] if anchor.version != parent.version else None
        decision = decide(
            answers,
            incumbent_answers,
            anchor_answers,
            truth,
            sets,
            self._section.gate,
            finite=result.finite,
        )
        evaluation = {name: accuracy_on(answers, truth, seqs) for name, seqs in sets.items() if seqs}
        manifest = self._manifest(cycle, self._shop.versions.store(result.weights, state), decision, evaluation)
        outcome, decision = self._publish(manifest)
        return CycleReport(
            cycle=cycle,
            decision=decision,
            outcome=outcome.recorded or outcome.status,
            train_seconds=watch.seconds["train"],
            evaluate_seconds=watch.seconds["evaluate"],
            trained_examples=result.examples,
            mean_loss=result.mean_loss,
        )

    def _update(self, cycle: Cycle, parent: Version) -> tuple[UpdateResult, TrainerState]:
        """The function of invariant 5: parent, plan and seed in; weights and the next trainer state out."""
        buffer, section = self._shop.buffer, self._section.learner
        fresh, replayed = buffer.examples(cycle.plan.fresh), buffer.examples(cycle.plan.replayed)
        state = self._state_of(parent)
        self._shop.model.load(parent.weights)
        result = run_update(self._shop.model, state, self._lessons(fresh), self._lessons(replayed), section, cycle.seed)
        retired = buffer.examples(cycle.plan.retired)
        remembered = self._strategy.remember(
            result.state, fresh, retired, section, np.random.default_rng([cycle.seed, 1])
        )
        return result, remembered

    def _lessons(self, examples: list[Example]) -> list[Lesson]:
        index = {label: i for i, label in enumerate(self._section.labels)}
        tokens = self._shop.base.tokenize([e.text for e in examples]) if examples else []
        return [Lesson(tokens=t, label=index[e.label]) for t, e in zip(tokens, examples, strict=True)]

    def _state_of(self, version: Version) -> TrainerState:
        return version.state or TrainerState()

    def _manifest(
        self,
        cycle: Cycle,
        blobs: BlobNames,
        decision: GateDecision,
        evaluation: dict[str, dict[str, float]],
    ) -> Manifest:
        base, section = self._shop.base, self._section.learner
        logits = self._shop.model.predict(PROBE_TEXTS, EVALUATION_BATCH_TOKENS).nan_to_num()  # (8, C) fp32
        return Manifest(
            feed=self.feed,
            version=cycle.version,
            parent=cycle.parent,
            cycle_id=cycle.cycle_id,
            body_sha256=blobs.body,
            head_sha256=blobs.head,
            trainer_state_sha256=blobs.trainer_state,
            base_fingerprint=base.fingerprint,
            task=self._section.task,
            labels=self._section.labels,
            rank=section.rank,
            alpha=section.alpha,
            target_modules=tuple(self._shop.model.target_paths),
            max_tokens=base.max_tokens,
            pooling=base.pooling,
            config_sha256=self._shop.config_sha256,
            seed=cycle.seed,
            threads=training_threads(self._section.learner.threads),
            libraries={name: library_version(name) for name in LIBRARIES} | {"python": platform.python_version()},
            examples=ExampleRanges(fresh=ranges(cycle.plan.fresh), replayed=ranges(cycle.plan.replayed)),
            fresh_examples=len(cycle.plan.fresh),
            replayed_examples=len(cycle.plan.replayed),
            evaluation=evaluation,
            decision=decision,
            probe=Probe(logits=tuple(tuple(row) for row in logits.tolist())),
            created_at=self._shop.clock.now(),
        )

    def _publish(self, manifest: Manifest) -> tuple[PublishOutcome, GateDecision]:
        """Publish; where the live record changed or a pause came meanwhile, register the same version as rejected."""
        live = self._shop.registry.live(self.feed)
        refusal = "paused" if live.paused else "incumbent_changed" if live.version != manifest.parent else None
        if manifest.decision.promote and refusal is None:
            outcome = self._send(manifest, live.revision)
            refusal = {"paused": "paused", "conflict": "incumbent_changed"}.get(outcome.status)
            if refusal is None:
                return outcome, manifest.decision
        if manifest.decision.promote and refusal is not None:
            reasons = (*manifest.decision.reasons, GateReason(code=refusal, holds=False))
            manifest = replace(manifest, decision=GateDecision(promote=False, reasons=reasons))
        return self._send(manifest, live.revision), manifest.decision

    def _send(self, manifest: Manifest, expected_revision: int) -> PublishOutcome:
        signed: SignedManifest = self._shop.signer.sign(manifest)
        return self._shop.registry.publish(
            signed, lease=self._shop.lease, expected_revision=expected_revision, at=self._shop.clock.now()
        )

    def _acknowledge(self, report: CycleReport) -> CycleReport:
        buffer, cycle = self._shop.buffer, report.cycle
        buffer.ack(cycle.cycle_id, "promoted" if report.outcome == "promoted" else "rejected")
        live = self._live()
        buffer.forget_predictions(self.feed, keep={live.version, live.anchor, cycle.version})
        self._shop.registry.collect_garbage(self.feed)
        log.info("cycle_done", feed=self.feed, version=cycle.version, outcome=report.outcome, loss=report.mean_loss)
        return report


def cycle_seed(seed: int, feed: str, version: int) -> int:
    """A 63-bit seed that depends on nothing but its arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{feed}:{version}".encode()).digest()[:8]) >> 1


def ranges(numbers: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Inclusive [first, last] ranges of the numbers, rising: (3, 1, 2, 7) → ((1, 3), (7, 7))."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return tuple(found)


__all__ = ["CycleReport", "Learner", "Workshop", "cycle_seed", "ranges"]
