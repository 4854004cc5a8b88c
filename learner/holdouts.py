"""What the gate and the retention matrix are measured on: hold-outs that nothing trains on (DESIGN §3.10, §4).

Predictions of a version on a hold-out never change, so they are cached in the buffer by version.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from torch import Tensor

from driftline.buffer import Buffer, Segment
from driftline.config import FeedConfig
from driftline.figures import Figures
from driftline.tasks import Task
from learner.model import LoraModel
from learner.versions import Version

EVALUATION_BATCH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Exam:
    """Which `task` judges, hold-out sets by name (`pooled`: all kept, none twice; `recent`; `segment:N` for each closed
    segment), and the label of every example in them."""

    task: Task
    sets: dict[str, list[int]]
    truth: dict[int, str]

    def figures(self, answers: Mapping[int, str | None]) -> dict[str, Figures]:
        """How good the answers are on each set that is not empty. Without recalls for single segments: with many
        segments and classes a manifest, which stays for ever, would be hundreds of kilobytes."""
        return {
            name: self.task.figures(answers, self.truth, seqs, by_class=not name.startswith("segment:"))
            for name, seqs in self.sets.items()
            if seqs
        }

    @property
    def seqs(self) -> list[int]:
        """Every example number once, rising."""
        return sorted(self.truth)


class Holdouts:
    """One feed's hold-out sets, and the answers of versions on them."""

    def __init__(self, feed: str, section: FeedConfig, buffer: Buffer, model: LoraModel) -> None:
        self._feed = feed
        self._section = section
        self._buffer = buffer
        self._model = model

    def exam(self) -> Exam:
        """The sets as they are now; ingest may add hold-outs at any time."""
        segments = self._buffer.exams.segments(self._feed)
        sets = {"pooled": sorted({seq for segment in segments for seq in segment.holdouts})}
        sets["recent"] = self._buffer.exams.recent_holdouts(self._feed, self._section.gate.recent_holdouts)
        sets |= {f"segment:{s.index}": list(s.holdouts) for s in segments if s.closed}
        return Exam(self._model.task, sets, self._truth({seq for seqs in sets.values() for seq in seqs}))

    def predictions(self, version: Version, seqs: Iterable[int]) -> dict[int, str | None]:
        """The version's answers on these hold-outs, from the cache where there; None for each at version 0.

        Loads the version's weights into the model only if something is missing.
        """
        wanted = set(seqs)
        if version.version == 0:
            return dict.fromkeys(wanted)
        cached = self._buffer.exams.cached_predictions(self._feed, version.version)
        missing = sorted(wanted - cached.keys())
        if missing:
            self._model.load(version.weights)
            cached |= self._cached(version.version, self._among(missing, self._outputs(missing), version.knows))
        return {seq: cached[seq] for seq in wanted}

    def answer(
        self, version: int, seqs: list[int], within: Mapping[str, Collection[str]]
    ) -> tuple[dict[int, str | None], dict[str, dict[int, str | None]]]:
        """Answers of the weights now in the model, cached under `version`; and for each reference that does not know
        all labels those among the ones that it knows, kept nowhere."""
        outputs = self._outputs(seqs)
        limited = {name: self._among(seqs, outputs, known) for name, known in within.items()}
        return self._cached(version, self._among(seqs, outputs, None)), limited

    def _cached(self, version: int, answers: dict[int, str | None]) -> dict[int, str | None]:
        self._buffer.exams.cache_predictions(self._feed, version, answers)
        return answers

    def _outputs(self, seqs: list[int]) -> Tensor:
        texts = [example.text for example in self._buffer.ledger.examples(self._feed, seqs)]
        return self._model.predict(texts, EVALUATION_BATCH_TOKENS)  # (N, R)

    def _among(self, seqs: list[int], outputs: Tensor, knows: Collection[str] | None) -> dict[int, str | None]:
        return dict(zip(seqs, self._model.task.answers(outputs, self._section.labels, knows), strict=True))

    def forget(self, keep: Collection[int]) -> None:
        """Drop what is cached of all other versions, and on hold-outs that no set has any more: an anchor may stay for
        as long as the feed lives."""
        asked = self.exam().seqs
        self._buffer.exams.forget_predictions(self._feed, versions=keep, seqs=asked)

    def next_to_close(self, minimum_open: int | None = None) -> Segment | None:
        """The first segment that is full and not closed yet.

        `minimum_open`: at the end of a stream, also the open segment if it has so many hold-outs.
        """
        unclosed = [segment for segment in self._buffer.exams.segments(self._feed) if not segment.closed]
        return unclosed[0] if unclosed and self._ends(unclosed[0], minimum_open) else None

    def close(self, segment: Segment, incumbent: Version, at: datetime) -> None:
        """Write the segment's row of the matrix. It may merge others: ask for the next one anew."""
        columns = [s for s in self._buffer.exams.segments(self._feed) if s.index <= segment.index]
        answers = self.predictions(incumbent, (seq for s in columns for seq in s.holdouts))
        truth = self._truth(answers)
        is_right = self._model.task.is_right
        row = {s.index: (sum(is_right(answers[q], truth[q]) for q in s.holdouts), len(s.holdouts)) for s in columns}
        self._buffer.exams.close_segment(self._feed, segment.index, row, incumbent.version, at)

    def _ends(self, segment: Segment, minimum_open: int | None) -> bool:
        full = segment.examples >= self._section.evaluation.segment_examples
        return full or (minimum_open is not None and len(segment.holdouts) >= minimum_open)

    def _truth(self, seqs: Iterable[int]) -> dict[int, str]:
        return {example.seq: example.label for example in self._buffer.ledger.examples(self._feed, sorted(seqs))}
