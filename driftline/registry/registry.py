"""The registry of one installation: versions, the live record, the audit, heartbeats. Guards DESIGN §3.6 and §3.9.

Delivery: what a call returned is durable as far as Redis is (embedded: fsynced). Ordering: changes of a live record
have revisions 1, 2, …; the audit stream holds them as `<revision>-0`, pauses and resumes as `<revision>-<1, 2, …>`, so
that replicas see a new revision only when a version was switched. Atomicity: each verb is one script, all or nothing;
blobs come first and are invisible until a manifest names them. Idempotency: publishing is, by cycle id; admin verbs are
repeated here once, under the same request id, when Redis does not answer. Errors: see each verb; RegistryUnavailable
everywhere.
"""

import json
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog

from driftline.artefact.manifest import SignedManifest, decode_manifest, decode_signed, encode_signed
from driftline.errors import ArtefactError, RegistryUnavailable, UnknownVersion
from driftline.names import Keys
from driftline.records import ADAPT_ROLE, LEARNER_ROLE, AuditEntry, LiveRecord, Manifest, PublishOutcome, ReplicaStatus
from driftline.registry.blobs import Blobs
from driftline.registry.client import Client, run_script
from driftline.registry.fields import (
    audit_entry,
    count,
    damaged,
    live_record,
    pairs,
    publish_outcome,
    readable,
    replica_status,
    replica_value,
)
from driftline.registry.lease import Lease
from driftline.registry.pulses import Pulses
from driftline.registry.replies import (
    conflict,
    listed,
    not_kept,
    publish_call,
    publish_result,
    refusal,
    server_problems,
    signature,
)
from driftline.registry.retention import KEPT_PASSING, blobs_of, kept_versions, lasting_blobs_of
from driftline.update_requests import Wanted, encode_request

__all__ = ["Registry"]

log = structlog.get_logger()

REPLICA_SILENT_S = 5.0
REPLICA_FORGOTTEN_S = 3600.0
MAX_WAIT_S = 4.0
KEPT_VERSIONS = 50
BLOB_GRACE_S = 900.0
FIRST_ENTRY = "0-0"
NOTHING_WANTED = Wanted()


