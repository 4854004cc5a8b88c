"""The baselines a replay is measured against: they see the same events, get the same labels, and skip the hold-outs.

`majority`, `last_label`, `online_head` and `frozen_mixture` learn from labels as they arrive; `first_version` is the
first promoted version kept frozen, from its promotion on. The first answer for an event id counts, as it does for ours.
"""

import torch

from driftline.base import Base
from driftline.experts.choice import spoken
from driftline.records import Example
from replay.baselines import LastLabel, Majority, OnlineHead
from replay.frozen_mixture import FrozenMixture
from serving.engine import Asked, Engine


class Rivals:
    """Answers of all baselines by event id."""

    def __init__(self, feed: str, labels: tuple[str, ...], base: Base, engine: Engine) -> None:
        self._feed = feed
        self._base = base
        self._engine = engine
        self._blind: dict[str, Majority | LastLabel] = {"majority": Majority(labels), "last_label": LastLabel(labels)}
        self.head = OnlineHead(labels, base.hidden_size)
        self._mixture = FrozenMixture(labels, base.features(spoken(labels)))
        self._features: dict[str, torch.Tensor] = {}
        self.first_version: int | None = None
        learning = ("majority", "last_label", "online_head", "frozen_mixture")
        self.answers: dict[str, dict[str, str | None]] = {name: {} for name in learning}
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
        for name, answers in self._learning(list(new.values()), features).items():
            self.answers[name] |= zip(new, answers, strict=True)
        if self.first_version is not None:
            self.first_answers |= zip(new, self._first(list(new.values())), strict=True)

    def final(self, texts: list[str]) -> dict[str, list[str | None]]:
        """What each baseline answers as it is now, kept nowhere; the first version None where none was promoted."""
        return {**self._learning(texts, self._base.features(texts)), "first_version": self._first(texts)}

    def _learning(self, texts: list[str], features: torch.Tensor) -> dict[str, list[str | None]]:
        """Answers for texts and their features (B, d) of those that learn, in the order of `answers`."""
        blind = {name: rival.predict(len(features)) for name, rival in self._blind.items()}
        head, mixture = self.head.predict(features), self._mixture.predict(texts, features)
        return blind | {"online_head": head, "frozen_mixture": mixture}

    def _first(self, texts: list[str]) -> list[str | None]:
        if self.first_version is None:
            return [None] * len(texts)
        answers = self._engine.predict(
            self._feed, texts, self.first_version, Asked.HEAD
        )  # frozen: no pulse is mixed in
        return [answer.label for answer in answers]

    def learn(self, examples: list[Example]) -> None:
        """Learn from labelled examples, in their order; hold-outs are left out."""
        rows = [(example, self._features.pop(example.event_id)) for example in examples]
        known = [(example, row) for example, row in rows if not example.holdout]
        if not known:
            return
        labels, features = [example.label for example, _ in known], torch.stack([row for _, row in known])
        for rival in self._blind.values():
            rival.learn(labels)
        self.head.learn(features, labels)
        self._mixture.learn([example.text for example, _ in known], features, labels)
