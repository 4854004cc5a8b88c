"""What mixing the fast state into answers costs: the engine with it and without; and how long a pulse holds it up.

    python -m benchmarks.mixing [--texts 512] [--blocks 64] [--rounds 7] [--quick] [--out FILE]

One engine, one live version, all experts. A fast clock's blocks of 32 labels are learned first, so that the tables are
full; their last ones are kept as pulses. Then the same texts are answered in turns by the version's head alone and with
the fast state mixed in, once in requests of 32 texts and once in requests of one. Last, the pulses are taken over while
such requests come: `held_ms` is how long one held the mixing, `waited_ms` how long it waited for the mix before it.

On a machine that others keep busy texts/s say little; the mixing thread's share of the process's CPU time still does.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import Any

import numpy as np
import torch

from benchmarks.bank import FEED, RANK, stage_all
from benchmarks.data import CONFIG, LABELS, some_events
from benchmarks.record import announce as announce_rows
from benchmarks.record import announce_ratios, options_of, write_result
from benchmarks.rounds import Contender, compare, interleave
from driftline.artefact.pulse import mark
from driftline.base import Base, load_base
from driftline.config import FeedConfig, ServeConfig, load_config
from driftline.experts import Block, Partial, advance, scoring_of
from driftline.experts.choice import mixture_of
from driftline.experts.packing import pack_changes
from driftline.records import Pulse, Snapshot
from driftline.topics.text import clean_text
from serving.engine import Asked, Engine
from serving.fast import Ready
from tests.fixtures.versions import random_weights

BLOCK_EXAMPLES = 32
REQUEST_TEXTS = (32, 1)
PULSES = 16
HEAD, MIXED = "head alone", "mixed"


@contextmanager
def an_engine(base: Base, texts: int) -> Iterator[Engine]:
    """With one live version, and a fast state that has learned nothing yet."""
    feed = FeedConfig.model_validate({"labels": LABELS, "fast": {"enabled": True}})
    engine = Engine(base, ServeConfig(max_queue_inputs=max(2048, 2 * texts)), {FEED: feed})
    engine.start()
    try:
        stage_all(engine, base, [random_weights(base, len(LABELS), 0, rank=RANK)])
        yield engine
    finally:
        engine.close()


def learned(engine: Engine, size: int, events: Sequence[dict[str, Any]]) -> list[Ready]:
    """Learn all events in blocks, as a fast clock would from what was served; the engine is brought to where the last
    few pulses begin, which are returned, read and checked."""
    mixture = mixture_of(FeedConfig.model_validate({"labels": LABELS}).fast)
    replica, states = engine.fast[FEED], mixture.start(len(LABELS), size)
    pulse = Pulse(feed=FEED, epoch="benchmark", number=1, before=b"", last_seq=0, fell_back=False, change=b"")
    blocks = [events[start : start + BLOCK_EXAMPLES] for start in range(0, len(events), BLOCK_EXAMPLES)]
    ready: list[Ready] = []
    for number, rows in enumerate(blocks):
        block = served_block(engine, [clean_text(row["text"]) for row in rows])
        if number == len(blocks) - PULSES:
            start_at(engine, pulse, {name: dict(arrays) for name, arrays in scoring_of(states).items()})
        steps = mixture.learn(states, block, np.array([LABELS.index(row["label"]) for row in rows]))
        advance(states, steps)
        change = pack_changes({name: step.scoring for name, step in steps.items()})
        pulse = Pulse(
            feed=FEED, epoch="benchmark", number=pulse.number + 1, before=mark(pulse), last_seq=0, fell_back=False,
            change=change,
        )  # fmt: skip
        if number >= len(blocks) - PULSES:
            ready.append(replica.read(pulse))
    return ready


def served_block(engine: Engine, texts: Sequence[str]) -> Block:
    """Texts with the features and the head's scores that they were answered with."""
    features = [np.frombuffer(one.feature or b"", "<f2") for one in engine.predict(FEED, texts)]
    scores = [[one.scores[label] for label in LABELS] for one in engine.predict(FEED, texts, asked=Asked.HEAD)]
    return Block(
        texts=tuple(texts), features=Partial.full(np.stack(features)), head=Partial.full(np.log(np.array(scores)))
    )


def start_at(engine: Engine, pulse: Pulse, scoring: dict[str, dict[str, Any]]) -> None:
    """Let the engine's replica stand at the pulse, with arrays of its own."""
    own = {expert: {name: array.copy() for name, array in arrays.items()} for expert, arrays in scoring.items()}
    snapshot = Snapshot(
        feed=FEED, epoch=pulse.epoch, number=pulse.number, mark=mark(pulse), last_seq=0, fell_back=False, labels=LABELS,
        sha256="",
    )  # fmt: skip
    engine.between_mixes(partial(engine.fast[FEED].start_at, snapshot, own))


def answering(engine: Engine, texts: Sequence[str], each: int, asked: Asked) -> Callable[[], None]:
    """A contender: all texts at once, in requests of so many."""
    parts = [texts[start : start + each] for start in range(0, len(texts), each)]

    def work() -> None:
        for future in [engine.submit(FEED, part, None, asked) for part in parts]:
            future.result()

    return work


