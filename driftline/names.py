"""Names that several rooms must agree on: Redis keys, files under the state folder, reason codes."""

import hashlib
from pathlib import Path
from typing import Literal

TaskName = Literal["classification"]
"""Those of `driftline.tasks.TASKS`, which a config can name without torch."""

RECORD_TOO_LARGE = "record_too_large"
DEAD_LETTER_REASONS = {
    "undecodable": "the value is not UTF-8 JSON (or not UTF-8 text, for a plain-text feed)",
    "tombstone": "the record has no value",
    "missing_field": "a mapped field is absent or null",
    "wrong_type": "a mapped field has the wrong type",
    "bad_timestamp": "the timestamp cannot be read, and the record has none of its own",
    "unknown_label": "the label is none of the feed's labels, or was given up, also by label_map and fold_labels: mend "
    "these, start the processes again, then `driftline dead-letters retry`",
    "empty_text": "nothing is left of the text after cleaning",
    "text_too_long": "the text is longer than max_text_bytes",
    RECORD_TOO_LARGE: "the record is larger than ingest.max_record_bytes; its bytes are not kept",
    "id_too_long": "the id is longer than 512 bytes",
    "conflicting_duplicate": "an event of this id came before, with another text",
    "conflicting_label": "another label of this event stands, by labels.on_conflict or by a trusted labeller",
    "no_event": "a label whose event did not come within event_wait_s",
}
LETTER_STATES = {
    "to_send": "it waits to be put on the dead-letter topic",
    "sent": "it is on the dead-letter topic, too, and waits here for a retry",
    "retry": "it was marked for a retry: ingest tries it again",
    "resolved": "a retry took it in",
}

BLOB_CHUNK_BYTES = 1 << 20


class Keys:
    """Every Redis key of Driftline. `{feed}` in braces keeps a feed's keys on one cluster slot for the scripts."""

    def __init__(self, prefix: str = "driftline") -> None:
        self.prefix = prefix

    def _feed(self, feed: str, name: str) -> str:
        return f"{self.prefix}:{{{feed}}}:{name}"

    def feeds(self) -> str:
        return f"{self.prefix}:feeds"

    def version_counter(self, feed: str) -> str:
        return self._feed(feed, "version-counter")

    def live(self, feed: str) -> str:
        return self._feed(feed, "live")

    def manifests(self, feed: str) -> str:
        return self._feed(feed, "manifests")

    def cycles(self, feed: str) -> str:
        return self._feed(feed, "cycles")

    def audit(self, feed: str) -> str:
        return self._feed(feed, "audit")

    def promoted_before(self, feed: str) -> str:
        return self._feed(feed, "promoted-before")

    def update_request(self, feed: str) -> str:
        return self._feed(feed, "update-request")

    def blob(self, feed: str, sha256: str) -> str:
        return self._feed(feed, f"blob:{sha256}")

    def blobs(self, feed: str) -> str:
        return self._feed(feed, "blobs")

    def fast(self, feed: str) -> str:
        return self._feed(feed, "fast")

    def pulses(self, feed: str) -> str:
        return self._feed(feed, "pulses")

    def lease(self, feed: str, name: str) -> str:
        return self._feed(feed, f"lease:{name}")

    def fence(self, feed: str, name: str) -> str:
        return self._feed(feed, f"fence:{name}")

    def journal(self) -> str:
        return f"{self.prefix}:journal"

    def replicas(self) -> str:
        return f"{self.prefix}:replicas"


class StateFiles:
    """Every path below the state folder."""

    def __init__(self, state: Path) -> None:
        self.root = state
        self.buffer = state / "buffer.sqlite3"
        self.ingest_lock = state / "ingest.lock"
        self.topics = state / "topics"
        self.redis = state / "redis"
        self.signing_key = state / "keys" / "signing.pem"
        self.public_key = state / "keys" / "public.pem"
        self.keys_lock = state / "keys" / "lock"
        self.holdout_key = state / "keys" / "holdout.key"
        self.supervisor = state / "up.json"
        self.running = state / "running"
        self.seen_revisions = state / "seen-revisions"
        self._names = state / "names"

    def names_of(self, what: str) -> Path:
        """Where the features of some label names are kept."""
        return self._names / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.safetensors"
