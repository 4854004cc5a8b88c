"""What travels between the rooms: frozen records, aware-UTC times, units in names (DESIGN §2).

No record here does I/O. Records that go into Redis or onto topics are encoded where that happens
(`driftline.topics.codec`, `driftline.artefact`).
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from driftline.figures import Figures


def utc(text: str) -> datetime:
    """Parse ISO 8601 (with `Z` or an offset; naive means UTC) into an aware UTC time. ValueError if it is none."""
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def iso(moment: datetime) -> str:
    """The one way we write times: UTC, `Z`, microseconds only where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Position:
    """Where a record stands. `offset` is a Kafka offset, or a byte offset in a topic file."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRecord:
    """One undecoded record of a topic. The position after it has `next_offset`; offsets may have holes.

    `skipped_bytes`: the value was larger than the reader may deliver, so it was left out; its size.
    """

    position: Position
    next_offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: datetime | None = None
    skipped_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A text that arrived. `label` is set when it came inside the event; `collected` when it was answered over HTTP.

    `value` is the record's original bytes, for a dead letter that becomes due later. `refused_label`: the label inside
    the event could not be used; the event is one without label, and this letter accounts for it. `time_fell_back`: its
    time could not be read, so `occurred_at` is the record's.
    """

    event_id: str
    feed: str
    text: str
    occurred_at: datetime | None
    source: str | None
    position: Position
    label: str | None = None
    labelled_at: datetime | None = None
    collected: bool = False
    value: bytes | None = None
    refused_label: "DeadLetter | None" = None
    time_fell_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What an event turned out to be. `value`: the record's original bytes, for a dead letter that comes due later.

    `repeated`: it came inside an event that had come before (only a replay puts such labels onto the labels topic), and
    so corrects nothing.
    """

    event_id: str
    feed: str
    label: str
    labelled_at: datetime | None
    labeller: str | None
    position: Position
    value: bytes | None = None
    time_fell_back: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """An answer as it was served. `label` is None only at version 0. `scores` sum to 1 over the version's labels.

    `pulse`: the fast state that was mixed in; 0: the version's head alone. `feature`: d little-endian fp16 numbers, the
    text's feature by the version's body, of norm √d; None where the fast clock does not want it.
    `occurred_at`, `source` and `text_sha256` (of the cleaned text's UTF-8) are the event's, so that whoever reads the
    predictions topic alone can chart them; None in records of before, and where the event has none.
    """

    event_id: str
    feed: str
    label: str | None
    scores: dict[str, float]
    adapter_version: int
    replica: str
    predicted_at: datetime
    position: Position | None = None
    occurred_at: datetime | None = None
    source: str | None = None
    text_sha256: str | None = None
    time_fell_back: bool = False
    pulse: int = 0
    feature: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A record that could not be used: why, where it stood, and its original bytes.

    `reason` is a code from `driftline.names.DEAD_LETTER_REASONS`; `detail` never quotes the text. `kind`: event, label
    or prediction; None is what its topic holds. A label inside an event is a "label" at the event's position. `at`:
    when it was first refused; None of one that was not written down yet.
    """

    feed: str
    reason: str
    detail: str
    position: Position
    value: bytes
    kind: str | None = field(default=None, compare=False)
    at: datetime | None = field(default=None, compare=False)


Record = Event | Label | Prediction | DeadLetter
"""What a record of a topic is once it was decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedAnswer:
    """The part of a prediction that scoring needs."""

    label: str | None
    adapter_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An event joined with its label, and with the answer served for it, if any. `seq`: unique in a buffer, rising."""

    seq: int
    feed: str
    event_id: str
    text: str
    label: str
    occurred_at: datetime
    labelled_at: datetime
    source: str | None
    holdout: bool
    answer: ServedAnswer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """A label that replaced another one of the same example. `after_version`: the newest version number that a cycle
    had been taken for by then; plans of later versions hold the example with its corrected label."""

    seq: int
    event_id: str
    was: str
    becomes: str
    labeller: str | None
    corrected_at: datetime
    after_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one update learns from, as example numbers in training order.

    `fresh` are trained and then remembered; `replayed` are drawn from the parent's reservoir and recent window;
    `retired` are not trained now but offered to the reservoir (given up after three rejections, or over the limit).
    """

    fresh: tuple[int, ...]
    replayed: tuple[int, ...]
    retired: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One turn of the learner, written to the buffer before training starts, so that a crash repeats the same turn."""

    cycle_id: str
    feed: str
    parent: int
    version: int
    plan: Plan
    seed: int
    taken_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReason:
    """One comparison or check with its numbers. `holds` False on any reason means: reject.

    code: worse_than_incumbent | worse_than_anchor | not_worse | answers_one_class | not_above_majority |
    too_few_holdouts | not_finite | incumbent_changed | paused | imported. `reference` names the hold-out set: pooled |
    recent | segment:N | all_classes (pooled, where the reference does not know all classes). Accuracies are shares in
    0..1, `n` is the number of hold-outs, `p_value` is one-sided exact McNemar, Holm-adjusted; where `against` is the
    majority, that of `driftline.tasks.majority`.
    """

    code: str
    holds: bool
    against: str | None = None
    reference: str | None = None
    n: int | None = None
    candidate_accuracy: float | None = None
    reference_accuracy: float | None = None
    p_value: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDecision:
    """Promote or reject, with every reason. `becomes_anchor`: the candidate is the best version so far."""

    promote: bool
    reasons: tuple[GateReason, ...]
    becomes_anchor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleRanges:
    """Example numbers compressed to inclusive [first, last] ranges, rising. What a version learned from."""

    fresh: tuple[tuple[int, int], ...]
    replayed: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The trainer's answers to `driftline.artefact.PROBE_TEXTS`: logits of shape (8, C), fp32, eval mode."""

    logits: tuple[tuple[float, ...], ...]


MANIFEST_FORMAT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that must be known about a version, signed as one canonical JSON document (`driftline.artefact`).

    `parts` maps a part's name (`driftline.artefact.parts`) to the sha256 of its blob in the registry. `config_sha256`
    covers the base and feed sections, without paths and ports. `evaluation` maps a hold-out set's name to the exam on
    it. `dtype`: what the update was trained in. `broken_words`: the share of words of its fresh examples that the base
    sees as unknown or letter by letter (`driftline.splitting`).
    `format` says what its document holds: 1 is what was written before there was a number; with 2 came `dtype`,
    macro-F1 and recalls, and `broken_words`; with 3 `parts`, which were three fields before.
    """

    feed: str
    version: int
    parent: int
    cycle_id: str
    parts: dict[str, str]
    base_fingerprint: str
    task: str
    labels: tuple[str, ...]
    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    max_tokens: int
    pooling: str
    config_sha256: str
    seed: int
    threads: int
    libraries: dict[str, str]
    examples: ExampleRanges
    fresh_examples: int
    replayed_examples: int
    evaluation: dict[str, Figures]
    decision: GateDecision
    probe: Probe
    created_at: datetime
    imported_from: str | None = None
    dtype: str | None = None
    broken_words: float | None = None
    format: int = MANIFEST_FORMAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """One published step of a feed's fast state: what its experts learned from one block of labels.

    `epoch` names one life of the state; a reset, other labels or another buffer begin a new one. `number` counts on
    over all epochs, from 1. `before` is the mark (`driftline.artefact.pulse`) of the pulse before it in its epoch, b""
    of the first, which changes nothing: the epoch's first state is its snapshot. `last_seq`: the number of the last
    example learned so far. `fell_back`: the watch found the mixture worse than the version's own head, so answers are
    the head's alone. `change` is what `driftline.experts` applies.
    """

    feed: str
    epoch: str
    number: int
    before: bytes
    last_seq: int
    fell_back: bool
    change: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A whole fast state, to start from: as it is after the pulse `number`, whose mark is `mark`. `sha256` names the
    blob that holds it; the other fields are as in `Pulse`."""

    feed: str
    epoch: str
    number: int
    mark: bytes
    last_seq: int
    fell_back: bool
    labels: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRecord:
    """What the registry names as live for a feed. Version 0, revision 0 is the base with the zero head.

    Every change has the next `revision`, also a rollback to a smaller version. `anchor` is the best version promoted
    so far. What was live before `version` is in the registry (`Registry.promoted_before`).
    """

    feed: str
    version: int = 0
    revision: int = 0
    anchor: int = 0
    paused: bool = False
    pause_reason: str | None = None
    changed_at: datetime | None = None
    actor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One change of the live record or of the pause, in order. `action`: promoted | rolled_back | paused | resumed."""

    entry_id: str
    feed: str
    action: str
    version: int
    from_version: int
    revision: int
    actor: str
    reason: str
    at: datetime


PublishStatus = Literal["promoted", "rejected", "duplicate", "conflict", "paused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishOutcome:
    """What the publish script did. On `conflict` and `paused` nothing was written. On `duplicate`, `recorded` tells
    what the first call did (`promoted` or `rejected`) and `version` under which number."""

    status: PublishStatus
    version: int
    revision: int
    recorded: str | None = None


LEARNER_ROLE = "learn"
ADAPT_ROLE = "adapt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    """A replica's heartbeat: what it serves for each feed, and the last refusal, if any. A learner (`LEARNER_ROLE`) and
    the fast clock (`ADAPT_ROLE`) serve nothing; they tell which feeds they cannot go on with.

    `pulses`: the fast state that each feed stands at. `fell_back`: feeds whose answers the watch made the head's.
    """

    replica: str
    role: str
    url: str | None
    serving: dict[str, int]
    revisions: dict[str, int]
    refused: dict[str, str] = field(default_factory=dict)
    pulses: dict[str, int] = field(default_factory=dict)
    fell_back: tuple[str, ...] = ()
    seen_at: datetime
    pid: int
