"""Whether the watch over the fast state cries wolf on real streams: clean labels through it, and its alarms counted.

    python -m benchmarks.watch [--streams sentiment airline steam clinc] [--cache DIR] [--quick] [--out FILE]

All labels of each stream in order, in blocks of 32: answered by the mixture on the frozen base, judged by the watch,
then learned. Nothing trains here, so `ridge`, which learns every label as it comes, stands for the version's head: a
mixture that falls behind it is shown to be worse sooner than behind a head that is a few hundred labels old. `highest`:
how near each test came to an alarm, as a share of the patience.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import SOURCES, missing_data
from benchmarks.experts import Streams, Texts
from benchmarks.record import options_of, write_result
from driftline.cli.output import print_table
from driftline.config import FeedConfig
from driftline.experts import MIXER, Block, ExpertState, Mixture, advance, scoring_of
from learner.fast.watch import Outcome, WatchState, watch
from replay.frozen_mixture import FROZEN

HEAD = "ridge"


def outcomes(stream: Texts) -> Iterator[Outcome]:
    """What the watch would have been told, label by label."""
    mixture = Mixture(experts=FROZEN)
    states = mixture.start(len(stream.names), stream.features.shape[1])
    for block, targets in stream.blocks():
        yield from judged(mixture, states, block, targets)
        advance(states, mixture.learn(states, block, targets))


def judged(
    mixture: Mixture, states: dict[str, ExpertState], block: Block, targets: NDArray[np.int64]
) -> Iterator[Outcome]:
    """A block's outcomes, before it is learned."""
    mixed = mixture.score(scoring_of(states), block)
    ours, head = (one.argmax(axis=1) == targets for one in (mixed.logits, mixed.scores[HEAD].values))  # (N,)
    majority = targets == int(states[MIXER].scoring["seen"].argmax())
    for row in zip(ours.tolist(), head.tolist(), majority.tolist(), strict=True):
        yield Outcome(*row)


def measure(stream: Texts, patience: float) -> dict[str, Any]:
    """One stream's figures."""
    state, alarms = WatchState(), 0
    highest = {"worse": 0.0, "loose": 0.0}
    right = {"mixture": 0, "head": 0}
    for outcome in outcomes(stream):
        before, state = state.fell_back, watch(state, [outcome], patience)
        alarms += state.fell_back and not before
        for name, sums in (("worse", state.worse), ("loose", state.loose)):
            highest[name] = max(highest[name], sum(sums) / len(sums) / patience)
        right["mixture"] += outcome.mixture
        right["head"] += bool(outcome.head)
    labels = len(stream.texts)
    return {
        "labels": labels,
        "alarms": alarms,
        "highest": highest,
        "accuracy": {name: count / labels for name, count in right.items()},
    }


def run(streams: Streams, names: list[str], limit: int | None) -> dict[str, Any]:
    """All figures by stream, and their sums. A stream whose file is missing is skipped, and says so."""
    patience = FeedConfig.model_validate({"labels": ["a", "b"]}).fast.patience
    found: dict[str, Any] = {}
    for name in names:
        source = SOURCES[name]
        if (reason := missing_data(source.events)) is not None:
            found[name] = {"skipped": reason}
            continue
        found[name] = measure(streams.load(source, source.events, limit or source.limit), patience)
    told = [one for one in found.values() if "skipped" not in one]
    return {
        "benchmark": "watch",
        "patience": patience,
        "labels": sum(one["labels"] for one in told),
        "alarms": sum(one["alarms"] for one in told),
        "streams": found,
    }


def default_cache() -> Path:
    """Where features are kept between runs, those of `benchmarks.experts` too."""
    return Path(tempfile.gettempdir()) / "driftline-features"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", nargs="+", choices=SOURCES, default=list(SOURCES), help="which ones")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where features are kept")
    options = options_of(parser, "watch")
    result = run(Streams(options.cache), options.streams, 640 if options.quick else None)
    rows = [
        (name, f"{one['labels']:,}", str(one["alarms"]), *(f"{share:.1e}" for share in one["highest"].values()))
        for name, one in result["streams"].items()
        if "skipped" not in one
    ]
    title = f"{result['alarms']} alarms in {result['labels']:,} labels, patience {result['patience']:,.0f}"
    print_table(("stream", ">labels", ">alarms", ">worse, highest", ">loose, highest"), rows, title=title)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
