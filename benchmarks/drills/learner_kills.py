"""A real `driftline learn`, killed (SIGKILL) at random moments of its cycle.

    python -m benchmarks.drills.learner_kills [--kills 20] [--quick]

Ingest fills the buffer from a topic file; one cycle is left alone, to see how long one takes. Then a learner is
started, and killed a random time after it has got the lease, with which it begins to work (up to a bit more than a
cycle's length, so that also publishing and acknowledging are hit); and so on. The last one learns in peace. Then the
buffer's cycles are compared with the registry's versions: none lost, none published twice, every example learned by one
promoted version.
"""

import argparse
import random
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.data import some_events
from benchmarks.drills.checks import check_versions, compare_ids, ids_from_file, ids_in_buffer, same_ids, sound
from benchmarks.installation import FEED, Installation, Setting, Started, installation
from benchmarks.record import announce_document, options_of, write_result
from benchmarks.servers import end_process, redis_server
from driftline.assembly.wiring import open_buffer
from driftline.buffer import Buffer
from driftline.names import Keys
from driftline.registry import connect

KILLS = 20
EVENTS = 6000
LEASED_WITHIN_S = 300.0
CYCLE_WITHIN_S = 600.0
LEARNED_WITHIN_S = 3600.0
LONGER = 1.2
FED_WITHIN_S = 300.0


class Drill:
    """The installation with its filled buffer, and learners that come and go."""

    def __init__(self, place: Installation) -> None:
        self.place = place
        self.buffer: Buffer = open_buffer(place.config, read_only=True)
        config = place.config.redis
        self._redis = connect(config.url, config.prefix)
        self._fence_key = Keys(config.prefix).fence(FEED, "learner")

    def learner(self) -> Started:
        """A learner that has just got the lease; that of a killed one has run out by then."""
        before = self._fence()
        learner = self.place.start("learn", "learn")
        self.place.require(learner, lambda: self._fence() > before, LEASED_WITHIN_S)
        return learner

    def cycle_seconds(self) -> float:
        """How long it takes from the lease to the first acknowledged cycle, undisturbed."""
        learner, start = self.learner(), time.monotonic()
        self.place.require(learner, lambda: any(row.outcome for row in self.buffer.ledger.cycles(FEED)), CYCLE_WITHIN_S)
        kill(learner)
        return time.monotonic() - start

    def kill_in_cycle(self, after_s: float) -> bool:
        """Kill a learner so long after it has got the lease; True if that left a cycle open."""
        learner = self.learner()
        time.sleep(after_s)
        kill(learner)
        return self.buffer.ledger.open_cycle(FEED) is not None

    def learn_in_peace(self, min_examples: int) -> bool:
        """Whether a last learner gets through all that waits, within the time."""
        self.place.require(self.learner(), lambda: self._through(min_examples), LEARNED_WITHIN_S)
        return self._through(min_examples)

    def close(self) -> None:
        """Close the buffer and the connection."""
        self.buffer.close()
        self._redis.close()

    def _through(self, min_examples: int) -> bool:
        return self.buffer.ledger.open_cycle(FEED) is None and self.buffer.ledger.new_count(FEED) < min_examples

    def _fence(self) -> int:
        return int(self._redis.get(self._fence_key) or 0)


def kill(learner: Started) -> None:
    """SIGKILL, and wait until it is gone."""
    learner.process.kill()
    learner.process.wait()


def fill(place: Installation, events: list[dict[str, Any]], expected: int) -> None:
    """All events into the buffer; ingest is ended then."""
    place.produce(events)
    ingest = place.start("ingest", "ingest")
    place.require(ingest, lambda: place.config.state.path.joinpath("buffer.sqlite3").exists(), FED_WITHIN_S)
    place.require(ingest, lambda: len(ids_in_buffer(place.config)) >= expected, FED_WITHIN_S)
    end_process(ingest.process)


def play(place: Installation, kills: int, min_examples: int, seed: int) -> dict[str, Any]:
    """All the kills, and what they left."""
    drill, chance = Drill(place), random.Random(seed)
    with closing(drill):
        seconds = drill.cycle_seconds()
        left_open = sum(drill.kill_in_cycle(chance.uniform(0, LONGER * seconds)) for _ in range(kills))
        learned = drill.learn_in_peace(min_examples)
        counts = drill.buffer.counts(FEED)
    versions = check_versions(place.config)
    trainable = counts.examples - counts.holdouts
    accounted = counts.learned + counts.fresh + counts.retired + counts.remembered == trainable
    return {
        "cycle_s": round(seconds, 1),
        "kills": kills,
        "kills_that_left_a_cycle_open": left_open,
        "learned_to_the_end": learned,
        "versions": versions,
        "examples_accounted_for": accounted and versions["examples_learned"] == counts.learned,
    }


def run(*, quick: bool = False, kills: int | None = None, seed: int = 0) -> dict[str, Any]:
    """The drill as one JSON-ready document."""
    kills = kills or (2 if quick else KILLS)
    stream, events = some_events(400 if quick else EVENTS)
    start = time.time()
    with tempfile.TemporaryDirectory(prefix="driftline-drill-") as name, redis_server(Path(name) / "redis") as redis:
        size = 60 if quick else 250
        setting = Setting(redis_url=redis.url, every_s=1.0, min_examples=size, max_examples=size, score=False)
        with installation(Path(name) / "driftline", setting) as place:
            expected = ids_from_file(place.config, events)
            fill(place, events, len(expected))
            found = play(place, kills, size, seed)
            ids = compare_ids(expected, ids_in_buffer(place.config))
    ok = found["learned_to_the_end"] and found["examples_accounted_for"] and sound(found["versions"]) and same_ids(ids)
    head = {"drill": "learner_kills", "stream": stream, "events": len(events)}
    return {**head, **found, "ids": ids, "ok": ok, "seconds": round(time.time() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, help="how often the learner is killed (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = options_of(parser, "drill_learner_kills")
    result = run(quick=options.quick, kills=options.kills, seed=options.seed)
    announce_document("learner_kills", result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
