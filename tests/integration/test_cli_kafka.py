"""`driftline produce` and `check` against a real Kafka broker: the same bytes, the ids as keys, and plain words."""

import json
import socket
from pathlib import Path

from driftline.assembly.wiring import build_topics
from driftline.config import load_config
from driftline.topics import Partition
from tests.fixtures.cli import Driftline


def write_config(tmp_path: Path, bootstrap: str, feed: str) -> Path:
    path = tmp_path / "driftline.toml"
    path.write_text(
        f'[topics]\nkind = "kafka"\nbootstrap_servers = "{bootstrap}"\npartitions = 3\n'
        f'[feed.{feed}]\nlabels = ["bad", "good"]\n'
    )
    return path


def test_produce_keeps_bytes_and_keys_by_id(
    driftline: Driftline, tmp_path: Path, kafka_bootstrap: str, unique: str
) -> None:
    config = write_config(tmp_path, kafka_bootstrap, unique)
    lines = [b'{"id": "r-%d",  "text": "t"}' % (number % 7) for number in range(40)] + [b"not json", b"\xff\xfe"]
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"\n".join(lines) + b"\n")
    result = driftline("produce", str(events), "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["records"] == 42

    topics = build_topics(load_config(config))
    partitions = topics.partitions(unique)
    assert partitions == [0, 1, 2]
    reader = topics.open({Partition(topic=unique, partition=number): None for number in partitions})
    found = []
    while len(found) < 42 and (batch := reader.poll(100, 20.0)):
        found += batch
    reader.close()
    topics.close()
    assert sorted(record.value or b"" for record in found) == sorted(lines)
    keyed = [(record.key, record.position.partition) for record in found if record.key is not None]
    assert {key for key, _ in keyed} == {b"r-%d" % number for number in range(7)}
    assert len(set(keyed)) == 7  # one partition per id


def test_check_takes_missing_topics_as_ok(
    driftline: Driftline, tmp_path: Path, kafka_bootstrap: str, unique: str
) -> None:
    write_config(tmp_path, kafka_bootstrap, unique)
    found = json.loads(driftline("check", "--json").out)["checks"]
    topics = {finding["name"]: finding for finding in found if finding["name"].startswith("topic ")}
    assert set(topics) == {f"topic {unique}{end}" for end in ("", ".labels", ".predictions", ".dead-letters")}
    assert all(finding["ok"] and "`up` creates it" in finding["detail"] for finding in topics.values())


def test_a_broker_that_is_not_there_is_named(driftline: Driftline, tmp_path: Path, unique: str) -> None:
    with socket.socket() as taken:  # bound but not listening: refused at once
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        write_config(tmp_path, address, unique)
        (tmp_path / "events.jsonl").write_text("{}\n")
        produced = driftline("produce", "events.jsonl", "--wait-s", "0")
        assert produced.code == 1
        assert f"waiting for Kafka at {address} (" in produced.err
        assert f"0 of 1 records are on the topic {unique}; to go on: `" in produced.err
        checked = driftline("check", "--json")
    wrong = [finding for finding in json.loads(checked.out)["checks"] if not finding["ok"]]
    assert any(address in finding["detail"] for finding in wrong)
