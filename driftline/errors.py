"""Every error that Driftline raises on purpose.

    DriftlineError
    ├── ConfigError            the config is wrong; exit code 2; fix the named key
    ├── UsageError             the command line is wrong; exit code 2
    ├── TopicError             a topic cannot be used as it is
    │   ├── TopicUnavailable   (retriable) the broker does not answer
    │   ├── TopicRecreated     the topic or cluster is not the one the buffer's positions belong to
    │   └── PositionLost       the stored position is no longer on the topic
    ├── BufferStoreError       the SQLite buffer cannot be used
    │   ├── BufferInUse        another ingest process holds it
    │   ├── BufferBusy         (retriable) another process keeps it locked
    │   └── BufferFull         (retriable) the disk is full; nothing was written
    ├── RegistryError          Redis holds something we cannot go on with
    │   ├── RegistryUnavailable (retriable) Redis does not answer, or is out of memory
    │   ├── RegistryLost       the live record is missing or older than one seen before
    │   ├── RegistryConflict   somebody else changed the live record first: read it again and decide anew
    │   ├── UnknownVersion     no such version of the feed
    │   ├── PulseGap           Redis lost pulses: publish a snapshot, then go on
    │   └── LeaseLost          another process holds the lease now: stop publishing
    ├── ArtefactError          an adapter must not be served; `code` names the check that failed
    ├── BaseModelError         the base model cannot be loaded
    └── ServingError           a request cannot be answered
        ├── BadInput           the request is wrong (HTTP 4xx)
        ├── Overloaded         (retriable) the queue is full (HTTP 429)
        └── NotReady           (retriable) the replica has not read the registry yet (HTTP 503)

The message says what is wrong, with the key and the value, and what to do. `retriable` says whether the same
call may succeed later without anybody changing anything. A gate's rejection is a value (`GateDecision`), not an error.
"""

from typing import ClassVar


class DriftlineError(Exception):
    """Base of the tree. `exit_code` is what the command line returns."""

    retriable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class ConfigError(DriftlineError):
    """The configuration is wrong. The message names the key, the value and the remedy."""

    exit_code = 2


class UsageError(DriftlineError):
    """The command line is wrong: a verb, an option or an argument."""

    exit_code = 2


class TopicError(DriftlineError):
    """A topic cannot be used as it is; restarting does not help.

    `unacknowledged`: of an append, the indices of those records that may not be there; None: of all, or not known.
    """

    unacknowledged: tuple[int, ...] | None = None


class TopicUnavailable(TopicError):
    """The broker does not answer. Try again with back-off; nothing is lost."""

    retriable = True


class TopicRecreated(TopicError):
    """The topic (or cluster) was made anew, so the stored positions belong to another log."""


class PositionLost(TopicError):
    """The stored position was deleted by retention: examples in between cannot be read any more."""


class BufferStoreError(DriftlineError):
    """The SQLite buffer cannot be used."""


class BufferInUse(BufferStoreError):
    """Another ingest process holds the buffer's lock."""


class BufferBusy(BufferStoreError):
    """Another process keeps the buffer locked. The transaction was rolled back; try again."""

    retriable = True


class BufferFull(BufferStoreError):
    """The disk is full or the file is read-only. The transaction was rolled back; try again after making room."""

    retriable = True


class RegistryError(DriftlineError):
    """Redis holds something that we cannot go on with."""


class RegistryUnavailable(RegistryError):
    """Redis does not answer or refuses writes. Publishing is idempotent: try again."""

    retriable = True


class RegistryLost(RegistryError):
    """The live record is missing, or older than one this process or its buffer has seen."""


class RegistryConflict(RegistryError):
    """The live record changed since it was read; read it again and decide anew."""


class UnknownVersion(RegistryError):
    """The feed has no such version, or its blobs are no longer kept."""


class PulseGap(RegistryError):
    """The pulse is not the next one of its feed: those before it were lost. A snapshot mends it."""


class LeaseLost(RegistryError):
    """Another process holds the lease: this one must not publish."""


class ArtefactError(DriftlineError):
    """An adapter must not be served.

    `code` is one of: missing_blob, hash_mismatch, bad_signature, untrusted_key, wrong_base, wrong_task, wrong_labels,
    wrong_shape, not_finite, unreadable, probe_mismatch.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class BaseModelError(DriftlineError):
    """The base model cannot be found or loaded."""


class ServingError(DriftlineError):
    """A request cannot be answered."""


class BadInput(ServingError):
    """The request itself is wrong; sending it again does not help. `code` is machine-readable."""

    def __init__(self, code: str, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Overloaded(ServingError):
    """The queue is full. `retry_after_s` is an estimate of when it will have drained."""

    retriable = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(ServingError):
    """The replica has not read the registry since its start."""

    retriable = True
