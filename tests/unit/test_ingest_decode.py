"""The dispatcher, and whatever bytes there may be: the buffer can store what becomes of them."""

import json
import random
from pathlib import Path

import pytest

from driftline.buffer import Buffer, feed_rules
from driftline.config import Config, feed_topics, parse_config
from driftline.names import DEAD_LETTER_REASONS
from driftline.records import DeadLetter, Event, Label, Position, Prediction, RawRecord
from driftline.topics import Partition
from stream.decode import Decoder
from tests.fixtures.buffers import KEY, at

ODD = [
    "",
    " ",
    "\0",
    "\ud800",
    "é" * 300,
    "a" * 600,
    2**70,
    -1,
    0,
    1e400,
    True,
    None,
    [],
    {},
    "2026-01-01",
    "neg",
    "pos",
]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse_config({"feed": {"f": {"labels": ["neg", "pos"], "max_text_bytes": 500}}}, root=tmp_path)


@pytest.fixture
def decoder(config: Config) -> Decoder:
    return Decoder("f", config.feed["f"], feed_topics(config, "f"))


def raw(topic: str, value: bytes | None, offset: int = 0) -> RawRecord:
    position = Position(topic=topic, partition=0, offset=offset)
    return RawRecord(position=position, next_offset=offset + 1, value=value)


def test_the_topic_decides(decoder: Decoder) -> None:
    value = json.dumps(
        {
            "id": "a",
            "text": "fine",
            "label": "neg",
            "scores": {"neg": 1.0, "pos": 0.0},
            "adapter_version": 3,
            "replica": "a",
            "timestamp": "2026-01-01T00:00:00Z",
        }
    ).encode()
    assert isinstance(decoder.decode(raw("f", value)), Event)
    assert isinstance(decoder.decode(raw("f.labels", value)), Label)
    assert isinstance(decoder.decode(raw("f.predictions", value)), Prediction)
    assert isinstance(decoder.decode(raw("f", b"not json")), DeadLetter)


def test_events_and_labels_keep_their_original_bytes(decoder: Decoder) -> None:
    value = b'{"id": "a",  "text": "fine", "label": "neg"}'
    for topic in ("f", "f.labels"):
        record = decoder.decode(raw(topic, value))
        assert not isinstance(record, Prediction)
        assert record.value == value


def odd_value(rng: random.Random) -> bytes | None:
    if rng.random() < 0.1:
        return rng.choice([None, b"", b"null", b"[]", b"\xff\xfe", b"{" * 100_000, rng.randbytes(50)])
    names = ["id", "text", "label", "timestamp", "source", "scores", "adapter_version", "replica", "labeller"]
    good = {
        "id": "a",
        "text": "fine",
        "label": "neg",
        "scores": {},
        "adapter_version": 1,
        "replica": "a",
        "timestamp": 1,
    }
    odd = {name: rng.choice(ODD) for name in rng.sample(names, rng.randrange(3))}
    return json.dumps(good | odd).encode()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_is_decoded_and_stored(seed: int, decoder: Decoder, config: Config, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rules = {"f": feed_rules("f", config.feed["f"], feed_topics(config, "f"), config.ingest)}
    buffer = Buffer.open(tmp_path / "b.sqlite3", rules, KEY)
    topics = ("f", "f.labels", "f.predictions")
    raws = [raw(rng.choice(topics), odd_value(rng), offset) for offset in range(1500)]
    records = [decoder.decode(one) for one in raws]
    buffer.intake.append(records, {Partition(topic=topic, partition=0): 1500 for topic in topics}, at(0))
    buffer.intake.expire(at(10**8))
    counts = buffer.counts("f")
    assert counts.event_records == sum(one.position.topic == "f" for one in raws)
    assert counts.event_records == (
        counts.examples + counts.unlabelled + counts.pending + counts.dead_letters + counts.duplicates
    )
    assert set(counts.by_reason) <= set(DEAD_LETTER_REASONS)
    letters = {row.letter.position: row.letter.value for row in buffer.letters.newest("f", 10**6)}
    assert all(letters[one.position] == (one.value or b"") for one in raws if one.position in letters)
    buffer.close()
