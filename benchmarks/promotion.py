"""From a promotion in the registry to the first answer by the new version over HTTP, on two replicas under load.

    python -m benchmarks.promotion [--promotions 100] [--quick] [--out FILE]

A real Redis, two `driftline serve` processes, eight HTTP clients that ask without pause. A version's blobs are uploaded
before; the clock starts right before the publish script runs (what the learner does last) and stops when a client has
the first answer by the new version in hand: from either replica, and from the slower one. The engine's pause is what
each replica logs for its swap.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.clients import CLIENTS, Clients, asking
from benchmarks.data import LABELS, some_events
from benchmarks.installation import FEED, Installation, Setting, Started, installation
from benchmarks.record import options_of, write_result
from benchmarks.servers import redis_server, wait_for
from driftline.artefact.manifest import SignedManifest, load_or_create_keys
from driftline.artefact.probe import PROBE_TEXTS
from driftline.artefact.weights import pack_body, pack_head
from driftline.assembly.wiring import build_registry, state_files
from driftline.base import load_base
from driftline.config import Config
from driftline.records import Probe, utc
from driftline.tasks import task_named
from learner.model import LoraModel
from replay.report import quantile
from tests.fixtures.versions import Publisher, make_manifest, random_weights

REPLICAS = ("a", "b")
WITHIN_S = 60.0
BETWEEN_S = 0.2
ALPHA = 16.0


class Press:
    """Makes versions with random weights, ready to be published: blobs uploaded, manifest signed."""

    def __init__(self, config: Config) -> None:
        registry, section = build_registry(config), config.feed[FEED].learner
        self._base = load_base(config.base.model_copy(update={"device": "cpu"}))
        self._model = LoraModel(self._base, task_named("classification"), LABELS, section)
        self._rank = section.rank
        self._publisher = Publisher(registry, load_or_create_keys(state_files(config)), self._base, Path(), FEED)

    def prepare(self) -> tuple[int, SignedManifest]:
        """The next version; nobody sees it yet."""
        publisher = self._publisher
        version = publisher.registry.next_version(FEED)
        weights = random_weights(self._base, len(LABELS), version, rank=self._rank)
        self._model.load(weights)
        probe = Probe(logits=tuple(tuple(row) for row in self._model.predict(PROBE_TEXTS).tolist()))
        manifest = make_manifest(self._base, Path(), weights, FEED, version, probe=probe, alpha=ALPHA)
        publisher.registry.put_blob(FEED, pack_body(weights))
        publisher.registry.put_blob(FEED, pack_head(weights))
        return version, publisher.signer.sign(manifest)

    def promote(self, signed: SignedManifest) -> None:
        """Read the live record's revision and run the publish script, as the learner does."""
        self._publisher.put(signed)

    def close(self) -> None:
        """Let the lease go."""
        self._publisher.close()


@dataclass(frozen=True, slots=True)
class Promotion:
    """The version, when its publish script began, and seconds from there to the script's end and to each replica's
    first answer by it."""

    version: int
    start: float
    published_s: float
    answered_s: tuple[float, ...]


def promote_once(press: Press, clients: Clients) -> Promotion:
    """One promotion under load. RuntimeError if a replica does not answer by it within 60 s."""
    version, signed = press.prepare()
    before, start = len(clients.told), time.time()
    press.promote(signed)
    published = time.time()

    def answers() -> list[Any]:
        return [clients.first(replica, version, before) for replica in range(len(REPLICAS))]

    if not wait_for(lambda: all(answers()), WITHIN_S):
        raise RuntimeError(f"version {version} does not answer everywhere within {WITHIN_S:.0f} s: {answers()}")
    time.sleep(BETWEEN_S)  # load goes on between two promotions; nothing is waited for
    return Promotion(version, start, published - start, tuple(one.received - start for one in answers()))


@contextmanager
def two_replicas(folder: Path) -> Iterator[tuple[Installation, Press, list[Started]]]:
    """Redis, a first promoted version, and two ready replicas."""
    with redis_server(folder / "redis") as redis, installation(folder, Setting(redis_url=redis.url)) as place:
        press = Press(place.config)
        try:
            press.promote(press.prepare()[1])
            yield place, press, [place.serve(name) for name in REPLICAS]
        finally:
            press.close()


def measure(promotions: int) -> dict[str, Any]:
    """All promotions, what the clients saw meanwhile, and the pauses that the replicas logged."""
    stream, events = some_events(256, spread=True)
    with (
        tempfile.TemporaryDirectory(prefix="driftline-bench-") as name,
        two_replicas(Path(name)) as (_, press, replicas),
    ):
        start = time.time()
        with asking([one.url for one in replicas], FEED, [str(event["text"]) for event in events]) as clients:
            found = [promote_once(press, clients) for _ in range(promotions)]
        seconds = time.time() - start
        swaps = [line for one in replicas for line in one.lines("swapped")]
    pauses = [float(line["pause_ms"]) for line in swaps]
    started = {one.version: one.start for one in found}
    told = clients.told
    return {
        "stream": stream,
        "first_answer_ms": milliseconds([min(one.answered_s) for one in found]),
        "all_replicas_ms": milliseconds([max(one.answered_s) for one in found]),
        "publish_script_ms": milliseconds([one.published_s for one in found]),
        "swapped_ms": milliseconds(
            [
                utc(line["timestamp"]).timestamp() - started[line["version"]]
                for line in swaps
                if line["version"] in started
            ]
        ),
        "request_ms": milliseconds([one.received - one.sent for one in told if one.failure is None]),
        "requests": len(told),
        "requests_failed": len(clients.failures()),
        "requests_per_s": round(len(told) / seconds, 1),
        "engine_pause_ms": {"p50": statistics.median(pauses), "max": max(pauses), "n": len(pauses)},
    }


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and max in ms."""
    found = {"p50": quantile(seconds, 0.5), "p99": quantile(seconds, 0.99), "max": max(seconds, default=None)}
    return {name: round(1000 * value, 1) for name, value in found.items() if value is not None}


def run(quick: bool = False, promotions: int | None = None) -> dict[str, Any]:
    """The measurement as one JSON-ready document."""
    promotions = promotions or (3 if quick else 100)
    sizes = {"promotions": promotions, "replicas": len(REPLICAS), "clients": CLIENTS}
    return {"benchmark": "promotion", **sizes, **measure(promotions)}


def announce(result: dict[str, Any]) -> None:
    """The figures as a table."""
    names = {
        "first_answer_ms": "first answer by the new version",
        "all_replicas_ms": "  … by every replica",
        "publish_script_ms": "  publish script done",
        "swapped_ms": "  replica has fetched, checked, probed and swapped",
        "request_ms": "one request",
    }
    timings = [(title, _spread(result[key])) for key, title in names.items()]
    pause = result["engine_pause_ms"]
    rows = [
        *timings,
        ("engine held by a swap", f"p50 {pause['p50']:.3f} ms, max {pause['max']:.3f} ms ({pause['n']} swaps)"),
        ("requests", f"{result['requests']:,} ({result['requests_per_s']:.0f}/s), {result['requests_failed']} failed"),
    ]
    record.announce(
        f"{result['promotions']} promotions, {result['replicas']} replicas, {result['clients']} clients", rows
    )


def _spread(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} ms" for name, value in itertools.islice(found.items(), 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--promotions", type=int, help="how many (default 100)")
    options = options_of(parser, "promotion")
    result = run(options.quick, options.promotions)
    announce(result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
