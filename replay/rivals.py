"""The baselines a replay is measured against: they see the same events, get the same labels, and skip the hold-outs.

`majority`, `last_label` and `online_head` learn from labels as they arrive; `first_version` is the first promoted
version kept frozen, from its promotion on. The first answer for an event id counts, as it does for ours.
"""

import torch

from driftline.base import Base
from driftline.records import Example
from replay.baselines import LastLabel, Majority, OnlineHead
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
        self.order: dict[str, int] = {}
        """The place of each event id among all that were answered."""

    def keep_first(self, version: int) -> None:
        """A version was promoted; the first one answers from now on."""
        self.first_version = self.first_version or version

    def answer(self, event_ids: list[str], texts: list[str]) -> None:
        """Answer a batch before its labels are known. Ids that were answered before are passed over."""
        new: dict[str, str] = {}
        for event_id, text in zip(event_ids, texts, strict=True):
            if event_id not in self.order:
                self.order[event_id] = len(self.order)
                new[event_id] = text
        if not new:
            return
        features = self._base.features(list(new.values()))  # (B, d) fp32
        self._features |= {event_id: row.clone() for event_id, row in zip(new, features, strict=True)}
        for name, rival in self._blind.items():
            self.answers[name] |= zip(new, rival.predict(len(new)), strict=True)
        self.answers["online_head"] |= zip(new, self._head.predict(features), strict=True)
        if self.first_version is not None:
            served = self._engine.predict(self._feed, list(new.values()), self.first_version)
            self.first_answers |= {event_id: answer.label for event_id, answer in zip(new, served, strict=True)}

    def learn(self, examples: list[Example]) -> None:
        """Learn from labelled examples, in their order; hold-outs are left out."""
        rows = [(example, self._features.pop(example.event_id)) for example in examples]
        known = [(example.label, row) for example, row in rows if not example.holdout]
        if not known:
            return
        labels = [label for label, _ in known]
        for rival in self._blind.values():
            rival.learn(labels)
        self._head.learn(torch.stack([row for _, row in known]), labels)
