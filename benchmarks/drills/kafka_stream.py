"""The whole sentiment stream on a real Kafka, learned by `driftline up` on Kafka and Redis servers, ingest killed.

    python -m benchmarks.drills.kafka_stream [--kills 20] [--limit N] [--quick]

The stream is produced in as many parts as there are kills. During each part the ingest process gets SIGKILL: every
other time at any moment after its start, else while records are on their way into the buffer. `up` starts it again.
Then the ids of the examples in the buffer are compared with those that an undisturbed ingest makes of the same file.
"""

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.data import some_events
from benchmarks.drills.checks import check_versions, compare_ids, ids_from_file, ids_in_buffer, same_ids, sound
from benchmarks.drills.up import Up
from benchmarks.installation import Setting, installation
from benchmarks.record import announce_document, options_of, write_result
from benchmarks.servers import servers, wait_for

KILLS = 20
EVENTS = 12_500
PARTITIONS = 4
RUNNING_WITHIN_S = 120.0
GROWS_WITHIN_S = 60.0
LEARNED_WITHIN_S = 5400.0
ANY_MOMENT_S = 6.0
MOMENT_S = 0.4


def kill_ingest(up: Up, chance: random.Random, *, while_growing: bool) -> None:
    """SIGKILL to the ingest process at a random moment; RuntimeError if it has ended by itself."""
    up.place.require(up.started, lambda: up.pid("ingest"), RUNNING_WITHIN_S)
    before = up.counts().event_records
    if while_growing:
        wait_for(lambda: up.counts().event_records > before, GROWS_WITHIN_S)
        time.sleep(chance.uniform(0, MOMENT_S))
    else:
        time.sleep(chance.uniform(0, ANY_MOMENT_S))
    pid = up.pid("ingest")
    if pid is None:
        raise RuntimeError(f"ingest ended before it was killed:\n{up.started.tail()}")
    os.kill(pid, signal.SIGKILL)
    up.place.require(up.started, lambda: up.pid("ingest") != pid, RUNNING_WITHIN_S)


def produce_and_kill(up: Up, events: Sequence[dict[str, Any]], kills: int, seed: int) -> None:
    """The events in `kills` parts, one kill during each."""
    chance = random.Random(seed)
    with ThreadPoolExecutor(1) as pool:
        for number in range(kills):
            part = events[number * len(events) // kills : (number + 1) * len(events) // kills]
            producing = pool.submit(up.place.produce, part)
            kill_ingest(up, chance, while_growing=bool(number % 2))
            producing.result()


def run(*, quick: bool = False, limit: int | None = None, kills: int | None = None, seed: int = 0) -> dict[str, Any]:
    """The drill as one JSON-ready document. SetupError where there is no Java."""
    kills = kills or (2 if quick else KILLS)
    stream, events = some_events(limit or (300 if quick else EVENTS))
    start = time.time()
    with tempfile.TemporaryDirectory(prefix="driftline-drill-") as name, servers(Path(name)) as (broker, redis):
        setting = Setting(
            redis_url=redis.url,
            bootstrap=broker.bootstrap,
            partitions=PARTITIONS,
            min_examples=60 if quick else 250,
        )
        with installation(Path(name) / "driftline", setting) as place:
            expected = ids_from_file(place.config, events)
            up = Up(place)
            produce_and_kill(up, events, kills, seed)
            learned = up.learns_all(len(expected), setting.min_examples, LEARNED_WITHIN_S)
            ids, versions = compare_ids(expected, ids_in_buffer(place.config)), check_versions(place.config)
            return {
                "drill": "kafka_stream",
                "stream": stream,
                "events": len(events),
                "kills": kills,
                "restarts": up.restarts(),
                "ids": ids,
                "versions": versions,
                "learned_to_the_end": learned,
                "ok": same_ids(ids) and sound(versions) and learned and up.restarts()["ingest"] >= kills,
                "seconds": round(time.time() - start, 1),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, help="how often ingest is killed (default 20)")
    parser.add_argument("--limit", type=int, help="only the first N events")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = options_of(parser, "drill_kafka_stream")
    result = run(quick=options.quick, limit=options.limit, kills=options.kills, seed=options.seed)
    announce_document("kafka_stream", result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
