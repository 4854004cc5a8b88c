"""Reading topic files: from a byte offset on, whole lines only, without opening or reading anything twice.

Guards: a record is on disk before it is delivered (fdatasync), so that a position stored elsewhere can never lie beyond
the file after a power loss. A line of any length costs bounded memory: beyond `max_record_bytes` its bytes are passed
over as they are read, and the record comes without them. A file that shrank, vanished or was replaced under the reader
stops it with TopicRecreated.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path

from driftline.clock import Deadline, sleep
from driftline.errors import PositionLost, TopicError, TopicRecreated
from driftline.records import Position, RawRecord
from driftline.topics import Partition

CHUNK_BYTES = 1 << 20
LOOK_AGAIN_S = 0.01

CommitFunction = Callable[[Mapping[Partition, int]], None]


class Log:
    """One topic file as it is being read. `offset` is where the next record to deliver starts."""

    def __init__(self, path: Path, topic: str, offset: int, max_record_bytes: int) -> None:
        self.topic = topic
        self.offset = offset
        self._max_record_bytes = max_record_bytes
        self._path = path
        self._read_to = offset
        self._file: int | None = None
        self._tail = bytearray()  # an unfinished line
        self._passed_over = 0  # bytes of an unfinished line that is too large, from its start on
        self._records: deque[RawRecord] = deque()

    def take(self, limit: int) -> list[RawRecord]:
        """Up to `limit` records, [] where there is none. Reads on until there is one, or the file ends."""
        while not self._records and self._read_chunk():
            pass
        records = [self._records.popleft() for _ in range(min(limit, len(self._records)))]
        if records:
            self.offset = records[-1].next_offset
        return records

    def lag(self) -> int:
        """Bytes between the next record and the end of the last whole line: the rest is no record yet, and may never
        become one."""
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            return max(0, self._end_of_lines(file) - self.offset)
        finally:
            os.close(file)

    def _end_of_lines(self, file: int) -> int:
        """Looks from the end backwards, not beyond what was read already: there the line that goes on is known."""
        end, known = os.fstat(file).st_size, self._read_to - (self._passed_over or len(self._tail))
        while end > self._read_to:
            start = max(self._read_to, end - CHUNK_BYTES)
            newline = os.pread(file, end - start, start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
        return known

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _read_chunk(self) -> bool:
        """Whether there was anything to read."""
        if self._file is None:
            self._file = self._open()
        if self._file is None or not self._grown(self._file):
            return False
        chunk = os.pread(self._file, CHUNK_BYTES, self._read_to)
        self._read_to += len(chunk)
        end = chunk.rfind(b"\n")
        if end < 0:
            self._hold(chunk)
            return True
        os.fdatasync(self._file)
        first, *rest = chunk[:end].split(b"\n")
        self._queue(first, rest)
        self._hold(chunk[end + 1 :])
        return True

    def _hold(self, part: bytes) -> None:
        """The line goes on; what is too large already is not kept."""
        if self._passed_over or len(self._tail) + len(part) > self._max_record_bytes:
            self._passed_over += len(self._tail) + len(part)
            self._tail.clear()
        else:
            self._tail += part

    def _queue(self, first: bytes, rest: list[bytes]) -> None:
        """The line that began in an earlier chunk, and those that are whole in this one."""
        self._hold(first)
        offset = self._put(self.offset, self._passed_over or len(self._tail), bytes(self._tail))
        self._tail.clear()
        self._passed_over = 0
        for line in rest:
            offset = self._put(offset, len(line), line)

    def _put(self, offset: int, size: int, line: bytes) -> int:
        """Queue the record at `offset`; returns where the next one starts."""
        position, end = Position(topic=self.topic, partition=0, offset=offset), offset + size + 1
        if size > self._max_record_bytes:
            self._records.append(RawRecord(position=position, next_offset=end, value=None, skipped_bytes=size))
        else:
            self._records.append(RawRecord(position=position, next_offset=end, value=line))
        return end

    def _open(self) -> int | None:
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if self.offset > 0:
                raise self._recreated("is gone") from None
            return None
        if not self._starts_a_line(file):
            os.close(file)
            raise PositionLost(
                f"topic {self.topic!r}: no record starts at byte {self.offset} of {self._path}: the file was cut or "
                "rewritten. Put the old file back, or start with an empty buffer to read it from the start"
            )
        return file

    def _starts_a_line(self, file: int) -> bool:
        return self.offset == 0 or os.pread(file, 1, self.offset - 1) == b"\n"

    def _grown(self, file: int) -> bool:
        try:
            on_disk = os.stat(self._path)
        except FileNotFoundError:
            raise self._recreated("was deleted") from None
        if on_disk.st_ino != os.fstat(file).st_ino:
            raise self._recreated("was replaced")
        if on_disk.st_size < self._read_to:
            raise self._recreated("was cut")
        return on_disk.st_size > self._read_to

    def _recreated(self, what: str) -> TopicRecreated:
        return TopicRecreated(
            f"topic {self.topic!r}: the file {self._path} {what} while it was being read (at byte {self.offset}). "
            "Put the old file back, or start with an empty buffer to read the new one from the start"
        )


class FileReader:
    """`driftline.topics.Reader` over logs. Takes turns between topics, so that a full one does not starve the rest."""

    def __init__(self, logs: Iterable[Log], commit: CommitFunction) -> None:
        self._logs = list(logs)
        self._commit = commit
        self._paused: set[str] = set()
        self._turn = 0

    def poll(self, max_records: int, timeout_s: float) -> list[RawRecord]:
        """Records that are there are returned at once; else the files are looked at every 10 ms."""
        deadline = Deadline(timeout_s)
        while True:
            records = self._take(max_records)
            if records or deadline.expired():
                return records
            sleep(min(LOOK_AGAIN_S, deadline.remaining_s()))

    def pause(self, topics: Iterable[str]) -> None:
        self._paused.update(topics)

    def resume(self, topics: Iterable[str]) -> None:
        self._paused.difference_update(topics)

    def commit(self, positions: Mapping[Partition, int]) -> None:
        self._commit(positions)

    def lag(self) -> dict[Partition, int]:
        return {Partition(topic=log.topic, partition=0): log.lag() for log in self._logs}

    def close(self) -> None:
        for log in self._logs:
            log.close()

    def add(self, log: Log) -> None:
        """Read this one too from now on."""
        self._logs.append(log)

    def _take(self, limit: int) -> list[RawRecord]:
        self._turn += 1
        records: list[RawRecord] = []
        for log in self._in_turn():
            if len(records) == limit:
                break
            if log.topic not in self._paused:
                records += self._take_from(log, limit - len(records))
        return records

    def _in_turn(self) -> Iterable[Log]:
        first = self._turn % len(self._logs) if self._logs else 0
        return islice(self._logs + self._logs, first, first + len(self._logs))

    @staticmethod
    def _take_from(log: Log, limit: int) -> list[RawRecord]:
        try:
            return log.take(limit)
        except OSError as error:
            raise TopicError(f"topic {log.topic!r}: {error}: check the file and its permissions") from error


class FileGroupReader(FileReader):
    """A reader that takes each topic once its group's lock is free, and keeps it until it closes or dies."""

    def __init__(
        self, topics: Iterable[str], claim: Callable[[str], tuple[int, Log] | None], commit: CommitFunction
    ) -> None:
        super().__init__([], commit)
        self._claim = claim
        self._waiting = list(topics)
        self._locks: list[int] = []

    def poll(self, max_records: int, timeout_s: float) -> list[RawRecord]:
        """Topics that another reader of the group holds are tried again at each call."""
        for topic in list(self._waiting):
            claimed = self._claim(topic)
            if claimed is not None:
                lock, log = claimed
                self._locks.append(lock)
                self.add(log)
                self._waiting.remove(topic)
        return super().poll(max_records, timeout_s)

    def close(self) -> None:
        super().close()
        while self._locks:
            os.close(self._locks.pop())
