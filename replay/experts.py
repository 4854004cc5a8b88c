"""What each expert was worth on the stream: alone, and by what the answers lose without it. Seen beside the scorer.

Guards that what is measured is what was served: the scorer's own requests are asked to say what they were mixed from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from driftline.buffer import Scored
from driftline.config import FeedConfig
from driftline.experts.choice import chosen
from driftline.records import Event
from replay.evaluation import bootstrap_gap, windows
from serving.answers import Answer, Asked
from serving.engine import Engine

__all__ = ["Experts", "Overheard"]


class Overheard:
    """The engine as the scorer asks it, with an ear for what its answers were mixed from."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.answers: dict[str, Answer] = {}
        """Those of the last request, by text."""

    @property
    def alive(self) -> bool:
        """As the engine's."""
        return self._engine.alive

    def predict(self, feed: str, texts: Sequence[str]) -> list[Answer]:
        """As the engine's, with what each answer was mixed from."""
        answers = self._engine.predict(feed, texts, asked=Asked.EXPERTS)
        self.answers = dict(zip(texts, answers, strict=True))
        return answers


class Experts:
    """Each expert's own answers by event id, the answers without it, and its weight then. Empty without a fast
    clock."""

    def __init__(self, section: FeedConfig) -> None:
        self.names = chosen(section.fast) if section.fast.enabled else ()
        self._alone: dict[str, dict[str, str]] = {name: {} for name in self.names}
        self._without: dict[str, dict[str, str]] = {name: {} for name in self.names}
        self._weights: dict[str, dict[str, float]] = {name: {} for name in self.names}
        self._seen: set[str] = set()

    def listen(self, events: Sequence[Event], answers: Mapping[str, Answer]) -> None:
        """Note what the experts said of these events; the first time of an id counts, as it does for answers."""
        for event in events:
            if event.event_id not in self._seen and event.text in answers:
                self._seen.add(event.event_id)
                self._note(event.event_id, answers[event.text])

    def alone(self, name: str) -> Mapping[str, str]:
        """What one expert by itself answered, by event id."""
        return self._alone[name]

    def _note(self, event_id: str, answer: Answer) -> None:
        if not answer.experts:
            self._note_head(event_id, answer)
            return
        parts = {
            name: {label: one.weight[label] * score for label, score in one.scores.items()}
            for name, one in answer.experts.items()
        }
        logits = {
            label: bias + sum(part.get(label, 0.0) for part in parts.values()) for label, bias in answer.bias.items()
        }
        for name, one in answer.experts.items():
            if one.scores:
                self._alone[name][event_id] = max(one.scores, key=one.scores.__getitem__)
            rest = {label: logit - parts[name].get(label, 0.0) for label, logit in logits.items()}
            self._without[name][event_id] = max(rest, key=rest.__getitem__)
            self._weights[name][event_id] = fmean(one.weight.values())

    def _note_head(self, event_id: str, answer: Answer) -> None:
        """An answer that nothing was mixed into is what the head says, alone."""
        if "head" in self._alone and answer.label is not None:
            self._alone["head"][event_id] = answer.label

    def rows(self, scored: Sequence[Scored], window: int) -> dict[str, Any]:
        """For the report, by name. `accuracy`: alone, on the same events, no answer counts as wrong. `n`: the events
        that it had a say in; on these `ours`, and `without`: of the answers with this expert taken out, the other
        weights as they were; `ahead`: the first minus the second, with its 95 % interval, None where it had no say.
        `weight`: the last one, as the mean over the classes. `windows` and `weights`: accuracy and mean weight of each
        window."""
        return {name: self._row(name, scored, window) for name in self.names}

    def _row(self, name: str, scored: Sequence[Scored], window: int) -> dict[str, Any]:
        alone = [self._alone[name].get(one.event_id) for one in scored]
        truth = [one.label for one in scored]
        told = [one for one in scored if one.event_id in self._without[name]]
        weights = [self._weights[name].get(one.event_id) for one in scored]
        ours = [one.predicted == one.label for one in told]
        without = [self._without[name][one.event_id] == one.label for one in told]
        return {
            "accuracy": _share([answer == label for answer, label in zip(alone, truth, strict=True)]),
            "weight": next((one for one in reversed(weights) if one is not None), None),
            "n": len(told),
            "ours": _share(ours),
            "without": _share(without),
            "ahead": asdict(bootstrap_gap(ours, without)) if told else None,
            "windows": [one["accuracy"] for one in windows(alone, truth, [0] * len(scored), window)],
            "weights": [_mean(weights[start : start + window]) for start in range(0, len(weights), window)],
        }


def _share(right: Sequence[bool]) -> float | None:
    return sum(right) / len(right) if right else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
