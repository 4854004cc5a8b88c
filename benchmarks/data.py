"""The texts that are measured with: the sentiment stream where it is at hand, else the simulated feed, and which."""

import gzip
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay.simulate import Simulation, simulate

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DRIFTLINE_DATA") or ROOT / "../shared/data").resolve()
STREAM, HOLDOUT = DATA / "sentiment_shift_stream.jsonl.gz", DATA / "sentiment_shift_holdout.jsonl.gz"
CONFIG = ROOT / "examples" / "sentiment_shift.toml"
LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One stream of the data folder: its example's config, its file, its test set, and how much of it."""

    config: str
    events: Path
    test: Path | None = None
    limit: int | None = None


SOURCES = {
    "sentiment": Source(config="sentiment_shift", events=STREAM, test=HOLDOUT),
    "airline": Source(config="airline", events=DATA / "airline_tweets_2015.jsonl.gz"),
    "steam": Source(config="steam", events=DATA / "steam_reviews_en_2010_2019.jsonl.gz", limit=12_000),
    "clinc": Source(config="clinc150", events=DATA / "clinc150_train.jsonl.gz", test=DATA / "clinc150_test.jsonl.gz"),
}


def missing_data(*files: Path) -> str | None:
    """Why a measurement on these files must be skipped, and what to do; None if they are there."""
    absent = [file.name for file in files if not file.is_file()]
    if not absent:
        return None
    return f"no {', '.join(absent)} in DRIFTLINE_DATA: set it to the folder of the streams"


def read_events(file: Path) -> Iterator[dict[str, Any]]:
    """The records of an events file (JSON lines, gzip)."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def some_events(n: int, *, spread: bool = False) -> tuple[str, list[dict[str, Any]]]:
    """n labelled events and the name of their stream. `spread`: from all over it, not from its start."""
    if missing_data(STREAM):
        name, events = "simulated feed", list(simulate(Simulation(events=max(n, 1000), unlabelled=0.0)))
    else:
        name, events = STREAM.name, list(read_events(STREAM))
    if spread:
        events = events[:: max(1, len(events) // n)]
    return name, list(itertools.islice(itertools.cycle(events), n))


def unseen_events(n: int | None = None) -> list[dict[str, Any]]:
    """n labelled events that `some_events` never gives (None: all), from all over the stream."""
    if missing_data(HOLDOUT):
        return list(simulate(Simulation(events=n or 1000, unlabelled=0.0, seed=1)))
    events = list(read_events(HOLDOUT))
    return events if n is None else events[:: max(1, len(events) // n)][:n]
