"""What every drill counts: example ids against the file's, and whether promoted versions learned each example once."""

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.installation import FEED
from driftline.artefact.manifest import decode_manifest
from driftline.assembly.wiring import build_registry, open_buffer, topic_names
from driftline.buffer import Buffer, feed_rules
from driftline.clock import SystemClock
from driftline.config import Config
from driftline.topics import Outgoing
from driftline.topics.files import FileTopics
from stream.ingest import Ingest


def ids_from_file(config: Config, events: Sequence[dict[str, Any]]) -> list[str]:
    """Ids of the examples that an undisturbed ingest makes of the same events on a topic file, sorted."""
    section = config.feed[FEED]
    with tempfile.TemporaryDirectory(prefix="driftline-drill-") as name:
        folder = Path(name)
        topics, names = FileTopics(folder / "topics"), topic_names(config)[FEED]
        topics.append(names.events, [Outgoing(value=json.dumps(event).encode()) for event in events])
        rules = {FEED: feed_rules(FEED, section, names, config.ingest)}
        with closing(Buffer.open(folder / "buffer.sqlite3", rules, b"drill")) as buffer:
            with Ingest(
                topics, buffer, {FEED: section}, {FEED: names}, config.ingest, SystemClock(), lock=folder / "lock"
            ) as ingest:
                while ingest.step(0.0):
                    pass
            return sorted(row.event_id for row in buffer.exams.scored(FEED))


def ids_in_buffer(config: Config) -> list[str]:
    """Ids of all examples in the installation's buffer, sorted; one that is in twice comes twice."""
    with closing(open_buffer(config, read_only=True)) as buffer:
        return sorted(row.event_id for row in buffer.exams.scored(FEED))


def compare_ids(expected: Sequence[str], found: Sequence[str]) -> dict[str, int]:
    """How many are expected, missing, there more often than expected, and there without being expected at all."""
    want, have = Counter(expected), Counter(found)
    return {
        "expected": len(expected),
        "found": len(found),
        "missing": (want - have).total(),
        "twice": sum(n - want[one] for one, n in have.items() if one in want and n > want[one]),
        "unexpected": sum(n for one, n in have.items() if one not in want),
    }


def same_ids(compared: dict[str, int]) -> bool:
    """None missing, none twice, none that the file does not have."""
    return not (compared["missing"] or compared["twice"] or compared["unexpected"])


def check_versions(config: Config) -> dict[str, Any]:
    """The buffer's cycles against the registry's versions.

    `lost`: acknowledged cycles whose version the registry does not have, or has under another cycle. `twice`: cycle ids
    with more than one version, and versions that the audit promotes by the learner more than once. `relearned`:
    examples that more than one promoted cycle learned fresh. `unexplained`: versions of no cycle of the buffer.
    """
    registry = build_registry(config)
    with closing(open_buffer(config, read_only=True)) as buffer:
        rows = buffer.ledger.cycles(FEED)
    manifests = {
        version: decode_manifest(registry.manifest(FEED, version).document) for version in registry.versions(FEED)
    }
    ended = [row for row in rows if row.outcome in ("promoted", "rejected")]
    promoted = [row.cycle for row in rows if row.outcome == "promoted"]
    audit = [entry.version for entry in registry.audit(FEED) if entry.action == "promoted"]
    learned = Counter(seq for cycle in promoted for seq in cycle.plan.fresh)
    by_cycle = Counter(manifest.cycle_id for manifest in manifests.values())
    return {
        "versions": len(manifests),
        "promoted": len(promoted),
        "open": sum(row.outcome is None for row in rows),
        "lost": sum(row.cycle.version not in manifests for row in ended)
        + sum(
            manifests[row.cycle.version].cycle_id != row.cycle.cycle_id
            for row in ended
            if row.cycle.version in manifests
        ),
        "twice": sum(n > 1 for n in by_cycle.values()) + sum(n > 1 for n in Counter(audit).values()),
        "relearned": sum(n > 1 for n in learned.values()),
        "unexplained": len(set(manifests) - {row.cycle.version for row in rows}),
        "examples_learned": len(learned),
    }


def sound(versions: dict[str, Any]) -> bool:
    """No version lost, none published twice, no example learned by two of them."""
    return not (versions["lost"] or versions["twice"] or versions["relearned"] or versions["unexplained"])
