"""Rollback under load: one command, two replicas, eight clients, and a learner that would like to promote again.

    python -m benchmarks.drills.rollback_under_load [--quick]

Real processes: ingest, learn, two serve; file topics, a Redis server. After the second promotion `driftline rollback`
runs while the clients ask. The clock starts with the rollback's own time in the audit. Then more examples than an
update needs are produced, ticks pass, `update-now` is asked: nothing may change until `resume`, after which the next
version starts from the one that was rolled back to.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.clients import CLIENTS, Clients, asking
from benchmarks.data import some_events
from benchmarks.installation import FEED, Installation, Setting, Started, installation
from benchmarks.record import announce_document, options_of, write_result
from benchmarks.servers import redis_server, wait_for
from driftline.artefact.manifest import decode_manifest
from driftline.assembly.wiring import build_registry, open_buffer
from driftline.records import AuditEntry
from driftline.registry import Registry

ACTOR, REASON = "drill-operator", "answers got worse"
REPLICAS = ("a", "b")
EVERY_S = 1.0
TICKS = 5
TARGET_S = 2.0
ATTEMPTS = 5
PROMOTED_WITHIN_S = 600.0
ANSWERED_WITHIN_S = 30.0


class Drill:
    """The running installation of this drill."""

    def __init__(self, place: Installation, setting: Setting, events: list[dict[str, Any]]) -> None:
        self.place, self._setting, self._events = place, setting, events
        self.registry: Registry = build_registry(place.config)
        self.ingest = place.start("ingest", "ingest")
        self.learner = place.start("learn", "learn")
        self.replicas: list[Started] = [place.serve(name) for name in REPLICAS]

    def feed(self) -> None:
        """A bit more than one update's examples, hold-outs included."""
        wanted = int(self._setting.min_examples * 1.3) + 10
        part, self._events = self._events[:wanted], self._events[wanted:]
        self.place.produce(part)

    def live(self) -> int:
        """The live version."""
        return self.registry.live(FEED).version

    def promote_one(self) -> int:
        """Produce until the learner has promoted another version; returns it. RuntimeError if none is."""
        before = self.live()
        for _ in range(ATTEMPTS):
            known = len(self.registry.versions(FEED))
            self.feed()
            self.place.require(self.learner, lambda known=known: self._versions() > known, PROMOTED_WITHIN_S)
            if self.live() != before:
                return self.live()
        raise RuntimeError(f"the gate rejected {ATTEMPTS} candidates in a row: there is nothing to roll back")

    def _versions(self) -> int:
        return len(self.registry.versions(FEED))

    def fresh(self) -> int:
        """Examples that wait for an update."""
        with closing(open_buffer(self.place.config, read_only=True)) as buffer:
            return buffer.ledger.fresh_count(FEED)


def roll_back(drill: Drill) -> AuditEntry:
    """The one command; returns what the audit says of it. RuntimeError if it fails."""
    drill.place.json("rollback", "--actor", ACTOR, "--reason", REASON)
    return drill.registry.audit(FEED)[-1]


def answered_s(clients: Clients, version: int, moment: float) -> list[float | None]:
    """Seconds from the moment until the last answer of each replica by another version; None if none came by this one.

    Requests that were sent before the moment do not count.
    """
    found: list[float | None] = []
    for replica in range(len(REPLICAS)):
        after = [
            one
            for one in list(clients.told)
            if one.replica == replica and one.sent >= moment and one.version is not None
        ]
        others = [one.sent - moment for one in after if one.version != version]
        found.append(max(others, default=0.0) if any(one.version == version for one in after) else None)
    return found


def stays(drill: Drill, version: int, revision: int) -> dict[str, Any]:
    """Produce more than an update needs, let ticks pass and ask for an update: what is live must not change."""
    drill.feed()
    waiting = wait_for(lambda: drill.fresh() >= 1, 60.0)
    time.sleep(TICKS * EVERY_S)
    asked = drill.place.run("update-now", "--actor", ACTOR)
    live = drill.registry.live(FEED)
    return {
        "fresh_waited": waiting,
        "learner_ran": drill.learner.process.poll() is None,
        "update_now_refused": asked.returncode == 1,
        "unchanged": (live.version, live.revision, live.paused) == (version, revision, True),
    }


def goes_on(drill: Drill, version: int) -> bool:
    """After `resume` the next version starts from the one that was rolled back to."""
    drill.place.json("resume", "--actor", ACTOR)
    live = drill.promote_one()
    return live > version and decode_manifest(drill.registry.manifest(FEED, live).document).parent == version


def play(drill: Drill, texts: Sequence[str]) -> dict[str, Any]:
    """The drill itself, from two promotions to what happens after `resume`."""
    first, second = drill.promote_one(), drill.promote_one()
    before = datetime.now(UTC)
    with asking([one.url for one in drill.replicas], FEED, texts) as clients:
        wait_for(lambda: all(clients.first(replica, second) for replica in range(len(REPLICAS))), ANSWERED_WITHIN_S)
        entry = roll_back(drill)
        moment = entry.at.timestamp()
        wait_for(lambda: None not in answered_s(clients, entry.version, moment), ANSWERED_WITHIN_S)
        quiet = stays(drill, entry.version, entry.revision)
        taken = answered_s(clients, entry.version, moment)
    audited = (entry.action, entry.actor, entry.reason, entry.version, entry.from_version) == (
        "rolled_back", ACTOR, REASON, first, second
    )  # fmt: skip
    return {
        "rolled_back": f"{second} to {entry.version}",
        "answered_s": [None if one is None else round(one, 3) for one in taken],
        "audit_says_who_and_when": audited and before <= entry.at <= datetime.now(UTC),
        **quiet,
        "requests": len(clients.told),
        "requests_failed": len(clients.failures()),
        "goes_on_after_resume": goes_on(drill, entry.version),
    }


def judged(found: dict[str, Any]) -> bool:
    """Whether everything held."""
    fast = all(one is not None and one <= TARGET_S for one in found["answered_s"])
    checks = ("audit_says_who_and_when", "fresh_waited", "learner_ran", "update_now_refused", "unchanged")
    return fast and all(found[one] for one in checks) and found["goes_on_after_resume"] and not found["requests_failed"]


def run(*, quick: bool = False) -> dict[str, Any]:
    """The drill as one JSON-ready document."""
    start = time.time()
    stream, events = some_events(800 if quick else 6000)
    with tempfile.TemporaryDirectory(prefix="driftline-drill-") as name, redis_server(Path(name) / "redis") as redis:
        size = 60 if quick else 250
        setting = Setting(redis_url=redis.url, every_s=EVERY_S, min_examples=size, max_examples=4 * size, score=False)
        with installation(Path(name) / "driftline", setting) as place:
            drill = Drill(place, setting, events)
            found = play(drill, [str(event["text"]) for event in events[:256]])
    head = {"drill": "rollback_under_load", "stream": stream, "replicas": len(REPLICAS), "clients": CLIENTS}
    return {**head, **found, "ok": judged(found), "seconds": round(time.time() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = options_of(parser, "drill_rollback_under_load")
    result = run(quick=options.quick)
    announce_document("rollback_under_load", result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
