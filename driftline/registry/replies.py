"""What the scripts are called with, and what their answers mean: values or errors of our tree. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from driftline.errors import ArtefactError, DriftlineError, LeaseLost, RegistryConflict, RegistryLost, UnknownVersion
from driftline.records import LiveRecord, Manifest, PublishOutcome, iso
from driftline.registry.fields import publish_outcome
from driftline.registry.retention import blobs_of

__all__ = [
    "check_not_lost",
    "conflict",
    "listed",
    "not_kept",
    "publish_call",
    "publish_result",
    "refusal",
    "server_problems",
    "signature",
]

PUBLISHER = "learner"
OLDEST_REDIS = 6
_LOST_REMEDY = (
    "Redis lost data, or redis.url or redis.prefix names another registry. Restore Redis from its append-only file or "
    "a backup, or correct the config; to start over on purpose, use another state.path and redis.prefix"
)


def check_not_lost(live: LiveRecord, seen_revision: int) -> None:
    """RegistryLost if the live record is older than one seen before: nobody may build on it, or serve it."""
    if live.revision < seen_revision:
        raise RegistryLost(
            f"registry_lost: feed {live.feed} is at revision {live.revision}, but revision {seen_revision} was seen "
            f"before: {_LOST_REMEDY}"
        )


def publish_call(manifest: Manifest, fence: int, expected_revision: int, at: datetime) -> dict[str, Any]:
    """The publish script's first argument."""
    reasons = ", ".join(dict.fromkeys(reason.code for reason in manifest.decision.reasons))
    return {
        "fence": fence,
        "cycle_id": manifest.cycle_id,
        "version": manifest.version,
        "promote": manifest.decision.promote,
        "becomes_anchor": manifest.decision.becomes_anchor,
        "expected_revision": expected_revision,
        "blobs": blobs_of(manifest),
        **signature(PUBLISHER, reasons, at),
    }


def signature(actor: str, reason: str, at: datetime) -> dict[str, str]:
    """Who did it, why and when, as the audit keeps it."""
    return {"actor": actor, "reason": reason, "at": iso(at)}


def publish_result(manifest: Manifest, reply: Sequence[Any]) -> PublishOutcome:
    """The publish script's answer as an outcome. LeaseLost, ArtefactError, RegistryConflict, RegistryLost."""
    status = reply[0].decode()
    if status == "done":
        return publish_outcome(reply[1])
    if status == "duplicate":
        recorded = publish_outcome(reply[1])
        return replace(recorded, status="duplicate", recorded=recorded.status)
    if status in ("conflict", "paused"):
        return PublishOutcome(status=status, version=manifest.version, revision=int(reply[1]))
    raise _publish_error(manifest, status, reply)


def _publish_error(manifest: Manifest, status: str, reply: Sequence[Any]) -> DriftlineError:
    name = f"version {manifest.version} of feed {manifest.feed}"
    if status == "lease_lost":
        return LeaseLost(f"{name}: another learner has acquired the lease since; this one must not publish")
    if status == "missing_blob":
        return ArtefactError(
            "missing_blob", f"{name}: blob {reply[1].decode()[:12]} is not in the registry; put it again"
        )
    if status == "version_taken":
        return RegistryConflict(f"{name} is registered by another cycle: ask for the next version number")
    return _ahead(manifest.feed)


def refusal(feed: str, reply: Sequence[Any], change: Mapping[str, Any]) -> DriftlineError:
    """Why an admin's change was not made."""
    status = reply[0].decode()
    if status == "conflict":
        return conflict(feed, change["expected_revision"], int(reply[1]))
    if status == "missing_blob":
        return not_kept(feed, change["version"])
    return _ahead(feed)


def not_kept(feed: str, version: int) -> UnknownVersion:
    """The manifest is there, the weights are not any more."""
    return UnknownVersion(
        f"feed {feed}: version {version} cannot go live: its blobs are no longer kept "
        "(the last 50 versions, the incumbent, the one before it and the anchor are)"
    )


def conflict(feed: str, expected: int, found: int) -> RegistryConflict:
    """The live record moved between reading and writing."""
    return RegistryConflict(
        f"feed {feed}: the live record is at revision {found}, not {expected}: somebody changed it; look, then repeat"
    )


def listed(versions: Sequence[int]) -> str:
    """The versions there are, for a message: at most the first and the last."""
    if not versions:
        return "none yet"
    return f"{len(versions)}, from {versions[0]} to {versions[-1]}"


def _ahead(feed: str) -> RegistryLost:
    return RegistryLost(
        f"registry_lost: feed {feed}: the audit stream is ahead of the live record: keys were deleted or partly "
        "restored. Restore Redis from its append-only file or a backup"
    )


def server_problems(info: Mapping[str, str]) -> list[str]:
    """What is wrong with the settings that INFO shows, each with the remedy."""
    problems = []
    if int(info.get("redis_version", "0").partition(".")[0]) < OLDEST_REDIS:
        problems.append(f"Redis {info.get('redis_version')} is too old: use {OLDEST_REDIS} or newer")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        problems.append(
            f"maxmemory-policy is {policy}, which throws adapters away: start it with --maxmemory-policy noeviction; "
            "or CONFIG SET maxmemory-policy noeviction, and CONFIG REWRITE, without which a restart undoes it"
        )
    if info.get("aof_enabled") != "1":
        problems.append(
            "the append-only file is off, so a crash loses versions: start it with --appendonly yes; or CONFIG SET "
            "appendonly yes, and CONFIG REWRITE, without which a restart undoes it and what was written since is lost"
        )
    return problems
