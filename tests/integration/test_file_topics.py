"""What only topic files have: torn lines, many writing processes, files that people touch."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from driftline.clock import Deadline
from driftline.errors import PositionLost, TopicError, TopicRecreated
from driftline.records import RawRecord
from driftline.topics import Outgoing, Partition
from driftline.topics.ends import ends
from driftline.topics.files import FileTopics

WITHIN_S = 30.0
START: dict[Partition, int | None] = {Partition(topic="t", partition=0): None}

WRITER = """
import sys
from pathlib import Path
from driftline.topics import Outgoing
from driftline.topics.files import FileTopics
topics = FileTopics(Path(sys.argv[1]))
for n in range(int(sys.argv[3])):
    topics.append("t", [Outgoing(value=f"{sys.argv[2]}-{n} {'x' * 5_000}".encode()) for _ in range(2)])
    print(n, flush=True)
"""
FILLER = """
import resource, signal, sys
from pathlib import Path
from driftline.topics import Outgoing
from driftline.topics.files import FileTopics
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
FileTopics(Path(sys.argv[1])).append("t", [Outgoing(value=b"y" * 600), Outgoing(value=b"z" * 600)])
"""


@pytest.fixture
def topics(tmp_path: Path) -> FileTopics:
    return FileTopics(tmp_path)


def outgoing(*values: str) -> list[Outgoing]:
    return [Outgoing(value=value.encode()) for value in values]


def all_of(topics: FileTopics, positions: dict[Partition, int | None] = START) -> list[RawRecord]:
    reader = topics.open(positions)
    records: list[RawRecord] = []
    while more := reader.poll(1_000, 0.0):
        records += more
    reader.close()
    return records


def writer(folder: Path, name: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), name, str(count)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )


def test_a_position_is_the_byte_where_the_line_starts(topics: FileTopics, tmp_path: Path) -> None:
    topics.append("t", outgoing("ä", "", "abc"))
    assert (tmp_path / "t" / "0.jsonl").read_bytes() == "ä\n\nabc\n".encode()
    assert [(r.position.offset, r.next_offset) for r in all_of(topics)] == [(0, 3), (3, 4), (4, 8)]


def test_line_ends_in_a_value_become_spaces(topics: FileTopics) -> None:
    topics.append("t", [Outgoing(value=b'{\n  "id": 1\n}')])
    assert [json.loads(record.value or b"") for record in all_of(topics)] == [{"id": 1}]


def test_an_unfinished_line_waits_and_a_torn_one_stands_alone(topics: FileTopics, tmp_path: Path) -> None:
    topics.append("t", outgoing("whole"))
    reader = topics.open(START)
    assert [record.value for record in reader.poll(10, 1.0)] == [b"whole"]
    with (tmp_path / "t" / "0.jsonl").open("ab") as file:
        file.write(b'{"id": "to')
        file.flush()
        assert reader.poll(10, 0.05) == []
        file.write(b'rn"')
        file.flush()
        assert reader.poll(10, 0.05) == []
    topics.append("t", outgoing("next"))
    assert [record.value for record in reader.poll(10, 1.0)] == [b'{"id": "torn"', b"next"]
    reader.close()


@pytest.mark.parametrize("length", [1, 3 << 20])
def test_an_unfinished_line_is_no_lag(topics: FileTopics, tmp_path: Path, length: int) -> None:
    """Else nobody who waits for the end of the topic, or takes its end for a place to read to, would ever get there."""
    topics.append("t", outgoing("whole"))
    (place,) = START
    data = tmp_path / "t" / "0.jsonl"
    with data.open("ab") as file:
        file.write(b"x" * length)
    reader = topics.open(START)
    assert (reader.lag(), ends(topics, ["t"])) == ({place: 6}, {place: 6})
    assert [record.value for record in reader.poll(10, 1.0)] == [b"whole"]
    assert reader.lag() == {place: 0}
    with data.open("ab") as file:
        file.write(b"x" * length)
    assert (reader.poll(10, 0.0), reader.lag()) == ([], {place: 0})
    topics.append("t", outgoing("next"))  # closes the line off
    assert reader.lag() == {place: 2 * length + 1 + 5}
    assert [len(record.value or b"") for record in reader.poll(10, 1.0)] == [2 * length, 4]
    assert reader.lag() == {place: 0}
    reader.close()


def test_many_processes_append_without_mixing_lines(topics: FileTopics, tmp_path: Path) -> None:
    writers = [writer(tmp_path, name, 40) for name in "abc"]
    for process in writers:
        process.communicate(timeout=WITHIN_S)
    values = [(record.value or b"").decode().split()[0] for record in all_of(topics)]
    for name in "abc":
        mine = [value for value in values if value.startswith(name)]
        assert mine == [f"{name}-{n}" for n in range(40) for _ in range(2)]


def test_what_was_acknowledged_survives_kill_9(topics: FileTopics, tmp_path: Path) -> None:
    for life in range(5):
        process = writer(tmp_path, f"life{life}", 100_000)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(3 + 7 * life)][-1]
        process.send_signal(signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, process.communicate()[0].split())])
        topics.append("t", outgoing(f"after{life} {'x' * 5_000}"))
        values = [(record.value or b"").decode() for record in all_of(topics)]
        whole = {value.split()[0] for value in values if value.endswith("x" * 5_000)}
        assert {f"life{life}-{n}" for n in range(acknowledged + 1)} <= whole
        assert f"after{life}" in whole
        assert len([value for value in values if not value.endswith("x" * 5_000)]) <= life + 1


def test_a_full_disk_leaves_a_prefix_that_the_next_append_closes_off(topics: FileTopics, tmp_path: Path) -> None:
    failed = subprocess.run([sys.executable, "-c", FILLER, str(tmp_path)], stderr=subprocess.PIPE, check=False)
    assert failed.returncode != 0
    assert b"File too large" in failed.stderr
    topics.append("t", outgoing("next"))
    assert [record.value for record in all_of(topics)] == [b"y" * 600, b"z" * 399, b"next"]


def test_polling_does_not_read_the_file_again(topics: FileTopics) -> None:
    topics.append("t", outgoing("x" * 5_000_000))
    reader = topics.open(START)
    assert len(reader.poll(10, 0.0)) == 1
    opened, before = len(os.listdir("/proc/self/fd")), bytes_read()
    for _ in range(200):
        assert reader.poll(10, 0.0) == []
    assert len(os.listdir("/proc/self/fd")) == opened
    assert bytes_read() - before < 100_000
    reader.close()


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def cut(path: Path) -> None:
    os.truncate(path, 1)


def replace(path: Path) -> None:
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").replace(path)


@pytest.mark.parametrize(("what", "word"), [(cut, "cut"), (Path.unlink, "deleted"), (replace, "replaced")])
def test_a_file_that_people_touched_stops_its_reader(
    topics: FileTopics, tmp_path: Path, what: Callable[[Path], None], word: str
) -> None:
    topics.append("t", outgoing("a", "b", "c"))
    reader = topics.open(START)
    assert len(reader.poll(10, 1.0)) == 3
    what(tmp_path / "t" / "0.jsonl")
    with pytest.raises(TopicRecreated, match=word):
        reader.poll(10, 1.0)
    reader.close()


@pytest.mark.parametrize("offset", [1, 4, 5, 99])
def test_a_position_that_starts_no_line_is_lost(topics: FileTopics, offset: int) -> None:
    topics.append("t", outgoing("abc", "d"))  # lines start at 0 and 4, the end is 6
    reader = topics.open({Partition(topic="t", partition=0): offset})
    if offset == 4:
        assert [record.value for record in reader.poll(10, 1.0)] == [b"d"]
    else:
        with pytest.raises(PositionLost, match=f"byte {offset}"):
            reader.poll(10, 1.0)
    reader.close()


def test_a_stored_position_of_a_file_that_is_gone_stops(topics: FileTopics, tmp_path: Path) -> None:
    topics.append("t", outgoing("abc"))
    (tmp_path / "t" / "0.jsonl").unlink()
    reader = topics.open({Partition(topic="t", partition=0): 4})
    with pytest.raises(TopicRecreated, match="gone"):
        reader.poll(10, 1.0)
    reader.close()


def test_an_idle_topic_is_looked_at_also_where_the_clock_lets_nobody_sleep(
    topics: FileTopics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libfaketime, 400 days back: `time.sleep` raises, since the time to wake up is before the machine was started."""

    def refuses(_: float) -> None:
        raise OSError(22, "Invalid argument")

    topics.ensure(["t"])
    reader = topics.open({Partition(topic="t", partition=0): None})
    monkeypatch.setattr(time, "sleep", refuses)
    assert reader.poll(10, 0.05) == []
    topics.append("t", [Outgoing(value=b"x")])
    assert [record.value for record in reader.poll(10, 0.05)] == [b"x"]
    reader.close()


