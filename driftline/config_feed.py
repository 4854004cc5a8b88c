"""The config of one feed: fields, schedule, learner, gate, evaluation. Use it through `driftline.config`."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from driftline.names import TaskName
from driftline.topics.labels import LabelNames
from driftline.topics.times import TimeFormat

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]

LEAST_TO_START, MOST_TO_START = 32, 250
"""Fresh examples that start an update where `schedule.min_examples` is not set: of a young feed, of a large one."""


class Section(BaseModel):
    """What all sections share: frozen, no unknown keys, documentation under the field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FieldsConfig(Section):
    """Where an event's fields are; dots go into nested objects."""

    id: str = "id"
    """The event's id. Absent in a record: topic-partition-offset."""
    text: str = "text"
    """The text."""
    label: str = "label"
    """The label, where the event carries one."""
    timestamp: str = "timestamp"
    """When it happened."""
    timestamp_format: str = "auto"
    """auto: ISO 8601, RFC 2822, Twitter's, or seconds, milliseconds or microseconds since the epoch. Else a pattern as
    strptime takes it, such as "%d/%m/%Y %H:%M": days and months cannot be told apart by looking. Times without an
    offset are UTC. A time that cannot be read falls back to the record's own, and is counted."""
    source: str = "source"
    """Where it came from, for slices."""

    @field_validator("timestamp_format")
    @classmethod
    def _readable(cls, pattern: str) -> str:
        TimeFormat(pattern)
        return pattern

    @model_validator(mode="after")
    def _apart(self) -> "FieldsConfig":
        paths = [self.id, self.text, self.label, self.timestamp, self.source]
        for path in paths:
            if not all(path.split(".")):
                raise ValueError(f"{path!r} is no field: use a name, or names joined by single dots")
            if paths.count(path) > 1 or any(other.startswith(f"{path}.") for other in paths):
                raise ValueError(
                    f"{path!r} is used twice, or is also the way to another field: give each field its own"
                )
        return self


