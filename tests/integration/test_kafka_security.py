"""SASL options reach every client: a real broker with a password, the right one, a wrong one, and none."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from driftline.config import TopicsConfig
from driftline.errors import TopicError, TopicUnavailable
from driftline.topics import Outgoing, Partition
from driftline.topics.kafka import KafkaTopics
from tests.fixtures.kafka import BrokerProcess

LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
PROPERTIES = {
    "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": (
        f'{LOGIN} username="broker" password="b" user_broker="b" user_driftline="secret";'
    ),
}


@pytest.fixture(scope="module")
def guarded_broker(
    kafka_jars: None,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path_factory.mktemp("kafka-sasl"), PROPERTIES)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def connect(guarded_broker: BrokerProcess) -> Iterator[Callable[..., KafkaTopics]]:
    made: list[KafkaTopics] = []

    def with_options(**client: Any) -> KafkaTopics:
        client = {"bootstrap_timeout_ms": 3_000, **client}
        made.append(KafkaTopics(TopicsConfig(kind="kafka", bootstrap_servers=guarded_broker.bootstrap, client=client)))
        return made[-1]

    yield with_options
    for topics in made:
        topics.close()


SASL = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "driftline"}


def test_a_password_from_the_environment_opens_everything(
    connect: Callable[..., KafkaTopics], unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_TEST_PASSWORD", "secret")
    topics = connect(**SASL, sasl_plain_password="env:DRIFTLINE_TEST_PASSWORD")
    topics.append(unique, [Outgoing(value=b"v")])
    reader = topics.open({Partition(topic=unique, partition=0): None}, commit_as=unique)
    assert [record.value for record in reader.poll(10, 30.0)] == [b"v"]
    reader.close()
    member = topics.open_group([unique], unique)
    assert [record.value for record in member.poll(10, 30.0)] == [b"v"]
    member.close()


def test_a_wrong_password_is_refused_with_the_remedy_and_without_the_password(
    connect: Callable[..., KafkaTopics], unique: str
) -> None:
    with pytest.raises(TopicError, match=r"\[topics\.client\]") as raised:
        connect(**SASL, sasl_plain_password="wrong-one").ensure([unique])
    assert "wrong-one" not in str(raised.value)


def test_without_credentials_the_message_names_the_options(connect: Callable[..., KafkaTopics], unique: str) -> None:
    with pytest.raises(TopicUnavailable, match=r"credentials of \[topics\.client\]"):
        connect().ensure([unique])
