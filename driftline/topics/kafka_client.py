"""Building kafka-python's clients from the config, and putting its errors into our tree.

Guards: options of `[topics.client]` reach each client that knows them; those that the guarantees rest on cannot be
changed; a client that cannot be built leaves no thread behind; secrets never stand in a message.
"""

import contextlib
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

from driftline.config import TopicsConfig, resolve_secret
from driftline.errors import ConfigError, DriftlineError, PositionLost, TopicError, TopicUnavailable

Client = TypeVar("Client", KafkaAdminClient, KafkaConsumer, KafkaProducer)

BOOTSTRAP_S = 10.0
DEFAULTS: dict[str, Any] = {
    "client_id": "driftline",
    "bootstrap_timeout_ms": int(BOOTSTRAP_S * 1000),
    "request_timeout_ms": 10_000,
    "reconnect_backoff_max_ms": 2_000,  # after an outage go on within seconds, not within half a minute
    "metadata_max_age_ms": 60_000,
    "fetch_max_bytes": 16 << 20,
    "max_partition_fetch_bytes": 8 << 20,
    "receive_message_max_bytes": (1 << 31) - 1,  # else a batch that the broker let through is refused for ever
    "isolation_level": "read_committed",
    "max_block_ms": 10_000,
    "delivery_timeout_ms": 20_000,
    "linger_ms": 5,
    "batch_size": 256 << 10,
    "max_request_size": 32 << 20,
}
RESERVED = {
    "bootstrap_servers": "set topics.bootstrap_servers",
    "enable_auto_commit": "Driftline stores positions itself",
    "auto_offset_reset": "Driftline stores positions itself",
    "group_id": "Driftline names its groups itself",
    "key_deserializer": "Driftline decodes records itself",
    "value_deserializer": "Driftline decodes records itself",
    "key_serializer": "Driftline encodes records itself",
    "value_serializer": "Driftline encodes records itself",
    "transactional_id": "Driftline writes no transactions",
    "enable_idempotence": "the order of records rests on it",
    "acks": "an append is only done when all in-sync replicas have it",
    "allow_auto_create_topics": "Driftline creates its topics itself",
    "kafka_client": "it is internal",
}
_CHOICES = {
    "security_protocol": ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    "sasl_mechanism": ("PLAIN", "GSSAPI", "OAUTHBEARER", "SCRAM-SHA-256", "SCRAM-SHA-512"),
    "isolation_level": ("read_committed", "read_uncommitted"),
    "compression_type": ("gzip", "snappy", "lz4", "zstd"),
}
_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_crlfile")
_REBALANCED = (
    kafka_errors.CommitFailedError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.UnknownMemberIdError,
)
_POSITION_LOST = (
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.LogTruncationError,
    kafka_errors.NoOffsetForPartitionError,
)
_REFUSED = (kafka_errors.AuthorizationError, kafka_errors.SaslAuthenticationFailedError)
_PASSES = (
    kafka_errors.RetriableError,
    kafka_errors.UnknownBrokerIdError,
    kafka_errors.BrokerNotAvailableError,
    *_REBALANCED,
)


def client_options(section: TopicsConfig) -> dict[str, Any]:
    """`[topics.client]` checked, over our defaults, secrets resolved. ConfigError names the key and the remedy."""
    options = dict(DEFAULTS)
    for name, value in section.client.items():
        options[name] = _checked(name, resolve_secret(value) if isinstance(value, str) else value)
    options["bootstrap_servers"] = _servers(section.bootstrap_servers)
    return options


def build(kind: type[Client], options: dict[str, Any], **ours: Any) -> Client:
    """A client of this kind with the options that it knows. TopicUnavailable if no broker answers within 10 s."""
    made: list[KafkaNetClient] = []

    def keep(**configs: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**configs))
        return made[-1]

    known = {name: value for name, value in options.items() if name in kind.DEFAULT_CONFIG}
    try:
        return kind(**known, **ours, kafka_client=keep)
    except kafka_errors.KafkaError as error:
        for client in made:  # its IO thread would live on
            client.close()
        raise _no_client(error, options) from error


