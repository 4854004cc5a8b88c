"""What the gate and the retention matrix are measured on: hold-outs that nothing trains on (DESIGN §3.10, §4).

Predictions of a version on a hold-out never change, so they are cached in the buffer by version.
"""

from collections.abc import Iterable
from datetime import datetime

from driftline.buffer import Buffer, Segment
from driftline.config import FeedConfig
from learner.model import LoraModel
from learner.versions import Version

EVALUATION_BATCH_TOKENS = 4096


class Holdouts:
    """One feed's hold-out sets, and the answers of versions on them."""

    def __init__(self, feed: str, section: FeedConfig, buffer: Buffer, model: LoraModel) -> None:
        self._feed = feed
        self._section = section
        self._buffer = buffer
        self._model = model

    def sets(self) -> dict[str, list[int]]:
        """Name → example numbers: `pooled` (all kept, none twice), `recent`, `segment:N` for each closed segment."""
        segments = self._buffer.segments(self._feed)
        sets = {"pooled": sorted({seq for segment in segments for seq in segment.holdouts})}
        sets["recent"] = self._buffer.recent_holdouts(self._feed, self._section.gate.recent_holdouts)
        return sets | {f"segment:{s.index}": list(s.holdouts) for s in segments if s.closed}

    def truth(self, seqs: Iterable[int]) -> dict[int, str]:
        """Example number → label."""
        return {example.seq: example.label for example in self._buffer.examples(list(seqs))}

    def predictions(self, version: Version, seqs: Iterable[int]) -> dict[int, str | None]:
        """The version's answers on these hold-outs, from the cache where there; None for each at version 0.

        Loads the version's weights into the model only if something is missing.
        """
        wanted = set(seqs)
        if version.version == 0:
            return dict.fromkeys(wanted)
        cached = self._buffer.cached_predictions(self._feed, version.version)
        missing = sorted(wanted - cached.keys())
        if missing:
            self._model.load(version.weights)
            cached |= self.answer(version.version, missing)
        return {seq: cached[seq] for seq in wanted}

    def answer(self, version: int, seqs: list[int]) -> dict[int, str | None]:
        """Answers of the weights now in the model, cached under `version`."""
        texts = [example.text for example in self._buffer.examples(seqs)]
        winners = self._model.predict(texts, EVALUATION_BATCH_TOKENS).argmax(dim=1).tolist() if texts else []
        answers: dict[int, str | None] = {
            seq: self._section.labels[winner] for seq, winner in zip(seqs, winners, strict=True)
        }
        self._buffer.cache_predictions(self._feed, version, answers)
        return answers

    def close_segments(self, incumbent: Version, at: datetime, *, minimum_open: int | None = None) -> int:
        """Write the matrix row of every segment that is full; returns how many.

        `minimum_open`: at the end of a stream, also the open segment if it has so many hold-outs.
        """
        closed = 0
        while (segment := self._first_to_close(minimum_open)) is not None:
            self._close(segment, incumbent, at)
            closed += 1
        return closed

    def _first_to_close(self, minimum_open: int | None) -> Segment | None:
        """Read anew each time: closing one may merge others, which changes their indices."""
        unclosed = [segment for segment in self._buffer.segments(self._feed) if not segment.closed]
        return unclosed[0] if unclosed and self._ends(unclosed[0], minimum_open) else None

    def _ends(self, segment: Segment, minimum_open: int | None) -> bool:
        full = segment.examples >= self._section.evaluation.segment_examples
        return full or (minimum_open is not None and len(segment.holdouts) >= minimum_open)

    def _close(self, segment: Segment, incumbent: Version, at: datetime) -> None:
        columns = [s for s in self._buffer.segments(self._feed) if s.index <= segment.index]
        answers = self.predictions(incumbent, (seq for s in columns for seq in s.holdouts))
        truth = self.truth(answers)
        row = {s.index: (sum(answers[q] == truth[q] for q in s.holdouts), len(s.holdouts)) for s in columns}
        self._buffer.close_segment(self._feed, segment.index, row, incumbent.version, at)