def measure_answers(engine: Engine, texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """By the size of requests: texts/s of both, and what mixing takes of the processor."""
    found: dict[str, Any] = {}
    for each in REQUEST_TEXTS:
        contenders: dict[str, Contender] = {
            HEAD: answering(engine, texts, each, Asked.HEAD),
            MIXED: answering(engine, texts, each, Asked.MIXTURE),
        }
        compared = compare(interleave(contenders, rounds), len(texts), HEAD)
        found[f"requests of {each}"] = {"contenders": compared, **_cpu_of_mixing(engine, contenders[MIXED], len(texts))}
    return found


def _cpu_of_mixing(engine: Engine, work: Contender, texts: int) -> dict[str, float]:
    """Of one round."""
    thread = engine._mixing._thread.ident
    assert thread is not None
    clock = time.pthread_getcpuclockid(thread)
    own, whole = time.clock_gettime(clock), time.process_time()
    work()
    own, whole = time.clock_gettime(clock) - own, time.process_time() - whole
    return {"mixing_cpu_us_per_text": round(1e6 * own / texts, 1), "mixing_cpu_share": round(own / whole, 4)}


def measure_pulses(engine: Engine, ready: Sequence[Ready], texts: Sequence[str], turns: int) -> dict[str, Any]:
    """Take the pulses over, again and again, while texts are answered."""
    replica, stop = engine.fast[FEED], Event()
    held_ms: list[float] = []
    waited_ms: list[float] = []

    def load() -> None:
        while not stop.is_set():
            answering(engine, texts, BLOCK_EXAMPLES, Asked.MIXTURE)()

    def take(asked_at: float) -> None:
        started = time.perf_counter()
        replica.take()
        held_ms.append((time.perf_counter() - started) * 1000)
        waited_ms.append((started - asked_at) * 1000)

    loading = Thread(target=load)
    loading.start()
    try:
        for _ in range(turns):
            for one in ready:
                replica.stage(one)
                engine.between_mixes(partial(take, time.perf_counter()))
                stop.wait(0.02)
    finally:
        stop.set()
        loading.join()
    kilobytes = [len(one.pulse.change) / 1000 for one in ready]
    return {
        "pulses": len(held_ms),
        "held_ms": _quantiles(held_ms),
        "waited_ms": _quantiles(waited_ms),
        "kilobytes": round(float(np.median(kilobytes)), 1),
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.quantile(values, [0.5, 0.99]).tolist()
    return {"p50": round(p50, 3), "p99": round(p99, 3), "max": round(max(values), 3)}


def run(
    quick: bool = False, texts: int | None = None, blocks: int | None = None, rounds: int | None = None
) -> dict[str, Any]:
    """Both measurements as one JSON-ready document."""
    texts, rounds = texts or (64 if quick else 512), rounds or (2 if quick else 7)
    blocks = max(PULSES, blocks or (PULSES if quick else 64))
    base = load_base(load_config(CONFIG).base.model_copy(update={"device": "cpu"}))
    stream, events = some_events(texts + blocks * BLOCK_EXAMPLES, spread=True)
    asked = [clean_text(event["text"]) for event in events[:: len(events) // texts][:texts]]
    with an_engine(base, texts) as engine:
        ready = learned(engine, base.hidden_size, events[: blocks * BLOCK_EXAMPLES])
        return {
            "benchmark": "mixing",
            "texts": texts,
            "rounds": rounds,
            "blocks": blocks,
            "stream": stream,
            "threads": torch.get_num_threads(),
            "mean_characters": round(float(np.mean([len(text) for text in asked])), 1),
            "answers": measure_answers(engine, asked, rounds),
            "pulses": measure_pulses(engine, ready, asked, 2 if quick else 16),
        }


def announce(result: dict[str, Any]) -> None:
    """The figures as tables."""
    groups = {f"{name} ({_of_cpu(one)})": one["contenders"] for name, one in result["answers"].items()}
    title = f"texts/s ({result['texts']} texts of {result['stream']}, {result['mean_characters']} characters)"
    announce_ratios(title, groups, "of the head alone")
    pulses = result["pulses"]
    rows = [
        (
            f"{what.replace('_', ' ')}: {', '.join(pulses[what])}",
            ", ".join(f"{one:.3f}" for one in pulses[what].values()),
        )
        for what in ("held_ms", "waited_ms")
    ]
    announce_rows(f"{pulses['pulses']} pulses of {pulses['kilobytes']:.0f} kB, taken over meanwhile", rows)


def _of_cpu(one: dict[str, Any]) -> str:
    return f"mixing: {one['mixing_cpu_us_per_text']:.0f} µs of CPU a text, {one['mixing_cpu_share']:.2%} of all"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, help="how many texts a round answers (default 512)")
    parser.add_argument("--blocks", type=int, help="how many blocks of 32 labels are learned first (default 64)")
    parser.add_argument("--rounds", type=int, help="rounds that count (default 7)")
    options = options_of(parser, "mixing")
    result = run(options.quick, options.texts, options.blocks, options.rounds)
    announce(result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