def test_a_file_put_there_by_hand_is_a_topic(topics: FileTopics, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "0.jsonl").write_bytes(b"a\r\nb\n")
    assert topics.exists("t")
    assert topics.identity("t") == topics.identity("t")
    assert [record.value for record in all_of(topics)] == [b"a\r", b"b"]


def test_commits_to_a_topic_that_was_made_anew_do_not_count(topics: FileTopics, tmp_path: Path) -> None:
    partition = Partition(topic="t", partition=0)
    topics.append("t", outgoing("a"))
    reader = topics.open(START, commit_as="g")
    reader.commit({partition: 2})
    assert topics.committed("g", [partition]) == {partition: 2}
    (tmp_path / "t" / "0.jsonl").unlink()
    topics.ensure(["t"])
    assert topics.committed("g", [partition]) == {}
    reader.close()


def test_the_groups_lock_dies_with_its_process(topics: FileTopics, tmp_path: Path) -> None:
    topics.append("t", outgoing("a"))
    program = (
        "import sys; from pathlib import Path; from driftline.topics.files import FileTopics; "
        "FileTopics(Path(sys.argv[1])).open_group(['t'], 'g').poll(1, 0.0); print('mine', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "mine\n"
    waiting = topics.open_group(["t"], "g")
    assert waiting.poll(1, 0.1) == []
    holder.kill()
    holder.communicate()
    deadline = Deadline(WITHIN_S)
    records = []
    while not records and not deadline.expired():
        records = waiting.poll(1, 0.1)
    assert [record.value for record in records] == [b"a"]
    waiting.close()


@pytest.mark.parametrize("name", ["", ".", "..", "../t", "a/b", "ä", "x" * 250])
def test_names_that_are_no_topics(topics: FileTopics, name: str) -> None:
    with pytest.raises(TopicError, match="use letters"):
        topics.append(name, outgoing("a"))


def test_damaged_side_files_say_what_to_do(topics: FileTopics, tmp_path: Path) -> None:
    partition = Partition(topic="t", partition=0)
    topics.append("t", outgoing("a"))
    topics.open(START, commit_as="g").commit({partition: 2})
    (tmp_path / "t" / ".groups" / "g.json").write_text("{")
    with pytest.raises(TopicError, match="remove it"):
        topics.committed("g", [partition])
    (tmp_path / "t" / ".topic.json").write_text("[]")
    with pytest.raises(TopicError, match="restore it"):
        topics.identity("t")


LONG = 96 << 20


@pytest.mark.parametrize("torn", [False, True])
def test_a_line_longer_than_memory_should_hold_is_passed_over_in_pieces(tmp_path: Path, torn: bool) -> None:
    """Also a last line that is not whole yet: nothing is delivered until it is."""
    topics = FileTopics(tmp_path, max_record_bytes=1 << 20)
    topics.append("t", [Outgoing(value=b"before")])
    data = tmp_path / "t" / "0.jsonl"
    os.truncate(data, 7 + LONG)  # a hole reads as zeros and costs no disk
    if not torn:
        topics.append("t", [Outgoing(value=b"after")])  # closes the line off
    reader = topics.open({Partition(topic="t", partition=0): None})
    tracemalloc.start()
    try:
        records = [*reader.poll(10, 0.0), *reader.poll(10, 0.0)]
        if torn:
            assert [one.value for one in records] == [b"before"]
            topics.append("t", [Outgoing(value=b"after")])
            records += [*reader.poll(10, 0.0), *reader.poll(10, 0.0)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        reader.close()
    assert [(one.value, one.skipped_bytes) for one in records] == [(b"before", None), (None, LONG), (b"after", None)]
    assert records[1].next_offset == records[2].position.offset == 7 + LONG + 1
    assert peak < LONG / 8
