"""Topics as folders of append-only JSON lines, for one machine without a broker.

    FOLDER/TOPIC/0.jsonl            one record a line; a position is the byte offset of its first byte
    FOLDER/TOPIC/.topic.json        the topic's identity, made anew whenever 0.jsonl is
    FOLDER/TOPIC/.groups/GROUP.json where a group goes on reading

Guards: records are on disk when `append` returns; several processes append at once (flock) without mixing lines; a line
that a crash tore is closed off by the next append and comes out as one undecodable record, never glued to another.
Line ends inside a value become spaces, which neither JSON nor a cleaned text notices.

Covered: kill -9 and power loss at any instant, deletion, replacement and cutting of the file under a running reader.
Not covered: rewriting the file in place, network file systems without flock, keys and record times (not stored).
"""

import base64
import contextlib
import errno
import fcntl
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from driftline.config import TOPIC_NAME
from driftline.errors import TopicError, TopicUnavailable
from driftline.records import DeadLetter
from driftline.topics import MAX_RECORD_BYTES, Outgoing, Partition, Reader
from driftline.topics.file_reader import CommitFunction, FileGroupReader, FileReader, Log

__all__ = ["FileTopics"]

_TEMPORARY = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOLCK}


class FileTopics:
    """`driftline.topics.Topics` on a folder. Safe for many processes and threads; readers are single-threaded.

    Delivery: `append` returns after fsync. Ordering: of the calls, as they got the lock. Atomicity: a crash or a full
    disk may leave a prefix of the records. Errors: TopicUnavailable (disk full, too many open files), TopicError.
    """

    def __init__(self, folder: Path, *, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        """`max_record_bytes`: of a larger record only place and size are delivered."""
        self._folder = folder
        self._max_record_bytes = max_record_bytes

    def ensure(self, topics: Iterable[str]) -> None:
        """Create what is missing, each with a fresh identity."""
        for topic in topics:
            with _os_errors(topic):
                _create(self._topic_folder(topic))

    def exists(self, topic: str) -> bool:
        return self._data(topic).is_file()

    def identity(self, topic: str) -> str:
        """The id written when the file was made. TopicError if there is no such topic."""
        if not self.exists(topic):
            raise TopicError(f"topic {topic!r} does not exist below {self._folder}")
        with _os_errors(topic):
            return _identity(self._topic_folder(topic))

    def partitions(self, topic: str) -> list[int]:
        return [0] if self.exists(topic) else []

    def append(self, topic: str, records: Sequence[Outgoing]) -> None:
        """Append and fsync; creates the topic where it is missing."""
        if not records:
            return
        data = b"".join(record.value.replace(b"\n", b" ") + b"\n" for record in records)
        with _os_errors(topic):
            _create(self._topic_folder(topic))
            with _locked(self._data(topic)) as file:
                _write(file, data if _ends_whole(file) else b"\n" + data)
                os.fsync(file)

    def append_dead_letters(self, topic: str, letters: Sequence[DeadLetter]) -> None:
        """One JSON object a line: feed, reason, detail, position ("topic-partition-offset"), value_base64."""
        self.append(topic, [Outgoing(value=_letter(letter)) for letter in letters])

    def committed(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Commits to a topic that was made anew since don't count."""
        found = {}
        for partition in partitions:
            commit = _read_commit(self._commit_file(partition.topic, group))
            if (
                commit is not None
                and self.exists(partition.topic)
                and commit.identity == self.identity(partition.topic)
            ):
                found[partition] = commit.offset
        return found

    def open(self, positions: Mapping[Partition, int | None], *, commit_as: str | None = None) -> Reader:
        """Each from its byte offset. A file that does not exist yet is read from its start once it does."""
        logs = [self._log(p.topic, offset or 0) for p, offset in sorted(positions.items())]
        return FileReader(logs, lambda committed: self._commit_lightly(commit_as, committed))

    def open_group(self, topics: Iterable[str], group: str) -> Reader:
        """One reader of a group at a time has a topic; the others wait until it closes or dies."""
        return FileGroupReader(sorted(set(topics)), lambda topic: self._claim(topic, group), self._committer(group))

    def close(self) -> None:
        """Nothing is kept open between calls."""

    def _topic_folder(self, topic: str) -> Path:
        if not TOPIC_NAME.fullmatch(topic) or topic in (".", ".."):
            raise TopicError(f"topic name {topic!r}: use letters, digits, '.', '_' and '-'")
        return self._folder / topic

    def _data(self, topic: str) -> Path:
        return self._topic_folder(topic) / "0.jsonl"

    def _log(self, topic: str, offset: int) -> Log:
        return Log(self._data(topic), topic, offset, self._max_record_bytes)

    def _commit_file(self, topic: str, group: str) -> Path:
        if not TOPIC_NAME.fullmatch(group):
            raise TopicError(f"group name {group!r}: use letters, digits, '.', '_' and '-'")
        return self._topic_folder(topic) / ".groups" / f"{group}.json"

    def _claim(self, topic: str, group: str) -> tuple[int, Log] | None:
        """The group's lock on the topic (a file descriptor) and its log at the committed offset; None if taken."""
        with _os_errors(topic):
            lock = _try_lock(self._commit_file(topic, group).with_suffix(".lock"))
        if lock is None:
            return None
        partition = Partition(topic=topic, partition=0)
        try:
            return lock, self._log(topic, self.committed(group, [partition]).get(partition, 0))
        except TopicError:
            os.close(lock)
            raise

    def _committer(self, group: str) -> CommitFunction:
        return lambda positions: self._commit(group, positions, durable=True)

    def _commit_lightly(self, group: str | None, positions: Mapping[Partition, int]) -> None:
        if group is not None:
            with contextlib.suppress(OSError, TopicError):
                self._commit(group, positions, durable=False)

    def _commit(self, group: str, positions: Mapping[Partition, int], *, durable: bool) -> None:
        for partition, offset in positions.items():
            path = self._commit_file(partition.topic, group)
            commit = Commit(offset=offset, identity=self.identity(partition.topic))
            with _os_errors(partition.topic):
                path.parent.mkdir(parents=True, exist_ok=True)
                _replace(path, msgspec.json.encode(commit), durable=durable)


class Commit(msgspec.Struct, frozen=True):
    """What `.groups/GROUP.json` holds."""

    offset: int
    identity: str


def _read_commit(path: Path) -> Commit | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Commit)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise TopicError(
            f"{path} is damaged ({error}): remove it, and the group reads the topic from its start"
        ) from None


def _create(folder: Path) -> None:
    """The identity first, then the data file, so that no data file goes by an older one's identity."""
    data = folder / "0.jsonl"
    if data.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        if not data.exists():
            _write_identity(folder)
            os.close(os.open(data, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            _sync_folder(folder)
            _sync_folder(folder.parent)


def _identity(folder: Path) -> str:
    path = folder / ".topic.json"
    if not path.exists():  # somebody put 0.jsonl there by hand
        with _locked(folder / ".lock"):
            if not path.exists():
                _write_identity(folder)
    try:
        return str(msgspec.json.decode(path.read_bytes())["id"])
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise TopicError(f"{path} is damaged ({error}): restore it, or remove the topic's folder") from None


def _write_identity(folder: Path) -> None:
    _replace(folder / ".topic.json", msgspec.json.encode({"id": str(uuid.uuid4())}), durable=True)


def _replace(path: Path, content: bytes, *, durable: bool) -> None:
    fresh = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    fresh.replace(path)
    if durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The file's descriptor under an exclusive flock; opened again where it was replaced while we waited."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if _is_current(file, path):
                yield file
                return
        finally:
            os.close(file)


def _try_lock(path: Path) -> int | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _is_current(file: int, path: Path) -> bool:
    try:
        return os.stat(path).st_ino == os.fstat(file).st_ino
    except FileNotFoundError:
        return False


def _ends_whole(file: int) -> bool:
    size = os.fstat(file).st_size
    return size == 0 or os.pread(file, 1, size - 1) == b"\n"


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _letter(letter: DeadLetter) -> bytes:
    return msgspec.json.encode(
        {
            "feed": letter.feed,
            "reason": letter.reason,
            "detail": letter.detail,
            "position": str(letter.position),
            "value_base64": base64.b64encode(letter.value).decode("ascii"),
        }
    )


@contextlib.contextmanager
def _os_errors(topic: str) -> Iterator[None]:
    """OSError → our tree: what passes by itself or by making room is retriable."""
    try:
        yield
    except OSError as error:
        if error.errno in _TEMPORARY:
            raise TopicUnavailable(f"topic {topic!r}: {error}: make room, then it goes on by itself") from error
        raise TopicError(f"topic {topic!r}: {error}: check the folder and its permissions") from error
