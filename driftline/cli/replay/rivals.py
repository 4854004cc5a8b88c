"""The baselines a replay is measured against: they see the same events, get the same labels, and skip the hold-outs.

`majority`, `last_label` and `online_head` learn from labels as they arrive; `first_version` is the first promoted
version kept frozen, from its promotion on. The first answer for an event id counts, as it does for ours.
"""

import torch

from driftline.base import Base
from driftline.records import Example
from learner.baselines import LastLabel, Majority, OnlineHead
from serving.engine import Engine


class Rivals:
    """Answers of all baselines by event id."""

    def __init__(self, feed: str, labels: tuple[str, ...], base: Base, engine: Engine) -> None:
        self._feed = feed
        self._base = base
        self._engine = engine
        self._blind: dict[str, Majority | LastLabel] = {"majority": Majority(labels), "last_label": LastLabel(labels)}
        self._head = OnlineHead(labels, base.hidden_size)
        self._features: dict[str, torch.Tensor] = {}
        self.first_version: int | None = None
        self.answers: dict[str, dict[str, str | None]] = {"majority": {}, "last_label": {}, "online_head": {}}
        self.first_answers: dict[str, str | None] = {}

    def answer(self, event_ids: list[str], texts: list[str]) -> None:
        """Answer a batch before its labels are known."""
        if not texts:
            return
        features = self._base.features(texts)  # (B, d) fp32
        self._features.update(zip(event_ids, features, strict=True))
        for name, rival in self._blind.items():
            self._keep(self.answers[name], event_ids, rival.predict(len(texts)))
        self._keep(self.answers["online_head"], event_ids, self._head.predict(features))
        if self.first_version is not None:
            served = self._engine.predict(self._feed, texts, self.first_version)
            self._keep(self.first_answers, event_ids, [answer.label for answer in served])

    def learn(self, examples: list[Example]) -> None:
        """Learn from labelled examples, in their order; hold-outs are left out."""
        known = [(e.label, self._features.pop(e.event_id, None)) for e in examples if not e.holdout]
        for rival in self._blind.values():
            rival.learn([label for label, _ in known])
        pairs = [(label, row) for label, row in known if row is not None]
        if pairs:
            self._head.learn(torch.stack([row for _, row in pairs]), [label for label, _ in pairs])

    def _keep(self, answers: dict[str, str | None], event_ids: list[str], labels: list[str | None]) -> None:
        for event_id, label in zip(event_ids, labels, strict=True):
            answers.setdefault(event_id, label)