@contextlib.contextmanager
def our_errors(what: str) -> Iterator[None]:
    """kafka-python's errors → ours. `what` names the operation and the topic."""
    try:
        yield
    except kafka_errors.KafkaError as error:
        raise translate(error, what) from error


def translate(error: kafka_errors.KafkaError, what: str) -> DriftlineError:
    """TopicUnavailable where the same call may succeed later; else TopicError or PositionLost with the remedy."""
    if isinstance(error, _POSITION_LOST):
        return PositionLost(
            f"{what}: the stored position is no longer on the topic ({error}): retention deleted it, or the log was "
            "cut. Start with an empty buffer to read from the earliest record there is"
        )
    if isinstance(error, _REBALANCED):
        return TopicUnavailable(f"{what}: the group rebalanced; what was not committed is delivered again ({error})")
    if isinstance(error, _PASSES):
        return TopicUnavailable(f"{what}: {error}: nothing is lost, it can be tried again")
    if isinstance(error, _REFUSED):
        return TopicError(f"{what}: refused by Kafka ({error}): check the credentials in [topics.client] and the ACLs")
    if isinstance(error, kafka_errors.MessageSizeTooLargeError | kafka_errors.RecordListTooLargeError):
        return TopicError(f"{what}: a record is larger than the topic allows: raise its max.message.bytes")
    if isinstance(error, kafka_errors.InvalidReplicationFactorError):
        return TopicError(f"{what}: {error}: set topics.replication_factor to at most the number of brokers")
    return TopicError(f"{what}: {error}")


def is_passing(error: kafka_errors.KafkaError) -> bool:
    """Whether the same call may succeed later without anybody changing anything."""
    return isinstance(error, _PASSES)


def _no_client(error: kafka_errors.KafkaError, options: dict[str, Any]) -> DriftlineError:
    if isinstance(error, kafka_errors.KafkaConfigurationError):
        return ConfigError(f"topics.client: {error}")
    if isinstance(error, kafka_errors.KafkaTimeoutError):
        servers = ", ".join(options["bootstrap_servers"])
        return TopicUnavailable(
            f"no Kafka broker answers at {servers}: is it running, and do topics.bootstrap_servers and the security "
            "options and credentials of [topics.client] fit it?"
        )
    return translate(error, "connecting to Kafka")


def _checked(name: str, value: Any) -> Any:
    if name in RESERVED:
        raise ConfigError(f"topics.client.{name}: cannot be set here: {RESERVED[name]}")
    known = {*KafkaConsumer.DEFAULT_CONFIG, *KafkaProducer.DEFAULT_CONFIG, *KafkaAdminClient.DEFAULT_CONFIG}
    if name not in known:
        near = difflib.get_close_matches(name, sorted(known), n=1)
        raise ConfigError(f"topics.client.{name}: not an option of kafka-python" + _did_you_mean(near))
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ConfigError(f"topics.client.{name} = {value!r}: use one of {', '.join(_CHOICES[name])}")
    if name in _FILES and not Path(str(value)).is_file():
        raise ConfigError(f"topics.client.{name} = {value!r}: no such file")
    return value


def _did_you_mean(near: list[str]) -> str:
    return f"; did you mean {near[0]!r}?" if near else ""


def _servers(text: str) -> list[str]:
    servers = [server.strip() for server in text.split(",") if server.strip()]
    for server in servers:
        port = server.rpartition(":")[2] if ":" in server else "9092"
        if not port.rstrip("]").isdigit() and not server.endswith("]"):
            raise ConfigError(f"topics.bootstrap_servers = {text!r}: use host:port, comma-separated")
    if not servers:
        raise ConfigError("topics.bootstrap_servers is empty: name a broker as host:port")
    return servers
