"""Redis and Kafka each gone for 30 s in the middle of a live `driftline up`, while clients ask.

    python -m benchmarks.drills.outage [--gone 30] [--quick]

Real servers, a real `up`. A third of the events before, a third while Redis is gone (Kafka takes them, ingest goes on),
a third after Kafka was gone. Serving must answer all the while without a failed request; afterwards ingest and learner
go on: another version is promoted, and the ids in the buffer are those of the file, none missing, none twice.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.clients import CLIENTS, Clients, asking, longest_silence_s
from benchmarks.data import some_events
from benchmarks.drills.checks import check_versions, compare_ids, ids_from_file, ids_in_buffer, same_ids, sound
from benchmarks.drills.up import Up
from benchmarks.installation import FEED, Installation, Setting, installation, is_ready
from benchmarks.record import announce_document, options_of, write_result
from benchmarks.servers import RedisServer, servers
from tests.fixtures.kafka import BrokerProcess

GONE_S = 30.0
EVENTS = 3000
PROMOTED_WITHIN_S = 900.0
LEARNED_WITHIN_S = 1800.0
RECOVERED_WITHIN_S = 300.0
SILENCE_S = 2.0


def away(
    server: RedisServer | BrokerProcess, seconds: float, part: Sequence[dict[str, Any]], place: Installation
) -> None:
    """Stop the server, produce the part meanwhile, and start it again with its data when the time is over."""
    server.stop()
    gone_at = time.monotonic()
    try:
        place.produce(part)
        time.sleep(max(0.0, seconds - (time.monotonic() - gone_at)))  # the outage itself: nothing to wait for
    finally:
        server.start()


def play(
    place: Installation,
    up: Up,
    broker: BrokerProcess,
    redis: RedisServer,
    events: Sequence[dict[str, Any]],
    gone_s: float,
) -> tuple[Clients, dict[str, int]]:
    """Both outages under load; returns what the clients saw, and how many versions were promoted before and after."""
    third = len(events) // 3
    place.produce(events[:third])
    place.require(up.started, lambda: up.promoted() and is_ready(place.url), PROMOTED_WITHIN_S)
    with asking([place.url], FEED, [str(event["text"]) for event in events[:256]]) as clients:
        before = up.promoted()
        away(redis, gone_s, events[third : 2 * third], place)
        place.require(up.started, lambda: up.counts().event_records >= 2 * third, RECOVERED_WITHIN_S)
        away(broker, gone_s, (), place)
        place.produce(events[2 * third :])
        place.require(up.started, lambda: up.counts().event_records >= len(events), RECOVERED_WITHIN_S)
        place.require(up.started, lambda: up.promoted() > before, PROMOTED_WITHIN_S)
    return clients, {"before": before, "after": up.promoted()}


def run(*, quick: bool = False, gone_s: float | None = None) -> dict[str, Any]:
    """The drill as one JSON-ready document. SetupError where there is no Java."""
    gone_s = gone_s or (5.0 if quick else GONE_S)
    stream, events = some_events(300 if quick else EVENTS)
    start = time.time()
    with tempfile.TemporaryDirectory(prefix="driftline-drill-") as name, servers(Path(name)) as (broker, redis):
        setting = Setting(redis_url=redis.url, bootstrap=broker.bootstrap, min_examples=60 if quick else 250)
        with installation(Path(name) / "driftline", setting) as place:
            expected = ids_from_file(place.config, events)
            up = Up(place)
            place.require(up.started, lambda: is_ready(place.url))
            clients, versions_promoted = play(place, up, broker, redis, events, gone_s)
            learned = up.learns_all(len(expected), setting.min_examples, LEARNED_WITHIN_S)
            ids, versions = compare_ids(expected, ids_in_buffer(place.config)), check_versions(place.config)
            restarts = up.restarts()
    silence = longest_silence_s(clients.told, 1)
    failed = len(clients.failures())
    return {
        "drill": "outage",
        "stream": stream,
        "events": len(events),
        "gone_s": gone_s,
        "clients": CLIENTS,
        "requests": len(clients.told),
        "requests_failed": failed,
        "longest_silence_s": round(silence, 3),
        "versions_promoted": versions_promoted,
        "restarts": restarts,
        "ids": ids,
        "versions": versions,
        "learned_to_the_end": learned,
        "ok": not failed and silence <= SILENCE_S and same_ids(ids) and sound(versions) and learned,
        "seconds": round(time.time() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gone", type=float, help="seconds that each server is gone (default 30)")
    options = options_of(parser, "drill_outage")
    result = run(quick=options.quick, gone_s=options.gone)
    announce_document("outage", result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
