"""What the experts and their mixture are worth without any adapter, and what they cost.

    python -m benchmarks.experts [--streams sentiment airline steam clinc] [--cache DIR] [--quick] [--out FILE]

Whole streams in order, in blocks of 32: each block is answered, then learned. Prequential accuracy of each expert alone
and of the mixture, over all events and over the first 1,000; the test set at the end, where there is one. The frozen
base's features are computed once and kept in `--cache`, outside the repository. `head` is left out: nothing trains one.
"""

import argparse
import hashlib
import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import ROOT, SOURCES, Source, missing_data, read_events
from benchmarks.record import options_of, write_result
from driftline.base import Base, load_base
from driftline.cli.output import print_table
from driftline.config import load_config
from driftline.experts import MIXER, Block, Cells, ExpertState, Mixture, Partial, Step, advance, scoring_of
from driftline.topics.text import clean_text
from replay.frozen_mixture import FROZEN

BLOCK_EXAMPLES = 32
FIRST_EVENTS = 1000
MIXED = "mixture"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """Labelled texts with their features (N, d) fp16, as they travel, and the label names' (C, d)."""

    texts: list[str]
    targets: NDArray[np.int64]
    features: NDArray[np.float16]
    names: NDArray[np.float32]

    def blocks(self) -> Iterator[tuple[Block, NDArray[np.int64]]]:
        """In order, 32 at a time."""
        for start in range(0, len(self.texts), BLOCK_EXAMPLES):
            rows = slice(start, start + BLOCK_EXAMPLES)
            texts = tuple(self.texts[rows])
            block = Block(
                texts=texts,
                features=Partial.full(self.features[rows]),
                head=Partial.none(len(texts), len(self.names)),
                names=self.names,
            )
            yield block, self.targets[rows]


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One stream through the mixture. Answers by expert, in order; by block the seconds and what a pulse carries.

    Scoring is timed without the n-grams, which serving takes on another thread; learning is timed with all it takes."""

    mixture: Mixture
    states: dict[str, ExpertState]
    answers: dict[str, list[int]] = field(default_factory=dict)
    scoring_s: list[float] = field(default_factory=list)
    learning_s: list[float] = field(default_factory=list)
    pulse_bytes: list[int] = field(default_factory=list)

    def answer(self, block: Block) -> None:
        """Each expert alone, and all together."""
        self.mixture.prepare(block)
        started = time.perf_counter()
        mixed = self.mixture.score(scoring_of(self.states), block)
        self.scoring_s.append(time.perf_counter() - started)
        for name, partial in mixed.scores.items():
            self.answers.setdefault(name, []).extend(partial.values.argmax(axis=1).tolist())
        self.answers.setdefault(MIXED, []).extend(mixed.logits.argmax(axis=1).tolist())

    def learn(self, block: Block, targets: NDArray[np.int64]) -> None:
        """One pulse."""
        started = time.perf_counter()
        steps = self.mixture.learn(self.states, block, targets)
        advance(self.states, steps)
        self.learning_s.append(time.perf_counter() - started)
        self.pulse_bytes.append(sum(map(_bytes, steps.values())))


def _bytes(step: Step) -> int:
    """What replicas are sent; a place is a 4-byte number."""
    changes = step.scoring.values()
    return sum(4 * len(one.places) + one.values.nbytes if isinstance(one, Cells) else one.nbytes for one in changes)


def measure(stream: Texts, test: Texts | None) -> dict[str, Any]:
    """Figures of one stream."""
    mixture = Mixture(experts=FROZEN)
    run = Run(mixture=mixture, states=mixture.start(len(stream.names), stream.features.shape[1]))
    for block, targets in stream.blocks():
        run.answer(block)
        run.learn(block, targets)
    figures: dict[str, Any] = {
        "events": len(stream.texts),
        "accuracy": _accuracies(run.answers, stream.targets),
        "first": _accuracies(run.answers, stream.targets[:FIRST_EVENTS]),
        "weights": {name: run.states[MIXER].scoring[name].round(3).tolist() for name in FROZEN},
        "score_us_per_text": 1e6 * float(np.median(run.scoring_s)) / BLOCK_EXAMPLES,
        "learn_ms_per_block": 1e3 * float(np.median(run.learning_s)),
        "pulse_bytes": float(np.median(run.pulse_bytes)),
        "scoring_bytes": sum(array.nbytes for state in run.states.values() for array in state.scoring.values()),
    }
    return figures | ({"test": _tested(run, test)} if test else {})


def _tested(run: Run, test: Texts) -> dict[str, float]:
    at_the_end = Run(mixture=run.mixture, states=run.states)
    for block, _ in test.blocks():
        at_the_end.answer(block)
    return _accuracies(at_the_end.answers, test.targets)


def _accuracies(answers: dict[str, list[int]], targets: NDArray[np.int64]) -> dict[str, float]:
    return {name: float((np.array(given[: len(targets)]) == targets).mean()) for name, given in answers.items()}


class Streams:
    """Texts and features of the data folder's streams, kept in a folder between runs."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._bases: dict[int, Base] = {}

    def load(self, source: Source, events: Path, limit: int | None) -> Texts:
        """The first `limit` labelled events of a file, as the source's config reads them."""
        config = load_config(ROOT / "examples" / f"{source.config}.toml")
        [section] = config.feed.values()
        rows = [row for row in itertools.islice(read_events(events), limit) if row["label"]]
        texts = [clean_text(row["text"]) for row in rows]
        spoken = [label.replace("_", " ") for label in section.labels]
        return Texts(
            texts=texts,
            targets=np.array([section.labels.index(row["label"]) for row in rows]),
            features=self._features(texts, config.base.max_tokens),
            names=self._features(spoken, config.base.max_tokens).astype(np.float32),
        )

    def _features(self, texts: list[str], max_tokens: int) -> NDArray[np.float16]:
        key = hashlib.sha256("\x00".join([str(max_tokens), *texts]).encode()).hexdigest()[:16]
        path = self._cache / f"features-{key}.npy"
        if not path.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            np.save(path, self._base(max_tokens).features(texts).numpy().astype(np.float16))
        found: NDArray[np.float16] = np.load(path)
        return found

    def _base(self, max_tokens: int) -> Base:
        if max_tokens not in self._bases:
            [config] = [load_config(ROOT / "examples" / "airline.toml").base]
            self._bases[max_tokens] = load_base(config.model_copy(update={"max_tokens": max_tokens}))
        return self._bases[max_tokens]


