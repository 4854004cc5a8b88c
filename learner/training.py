"""From a parent and a plan to a candidate. Guards invariant 5: an update is a function of its parent's weights and
trainer state, the plan, the learning config and the seed; repeated on a CPU it gives the same bytes (those of the
trainer state also depend on the buffer's identity, which is in it). And that only examples of this buffer are replayed,
also where the parent was learned from another one, or from this one before it was restored to an older state.
"""

from dataclasses import dataclass, replace

import numpy as np
import structlog
import torch
from torch import Tensor

from driftline.artefact.probe import PROBE_TEXTS
from driftline.buffer import Buffer
from driftline.config import FeedConfig
from driftline.errors import ConfigError
from driftline.experts.choice import spoken
from driftline.records import Cycle, Example, Plan
from learner.holdouts import EVALUATION_BATCH_TOKENS
from learner.model import LoraModel
from learner.strategies import strategy_named
from learner.trainer_state import TrainerState
from learner.update import Lesson, UpdateResult, run_update
from learner.versions import Version

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """What an update made. `state` remembers the plan's examples; `probe`: logits (8, R) on the probe's texts."""

    result: UpdateResult
    state: TrainerState
    probe: Tensor

    @property
    def finite(self) -> bool:
        """Whether weights, moments, loss and probe hold no NaN and no infinite number."""
        return self.result.finite and bool(torch.isfinite(self.probe).all())


class Training:
    """One feed's plans and updates."""

    def __init__(self, feed: str, section: FeedConfig, buffer: Buffer, model: LoraModel) -> None:
        self._feed = feed
        self._section = section
        self._buffer = buffer
        self._model = model
        self._strategy = strategy_named(section.learner.strategy)

    def plan(self, fresh: list[Example], parent: Version, seed: int) -> Plan:
        """What the next update learns from: these, what the strategy replays with them, and what only is remembered."""
        section = self._section.learner
        state = self._state_of(parent)
        if parent.state is not None and not self._learned_from_this_buffer(parent):
            self._warn_of_another_buffer(parent, parent.state)
        state = self._mended(state)
        replayed = self._strategy.draw(fresh, state, section, np.random.default_rng([seed, 0]))
        retired = self._buffer.ledger.retired(self._feed, section.reservoir_examples)
        return Plan(fresh=_numbers(fresh), replayed=tuple(replayed), retired=_numbers(retired))

    def update(self, cycle: Cycle, parent: Version) -> Candidate:
        """Train on the cycle's plan. Leaves the candidate's weights in the model."""
        section, plan = self._section.learner, cycle.plan
        fresh, replayed, retired = (
            self._buffer.ledger.examples(self._feed, seqs) for seqs in (plan.fresh, plan.replayed, plan.retired)
        )
        lessons = self._lessons(fresh), self._lessons(replayed)
        self._model.load(parent.weights)
        result = run_update(self._model, self._mended(self._state_of(parent)), *lessons, section, cycle.seed)
        if self._section.fast.enabled:
            names = self._model.features(spoken(self._section.labels)).half()
            result = replace(result, weights=replace(result.weights, names=names))
        state = self._strategy.remember(result.state, fresh, retired, section, np.random.default_rng([cycle.seed, 1]))
        return Candidate(result=result, state=state, probe=self._model.predict(PROBE_TEXTS, EVALUATION_BATCH_TOKENS))

    def _lessons(self, examples: list[Example]) -> list[Lesson]:
        targets = self._model.task.targets([example.label for example in examples], self._section.labels)
        if None in targets:
            unknown = examples[targets.index(None)]
            raise ConfigError(
                f"feed.{self._feed}.labels: example {unknown.seq} in the buffer has the label {unknown.label!r}, which "
                "is not among them: start ingest and learn again with one config, which says what becomes of that class"
            )
        tokens = self._model.base.tokenize([example.text for example in examples]) if examples else []
        return [Lesson(tokens=ids, target=target) for ids, target in zip(tokens, targets, strict=True)]

    def _state_of(self, parent: Version) -> TrainerState:
        """The parent's state, its example numbers only where they are this buffer's."""
        state = parent.state or TrainerState()
        ours = self._learned_from_this_buffer(parent)
        if not ours:
            return state.without_examples(self._buffer.identity())
        remembered = {seq for seq, _ in state.reservoir.entries} | set(state.recent.seqs)
        withdrawn = self._buffer.labels.withdrawn(self._feed, remembered)
        return state.without(withdrawn) if withdrawn else state

    def _mended(self, state: TrainerState) -> TrainerState:
        """The state with the labels of what it remembers as the buffer has them, since they may have been corrected.
        Where none was, it is the same state."""
        kept = state.reservoir
        labels = self._buffer.corrections.labels(self._feed, [seq for seq, _ in kept.entries])
        return replace(state, reservoir=kept.relabelled(labels))

    def _learned_from_this_buffer(self, parent: Version) -> bool:
        """A buffer restored from a backup has the same identity, but never saw what was learned since; it may have
        given those numbers to other examples."""
        same = parent.state is not None and parent.state.buffer == self._buffer.identity()
        return same and self._buffer.ledger.has_version(self._feed, parent.version)

    def _warn_of_another_buffer(self, parent: Version, state: TrainerState) -> None:
        log.warning(
            "replay_starts_empty",
            feed=self._feed,
            parent=parent.version,
            learned_from=state.buffer,
            now=self._buffer.identity(),
            restored=state.buffer == self._buffer.identity(),
        )


def _numbers(examples: list[Example]) -> tuple[int, ...]:
    return tuple(example.seq for example in examples)
