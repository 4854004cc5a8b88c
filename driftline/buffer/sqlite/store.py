"""The SQLite file: one connection, write-ahead log, every commit synced to the disk.

Several processes may open the file at once (ingest, learner, status); within a process one lock serialises all threads
on the one connection. Writers take the write lock at the start (BEGIN IMMEDIATE), so a transaction never fails half-way
because another one wrote first; a reader sees one snapshot. What SQLite says is translated into `driftline.errors`
here, in one place: a full disk is `BufferFull`, and then nothing of the transaction was written.
"""

import fcntl
import hashlib
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from driftline.buffer.sqlite import migration
from driftline.errors import BufferBusy, BufferFull, BufferStoreError

BUSY_TIMEOUT_MS = 30_000
_KEY_SETTING = "holdout_key"
_CACHE_KIB = 65_536
_CHECKPOINT_PAGES = 8_192
"""32 MiB of log between checkpoints: random ids touch a page each, and pages touched twice are copied back once."""


class Store:
    """A connection with its lock. Use `writing` and `reading`; they may not be nested."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self._connection = connection
        self._file = _file_at(path)
        self._lock = threading.Lock()
        self._feeds: dict[str, int] = {}

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One write transaction: all or nothing. BufferFull and BufferStoreError after a rollback."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._check_in_place()
            try:
                self._connection.execute(begin)
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                self._roll_back()
                if isinstance(error, sqlite3.Error):
                    raise buffer_error(error, self.path) from error
                raise

    def _check_in_place(self) -> None:
        """SQLite would go on in a file that was deleted, and all that it takes in would be gone with the process."""
        found = _file_at(self.path)
        if found is None or found != self._file:
            raise BufferStoreError(
                f"{self.path}: was deleted or replaced while this process used it: end all processes of this state "
                "folder, then put the file back, or start again and follow what ingest says of the stored positions"
            )

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # a full disk makes SQLite roll back by itself
            self._connection.execute("ROLLBACK")

    def feed_id(self, feed: str) -> int:
        """The feed's number. -1, which no row has, for a feed that a read-only buffer does not hold yet."""
        return self._feeds.get(feed, -1)

    def know_feeds(self, feeds: Iterable[tuple[str, int]]) -> None:
        """Learn the feeds' numbers."""
        self._feeds.update(feeds)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        with self._lock:
            self._connection.close()


def open_store(
    path: Path, holdout_shares: Mapping[str, float], holdout_key: bytes, identity: str | None = None
) -> Store:
    """Open or create the file (mode 0600), with these feeds and the shares of their texts that are held out.

    `identity` is what a new file is called by; None: a name that no other buffer has.

    BufferStoreError if it is no buffer, a newer one, or one of another key or other shares.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _opening(path):
            store = Store(_connect(f"file:{_quoted(path)}?mode=rw"), path)
            _prepare(store, holdout_shares, holdout_key, identity or uuid.uuid4().hex)
    except OSError as error:
        raise BufferStoreError(
            f"{path}: cannot be opened ({error}): set state.path to a folder you can write to"
        ) from None
    except sqlite3.Error as error:
        raise buffer_error(error, path) from error
    return store


def open_for_reading(path: Path) -> Store:
    """Open an existing file without ever writing to it. BufferStoreError if there is none."""
    nothing = f"{path}: there is no buffer yet: start `driftline ingest` (or `driftline up`) first"
    _wait_until_made(path)
    if not path.exists():
        raise BufferStoreError(nothing)
    try:
        connection = _connect(f"file:{_quoted(path)}?mode=rw")
        connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error as error:
        raise buffer_error(error, path) from error
    store = Store(connection, path)
    with store.reading() as db:
        if migration.found_format(db) == 0:  # whoever was making it was killed
            raise BufferStoreError(nothing)
        migration.check_current(db, path)
        store.know_feeds(db.execute("SELECT name, id FROM feeds").fetchall())
    return store


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """One process at a time makes the file and its tables. The database inherits the mode of the empty file."""
    lock = os.open(_lock_file(path), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        yield
    finally:
        os.close(lock)


def _wait_until_made(path: Path) -> None:
    """For a reader that comes while the first process is making the file, which takes moments."""
    with suppress(OSError), _lock_file(path).open("rb") as lock:  # OSError: there is none, as beside a copied file
        fcntl.flock(lock, fcntl.LOCK_SH)


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".opening")


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file the path names now; None if it can be reached no more."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_MS / 1000,
        cached_statements=256,
    )
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _prepare(store: Store, holdout_shares: Mapping[str, float], holdout_key: bytes, identity: str) -> None:
    connection = store._connection
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise BufferStoreError(
            f"{store.path}: this file system cannot hold the buffer (no shared memory): use a local disk"
        )
    connection.execute("PRAGMA synchronous = FULL")
    migration.keep_copy(connection, store.path)
    with store.writing() as db:
        if migration.found_format(db) == 0:
            _create(db, identity)
        migration.upgrade(db, store.path)
        shares = [(_share_setting(feed), share) for feed, share in holdout_shares.items()]
        kept = [(_KEY_SETTING, _fingerprint(holdout_key)), *shares]
        db.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", kept)
        check_split(db, store.path, holdout_shares, holdout_key)
        db.executemany("INSERT OR IGNORE INTO feeds (name) VALUES (?)", [(feed,) for feed in holdout_shares])
        store.know_feeds(db.execute("SELECT name, id FROM feeds").fetchall())


def _create(db: sqlite3.Connection, identity: str) -> None:
    migration.create(db)
    db.execute("INSERT INTO settings VALUES ('identity', ?)", (identity,))


def check_split(db: sqlite3.Connection, path: Path, holdout_shares: Mapping[str, float], holdout_key: bytes) -> None:
    """BufferStoreError if another key or another share would move texts between training and hold-out. Only reads.

    A feed keeps its share also while it is removed; one that the buffer does not know yet may have any.
    """
    settings = dict(db.execute("SELECT name, value FROM settings").fetchall())
    if settings.get(_KEY_SETTING, _fingerprint(holdout_key)) != _fingerprint(holdout_key):
        raise BufferStoreError(
            f"{path}: the hold-out key is not the one this buffer was made with; held-out texts would be trained on: "
            "restore the key file, or use another state.path"
        )
    for feed, share in holdout_shares.items():
        found = settings.get(_share_setting(feed), share)
        if found != share:
            raise BufferStoreError(
                f"{path}: feed.{feed}.evaluation.holdout_share is {share}, but this buffer was made with {found}: "
                f"texts would move between training and hold-out: put {found} back, or start with another state.path "
                "or another feed name (then with another predictions_topic too, where that is set)"
            )


def _fingerprint(holdout_key: bytes) -> str:
    return hashlib.sha256(b"driftline hold-out key\0" + holdout_key).hexdigest()


def _share_setting(feed: str) -> str:
    return f"holdout_share:{feed}"


def buffer_error(error: sqlite3.Error, path: Path) -> Exception:
    """Our error for SQLite's. What only a mistake of ours can cause comes back as it is."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY):
        return BufferFull(f"{path}: {error}; nothing was written: make room on the disk (or make the file writable)")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BufferBusy(f"{path}: another process has kept it locked for {BUSY_TIMEOUT_MS // 1000} s: end that one")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return BufferStoreError(f"{path}: {error}: restore it from a backup, or use another state.path")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return BufferStoreError(f"{path}: {error}: check that the file and its folder can be written to")
    return error