def run(streams: Streams, names: list[str], limit: int | None) -> dict[str, Any]:
    """All figures by stream. A stream whose files are missing is skipped, and says so."""
    found: dict[str, Any] = {}
    for name in names:
        source = SOURCES[name]
        files = [one for one in (source.events, source.test) if one]
        if (reason := missing_data(*files)) is not None:
            found[name] = {"skipped": reason}
            continue
        stream = streams.load(source, source.events, limit or source.limit)
        test = streams.load(source, source.test, limit) if source.test else None
        found[name] = measure(stream, test)
        announce(name, found[name])
    return {"benchmark": "experts", "streams": found}


def announce(name: str, figures: dict[str, Any]) -> None:
    """One stream's table."""
    test = figures.get("test", {})
    rows = [
        (expert, f"{whole:.4f}", f"{figures['first'][expert]:.4f}", f"{test[expert]:.4f}" if test else "–")
        for expert, whole in figures["accuracy"].items()
    ]
    costs = f"{figures['score_us_per_text']:.0f} µs/text, {figures['learn_ms_per_block']:.1f} ms/block learned"
    title = f"{name}: {figures['events']:,} events; {costs}; pulse {figures['pulse_bytes'] / 1e3:.0f} kB"
    print_table(("expert", ">prequential", f">first {FIRST_EVENTS:,}", ">test at the end"), rows, title=title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", nargs="+", choices=SOURCES, default=list(SOURCES), help="which ones")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "driftline-features", help="where features are kept"
    )
    options = options_of(parser, "experts")
    result = run(Streams(options.cache), options.streams, 320 if options.quick else None)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