class Registry:
    """All feeds of one prefix in one Redis. Thread-safe (redis-py hands every thread its own connection)."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client: Any = client  # redis-py types replies as unions over every decoding mode
        self._keys = keys
        self._blobs = Blobs(client, keys)
        self.pulses = Pulses(client, keys)

    def close(self) -> None:
        """Close all connections. The next call opens one again."""
        self._client.close()

    def check_server(self) -> list[str]:
        """What is wrong with the server's settings, each with the remedy; [] if all is well."""
        info = {name: str(value) for name, value in self._client.info().items()}
        return server_problems(info)

    # --- versions and blobs

    def next_version(self, feed: str, *, above: int = 0) -> int:
        """A version number never given before, from 1. A crash after it leaves a gap.

        `above`: the greatest number that the caller knows of. Greater than all that were given, as Redis has it, it
        tells that Redis lost the last ones (it may, with `appendfsync everysec`): they are skipped, with a warning.
        """
        counter = self._keys.version_counter(feed)
        keys = [counter, self._keys.feeds(), self._keys.manifests(feed)]
        reply = run_script(self._client, "next_version", keys, feed, above)
        if reply is None:
            raise damaged(counter, "is no version number that can rise", f"SET {counter} 0: numbers in use are skipped")
        number, given = reply
        if given < above:
            log.warning("version_numbers_lost", feed=feed, given=given, known=above, next_version=number)
        return int(number)

    def put_blob(self, feed: str, data: bytes) -> str:
        """Store bytes under their sha256, which is returned; see `driftline.registry.blobs`."""
        return self._blobs.put(feed, data)

    def get_blob(self, feed: str, sha256: str) -> bytes:
        """The bytes, hash verified. ArtefactError: missing_blob, hash_mismatch."""
        return self._blobs.get(feed, sha256)

    def get_part(self, manifest: Manifest, name: str) -> bytes:
        """A part of a version whose manifest was verified. ArtefactError as `get_blob`, and missing_blob where the
        version has no such part."""
        if name not in manifest.parts:
            what = f"version {manifest.version} of feed {manifest.feed}"
            raise ArtefactError(
                "missing_blob", f"{what} has no part {name!r}, only {', '.join(sorted(manifest.parts))}"
            )
        return self._blobs.get(manifest.feed, manifest.parts[name])

    def publish(self, signed: SignedManifest, *, lease: Lease, expected_revision: int, at: datetime) -> PublishOutcome:
        """Register the manifest and, if its decision says promote, make it live; all in one script.

        A rejecting manifest registers whatever is live or paused. Repeat after RegistryUnavailable: the second call is
        a `duplicate` if the first was done. On `conflict` and `paused` nothing was written. Errors: LeaseLost (a newer
        holder has acquired the lease), ArtefactError(missing_blob), RegistryConflict (the version number is taken by
        another cycle), RegistryLost (the audit is ahead of the live record).
        """
        manifest = decode_manifest(signed.document)
        call = publish_call(manifest, lease.fence, expected_revision, at)
        keys = [self._keys.fence(manifest.feed, lease.name), *self._publish_keys(manifest)]
        reply = run_script(self._client, "publish", keys, json.dumps(call), encode_signed(signed))
        return publish_result(manifest, reply)

    def _publish_keys(self, manifest: Manifest) -> list[str]:
        keys, feed = self._keys, manifest.feed
        names = [keys.live(feed), keys.manifests(feed), keys.cycles(feed), keys.audit(feed), keys.promoted_before(feed)]
        return [*names, keys.blobs(feed), *(keys.blob(feed, sha256) for sha256 in blobs_of(manifest))]

    def cycle_outcome(self, feed: str, cycle_id: str) -> PublishOutcome | None:
        """What became of a cycle: promoted or rejected, as which version; None if it was never registered."""
        recorded = self._client.hget(self._keys.cycles(feed), cycle_id)
        with readable(self._keys.cycles(feed)):
            return None if recorded is None else publish_outcome(recorded)

    def manifest(self, feed: str, version: int) -> SignedManifest:
        """The signed manifest of a version. UnknownVersion; ArtefactError(unreadable) if another one's stands there.

        Its signature is not checked here: that is `Trust.verify`.
        """
        data = self._client.hget(self._keys.manifests(feed), str(version))
        if data is None:
            known = self.versions(feed)
            raise UnknownVersion(f"feed {feed} has no version {version}; it has {listed(known)}")
        signed = decode_signed(data)
        found = decode_manifest(signed.document)
        if (found.feed, found.version) != (feed, version):
            raise ArtefactError("unreadable", f"feed {feed}: another manifest stands under version {version}")
        return signed

    def versions(self, feed: str) -> list[int]:
        """All registered versions, promoted and rejected, rising."""
        names = self._client.hkeys(self._keys.manifests(feed))
        with readable(self._keys.manifests(feed)):
            return sorted(count(name) for name in names)

    def feeds(self) -> list[str]:
        """Feeds that ever asked for a version number, sorted."""
        names = self._client.smembers(self._keys.feeds())
        with readable(self._keys.feeds()):
            return sorted(name.decode() for name in names)

    # --- the live record

    def live(self, feed: str) -> LiveRecord:
        """What is live. Version 0, revision 0 for a feed that was never written (see `check_not_lost`). RegistryError
        if what stands there is no live record."""
        raw = self._client.hgetall(self._keys.live(feed))
        with readable(self._keys.live(feed)):
            return live_record(feed, raw)

    def promote(
        self, feed: str, version: int, *, expected_revision: int, actor: str, reason: str, at: datetime
    ) -> LiveRecord:
        """An admin makes a registered version live; the pause stays as it is, and so does the anchor.

        RegistryConflict if the live record is not at `expected_revision`; UnknownVersion if manifest or blobs are gone.
        """
        live = self._live_at(feed, expected_revision)
        change = {"action": "promoted", "version": version, "anchor": live.anchor, "pause": False}
        return self._switch(feed, {**change, **signature(actor, reason, at), "expected_revision": expected_revision})

    def rollback(
        self, feed: str, version: int | None, *, expected_revision: int, actor: str, reason: str, at: datetime
    ) -> LiveRecord:
        """Go back to `version` (None: the one live before the current one was first promoted), and pause.

        0 is allowed. An anchor newer than the target is withdrawn with the versions that are: the anchor before it
        takes its place. Errors as for `promote`.
        """
        live = self._live_at(feed, expected_revision)
        target = self.rollback_target(live) if version is None else version
        anchor = self._anchor_at(feed, live.anchor, target)
        change = {"action": "rolled_back", "version": target, "anchor": anchor, "pause": True}
        return self._switch(feed, {**change, **signature(actor, reason, at), "expected_revision": expected_revision})

    def pause(self, feed: str, *, actor: str, reason: str, at: datetime) -> LiveRecord:
        """Stop automatic promotion until `resume`. The revision stays. Of a paused feed the first reason stays, too:
        the new one is in the audit only."""
        return self._pause(feed, {"action": "paused", "pause": True, **signature(actor, reason, at)})

    def resume(self, feed: str, *, actor: str, reason: str, at: datetime) -> LiveRecord:
        """Allow automatic promotion again. The revision stays."""
        return self._pause(feed, {"action": "resumed", "pause": False, **signature(actor, reason, at)})

    def promoted_before(self, feed: str, version: int) -> int | None:
        """The version that was live when `version` was first promoted; None if it never was."""
        before = self._client.hget(self._keys.promoted_before(feed), str(version))
        with readable(self._keys.promoted_before(feed)):
            return None if before is None else count(before)

    def rollback_target(self, live: LiveRecord) -> int:
        """Where a rollback without a version goes from here. UnknownVersion if there is no such version."""
        if live.version == 0:
            message = "version 0, the base, is live: there is nothing to roll back; name a version to make it live"
            raise UnknownVersion(f"{live.feed}: {message}")
        before = self.promoted_before(live.feed, live.version)
        if before is None:
            raise UnknownVersion(f"feed {live.feed}: nothing was live before version {live.version}; name a version")
        return before

    def _live_at(self, feed: str, expected_revision: int) -> LiveRecord:
        live = self.live(feed)
        if live.revision != expected_revision:
            raise conflict(feed, expected_revision, live.revision)
        return live

    def _anchor_at(self, feed: str, anchor: int, target: int) -> int:
        """The anchor as it was when `target` was the newest version; `target` itself if its blobs are gone by now."""
        while anchor > max(target, 0):  # nothing comes before 0
            before = self._client.hget(self._keys.promoted_before(feed), f"anchor:{anchor}")
            with readable(self._keys.promoted_before(feed)):
                anchor = 0 if before is None else min(count(before), anchor - 1)  # down it goes, whatever stands there
        return anchor if self._is_kept(feed, anchor) else target

    def require_kept(self, feed: str, version: int) -> None:
        """UnknownVersion if there is no such version, or its blobs were collected, so that it cannot go live."""
        if not self._is_kept(feed, version):
            raise not_kept(feed, version)

    def _is_kept(self, feed: str, version: int) -> bool:
        return all(
            self._client.hexists(self._keys.blob(feed, sha256), "chunks") for sha256 in self._blobs_of(feed, version)
        )

    def _blobs_of(self, feed: str, version: int) -> list[str]:
        """Those without which it cannot go live."""
        return lasting_blobs_of(self._decoded(feed, version)) if version else []

    def _decoded(self, feed: str, version: int) -> Manifest:
        return decode_manifest(self.manifest(feed, version).document)

    def _switch(self, feed: str, change: dict[str, Any]) -> LiveRecord:
        blobs = sorted({*self._blobs_of(feed, change["version"]), *self._blobs_of(feed, change["anchor"])})
        names = [
            self._keys.live(feed),
            self._keys.audit(feed),
            self._keys.promoted_before(feed),
            self._keys.blobs(feed),
        ]
        keys = [*names, *(self._keys.blob(feed, sha256) for sha256 in blobs)]
        return self._changed(feed, "switch", keys, {**change, "blobs": blobs})

    def _pause(self, feed: str, change: dict[str, Any]) -> LiveRecord:
        return self._changed(feed, "pause", [self._keys.live(feed), self._keys.audit(feed)], change)

    def _changed(self, feed: str, script: str, keys: list[str], change: dict[str, Any]) -> LiveRecord:
        """Run an admin's change, and once more under the same request id if Redis did not answer."""
        call = json.dumps({**change, "request": uuid.uuid4().hex})
        try:
            reply = run_script(self._client, script, keys, call)
        except RegistryUnavailable:
            reply = run_script(self._client, script, keys, call)
        if reply[0] == b"done":
            return live_record(feed, pairs(reply[1]))
        raise refusal(feed, reply, change)

    # --- the audit, and waiting for it

    def audit(self, feed: str) -> list[AuditEntry]:
        """Every change of the live record and of the pause, oldest first."""
        entries = self._client.xrange(self._keys.audit(feed))
        with readable(self._keys.audit(feed)):
            return [audit_entry(feed, entry_id, raw) for entry_id, raw in entries]

    def last_change(self, feed: str) -> str:
        """The id of the newest audit entry, "0-0" if there is none: where `wait_for_change` may start."""
        newest = self._client.xrevrange(self._keys.audit(feed), count=1)
        return newest[0][0].decode() if newest else FIRST_ENTRY

    def wait_for_change(self, feeds: Mapping[str, str], timeout_s: float) -> dict[str, str]:
        """Block until a feed's audit goes past the given id, at most min(timeout_s, 4) seconds.

        Returns the newest id of each feed that changed; {} after the time. A hint only: read `live` after every return.
        """
        if not feeds:
            return {}
        feed_of = {self._keys.audit(feed).encode(): feed for feed in feeds}
        streams: Any = {self._keys.audit(feed): last_id for feed, last_id in feeds.items()}
        block_ms = max(1, int(min(timeout_s, MAX_WAIT_S) * 1000))
        reply = self._client.xread(streams, block=block_ms)
        return {feed_of[stream]: entries[-1][0].decode() for stream, entries in reply}

    # --- retention

    def drop_blob(self, feed: str, sha256: str) -> None:
        """Remove a blob that the caller made and nothing names any more."""
        self._blobs.drop(feed, sha256)

    def collect_garbage(self, feed: str, keep_versions: int = KEPT_VERSIONS, *, grace_s: float = BLOB_GRACE_S) -> int:
        """Remove blobs that no kept version names and nobody touched for `grace_s`, of passing parts those that none of
        the newest few does; returns how many.

        Safe beside publishing and switching: those touch their blobs in the script that names them.
        """
        live, versions = self.live(feed), self.versions(feed)
        before = self.promoted_before(feed, live.version)
        manifests = {
            version: self._decoded(feed, version) for version in kept_versions(versions, live, before, keep_versions)
        }
        whole = manifests.keys() & kept_versions(versions, live, before, KEPT_PASSING)
        needed = {
            name
            for version, manifest in manifests.items()
            for name in (blobs_of if version in whole else lasting_blobs_of)(manifest)
        }
        snapshot = self.pulses.snapshot_blob(feed)
        return self._blobs.collect(feed, needed | ({snapshot} if snapshot else set()), grace_s)

    # --- requests and heartbeats

    def request_update(self, feed: str, actor: str, what: Wanted = NOTHING_WANTED) -> None:
        """Ask the feed's learner for an update now, or once it has `what`. A second request before the first was met
        takes its place."""
        self._client.set(self._keys.update_request(feed), encode_request(actor, what))

    def update_request(self, feed: str) -> str | None:
        """The request for an update that was not met yet. It stays until `clear_update_request`: at least once."""
        key = self._keys.update_request(feed)
        request = self._client.get(key)
        try:
            return None if request is None else request.decode()
        except UnicodeDecodeError:
            raise damaged(key, "is no request for an update", "ask again with `driftline update-now`") from None

    def clear_update_request(self, feed: str, request: str) -> None:
        """The request, as `update_request` gave it, was met; one that was made since stays. Idempotent."""
        run_script(self._client, "clear_request", [self._keys.update_request(feed)], request)

    def heartbeat(self, status: ReplicaStatus) -> None:
        """Tell what this replica serves. Liveness goes by the server's clock, not by `seen_at`."""
        forget_ms = int(REPLICA_FORGOTTEN_S * 1000)
        name = f"{status.role}:{status.replica}"  # server and scorer of one machine share the replica's name
        run_script(self._client, "heartbeat", [self._keys.replicas()], name, replica_value(status), forget_ms)

    def replicas(self) -> list[ReplicaStatus]:
        """Replicas heard of within the last 5 s, by name; no learners."""
        return [status for status in self._heard_of() if status.role not in (LEARNER_ROLE, ADAPT_ROLE)]

    def fast_clocks(self) -> list[ReplicaStatus]:
        """The processes that keep fast clocks, heard of within the last 5 s."""
        return [status for status in self._heard_of() if status.role == ADAPT_ROLE]

    def stopped_feeds(self) -> dict[str, str]:
        """Feeds that a learner heard of within the last 5 s cannot go on with → why."""
        learners = (status for status in self._heard_of() if status.role == LEARNER_ROLE)
        return {feed: why for status in learners for feed, why in status.refused.items()}

    def _heard_of(self) -> list[ReplicaStatus]:
        seconds, microseconds = self._client.time()
        since_ms = seconds * 1000 + microseconds // 1000 - int(REPLICA_SILENT_S * 1000)
        known = (replica_status(value) for value in self._client.hvals(self._keys.replicas()))
        alive = (status for seen_ms, status in known if seen_ms >= since_ms)
        return sorted(alive, key=lambda status: (status.replica, status.role))

    def is_leased(self, feed: str, name: str) -> bool:
        """Whether somebody holds the lease now. Reads only."""
        return bool(self._client.exists(self._keys.lease(feed, name)))

    def lease(self, feed: str, name: str, *, ttl_s: float) -> Lease:
        """A lease to acquire; see `driftline.registry.lease`."""
        return Lease(self._client, self._keys, feed, name, ttl_s)