class ScheduleConfig(Section):
    """When an update starts."""

    every_s: Seconds | None = None
    """Seconds between ticks (15 if neither this nor cron is set)."""
    cron: str | None = None
    """A crontab line (UTC) instead of every_s, such as "*/5 * * * *"; day of week 0 is Sunday, as in crontab."""
    min_examples: Count | None = None
    """A tick starts an update only if so many fresh examples wait. Unset: a tenth of all examples that the feed has
    had, at least 32 and at most 250, so that a small feed learns early and a large one spends its time on learning
    instead of exams. Set it low (16) where a class is seen a few dozen times and then no more."""
    max_examples: Count = 2000
    """At most so many fresh examples in one update."""

    @model_validator(mode="after")
    def _one_trigger(self) -> "ScheduleConfig":
        if self.every_s is not None and self.cron is not None:
            raise ValueError("every_s and cron exclude each other: remove one")
        if self.min_examples is not None and self.max_examples < self.min_examples:
            raise ValueError("max_examples is below min_examples: raise it")
        return self

    def enough(self, examples: int) -> int:
        """How many fresh examples start an update of a feed that has had so many examples in all."""
        if self.min_examples is not None:
            return self.min_examples
        return min(self.max_examples, MOST_TO_START, max(LEAST_TO_START, examples // 10))

    @property
    def period_s(self) -> float:
        """The tick's period, for feeds without cron."""
        return self.every_s or 15.0

    @property
    def room_examples(self) -> int:
        """Fresh examples that may wait at once without fault: all that a rejected update gives back, and beside them
        the new ones that start the next."""
        return self.max_examples + (self.min_examples or min(self.max_examples, MOST_TO_START))


class LearnerConfig(Section):
    """How an update learns."""

    strategy: Literal["er", "naive"] = "er"
    """er: experience replay. naive: fresh examples only."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initialisation, order and replay draws."""
    rank: Annotated[int, Field(ge=1, le=256)] = 8
    """LoRA rank."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """LoRA scaling is alpha / rank."""
    target_modules: tuple[str, ...] = ()
    """Names of the linear layers that get LoRA; empty: the attention's query and value, as the base names them."""
    trained_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the base's layers, from the top, whose LoRA an update trains: the others stay as the parent has them and
    need no backward pass."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Constant after one warm-up at the very first steps."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    """Optimizer steps of the one linear warm-up; counted over all cycles."""
    batch_examples: Count = 32
    """Examples per step, replay included."""
    replay_ratio: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Replayed examples per fresh one."""
    reservoir: Literal["uniform", "class_balanced"] = "uniform"
    """uniform: every past example kept alike, best where subjects change. class_balanced: where classes are uneven."""
    reservoir_examples: Count = 2000
    """How many past examples the reservoir keeps."""
    recent_examples: Count = 1000
    """Length of the recent window."""
    recent_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of replay that is drawn from the recent window; the rest comes from the reservoir."""
    max_attempts: Count = 3
    """Cycles that a rejected candidate's examples stay fresh for; then they live on in replay only."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    threads: Count | None = None
    """Training threads; unset: one per core. It is part of what makes an update repeatable."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the base's matrix products are trained in. auto: bfloat16 on CUDA and on CPUs that have instructions for
    it, else float32. Weights are float32 in any case. It is part of what makes an update repeatable."""
    max_cycle_s: Seconds = 3600.0
    """A cycle that takes longer is killed and run again."""


class GateConfig(Section):
    """What a candidate must not do."""

    margin: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Loss of accuracy on any hold-out set that is tolerated."""
    significance: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Family-wise level of the one-sided tests (exact McNemar, Holm)."""
    min_holdouts: Count = 50
    """With fewer hold-outs only the sanity checks decide."""
    recent_holdouts: Count = 200
    """Size of the recent hold-out set."""


class FastConfig(Section):
    """The fast clock: experts that follow every label within seconds, mixed with the version's own head."""

    enabled: bool = True
    """Learn from each label as it comes, and mix what was learned into the answers."""
    experts: Annotated[tuple[Literal["head", "ridge", "words", "chars", "names"], ...], Field(min_length=1)] = (
        "head",
        "ridge",
        "words",
        "chars",
        "names",
    )
    """What is mixed. head: the version's own. ridge: on the features that serving computes anyway. words, chars: hashed
    n-grams. names: how a text resembles the label's name, for classes without examples."""
    block_examples: Annotated[int, Field(ge=1, le=256)] = 32
    """At most so many labels are learned at once, and published as one pulse."""
    block_s: Annotated[float, Field(ge=0, le=60)] = 0.5
    """How long labels wait for others to be learned with."""
    budget_bytes: Annotated[int, Field(ge=1 << 16)] = 32 << 20
    """What the weights of words, and of chars, may take each, whatever the number of classes. Replicas hold them twice,
    so that a pulse holds up no answer."""
    max_pulse_bytes: Annotated[int, Field(ge=1 << 12)] = 4 << 20
    """A block that changes more is halved; where one text alone does, a snapshot goes in the pulse's place."""
    snapshot_pulses: Annotated[int, Field(ge=1, le=4096)] = 64
    """A whole state is kept after so many pulses, for replicas that start and for the fast clock itself."""
    patience: Annotated[float, Field(ge=1000)] = 1e6
    """Labels between false alarms of the watch, on average at least: it lets answers fall back to the version's head
    where the mixture is shown to be worse, or labels to have come loose from the texts."""


class EvaluationConfig(Section):
    """What is kept to measure with."""

    segment_examples: Count = 1000
    """Examples of the stream per segment."""
    holdout_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of texts that nothing trains on. It cannot change once the buffer holds examples of the feed."""
    max_segments: Annotated[int, Field(ge=2, le=64)] = 16
    """Segments kept; beyond, neighbours are merged in pairs."""
    segment_holdouts: Count = 200
    """Hold-outs kept per segment."""


class FeedServeConfig(Section):
    """How a feed is answered."""

    score: bool = True
    """Answer every event of the events topic on the predictions topic. false: the feed is used over HTTP only."""
    collect: bool = False
    """Keep inputs of /predict that have an id: their prediction and event go to the topics."""
    features: bool = True
    """Send each text's feature with its prediction (1 kB for 384 numbers) where the fast clock is enabled. false: the
    fast clock learns from words and characters alone, since ridge needs features."""


class FeedConfig(Section):
    """One stream with its own labels, schedule and adapters."""

    task: TaskName = "classification"
    """What the model learns to do."""
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    """The classes, in the order of the head's rows."""
    retired_labels: tuple[str, ...] = ()
    """Classes that were in `labels` and are given up: their examples are set aside from learning, counted. A class that
    is only left out of `labels` is refused, since that is how a typing mistake looks, too."""
    label_map: dict[str, str] = Field(default_factory=dict)
    """What labels are called where they come from = what they are called here, such as "1" = "negative". Also how a
    class is renamed: its old name = its new one."""
    fold_labels: bool = False
    """Take labels without regard to case and to blanks around or inside them."""
    format: Literal["json", "text"] = "json"
    """json: an object per record. text: the record is the text itself."""
    events_topic: str | None = None
    """Default: the feed's name."""
    labels_topic: str | None = None
    """Default: NAME.labels."""
    predictions_topic: str | None = None
    """Default: NAME.predictions. Each feed needs its own, and so does a feed under a new name: answers name no feed, so
    those of the old name's versions would be scored as its own."""
    dead_letters_topic: str | None = None
    """Default: NAME.dead-letters."""
    label_wait_s: Seconds = 7 * 86400.0
    """An event still unlabelled after this is counted as unlabelled and let go."""
    event_wait_s: Seconds = 86400.0
    """A label (or prediction) whose event has not come after this is dead-lettered (or counted)."""
    prediction_wait_s: Seconds = 60.0
    """How long a labelled example waits for the prediction served for it before it may be learned."""
    max_text_bytes: Count = 65_536
    """Longer texts are dead-lettered."""
    fields: FieldsConfig = FieldsConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    learner: LearnerConfig = LearnerConfig()
    gate: GateConfig = GateConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    fast: FastConfig = FastConfig()
    serve: FeedServeConfig = FeedServeConfig()

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) != len(labels) or not all(labels):
            raise ValueError("labels must be distinct and not empty")
        return labels

    @model_validator(mode="after")
    def _labels_apart(self) -> "FeedConfig":
        if both := sorted({*self.labels} & {*self.retired_labels}):
            raise ValueError(f"{both[0]!r} is in labels and in retired_labels: remove it from one of them")
        if mapped := sorted({*self.label_map} & {*self.labels, *self.retired_labels}):
            raise ValueError(f"label_map: {mapped[0]!r} is a label of the feed itself: remove that line")
        known = {*self.labels, *self.retired_labels}
        if strange := sorted(name for name in self.label_map.values() if name not in known):
            raise ValueError(f"label_map: {strange[0]!r} is not among the feed's labels: write one of them")
        LabelNames((*self.labels, *self.retired_labels), self.label_map, fold=self.fold_labels)
        return self

    @model_validator(mode="after")
    def _collects_json(self) -> "FeedConfig":
        if self.serve.collect and self.format == "text":
            raise ValueError('serve.collect needs format = "json": plain text has no place for an id')
        return self
