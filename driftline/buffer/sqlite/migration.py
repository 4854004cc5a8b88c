"""Older buffers, brought up to today's tables in place: one numbered script for each format, after a copy was made.

Atomicity: all scripts that are missing run in the caller's one write transaction; a crash leaves the old format.
Idempotency: a file of today's format is left alone. Errors: BufferStoreError for a format that no script starts from
(older than 4, or newer than this Driftline), with the remedy.
"""

import filecmp
import os
import sqlite3
from contextlib import closing
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from driftline.errors import BufferStoreError

SCHEMA_VERSION = 7
OLDEST_VERSION = 4


def create(db: sqlite3.Connection) -> None:
    """All tables, empty."""
    _run(db, resources.files("driftline.buffer.sqlite").joinpath("schema.sql"))
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Run the scripts that the file has not seen yet, inside the caller's transaction."""
    check_known(db, path)
    for version in range(found_format(db) + 1, SCHEMA_VERSION + 1):
        _run(db, resources.files("driftline.buffer.sqlite").joinpath("migrations", f"{version}.sql"))
        db.execute(f"PRAGMA user_version = {version}")


def keep_copy(db: sqlite3.Connection, path: Path) -> None:
    """A copy of a file that `upgrade` is going to change, as `NAME.format-N` beside it; `NAME.format-N.2`, … where an
    older file was put back. None if the newest copy is the same, as after an upgrade that was killed."""
    found = found_format(db)
    if not OLDEST_VERSION <= found < SCHEMA_VERSION:
        return
    newest, copy = _copies(path, found)
    draft = path.with_name(f"{path.name}.format-{found}.draft")
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(draft)) as target:
        db.backup(target)
    if newest is not None and filecmp.cmp(draft, newest, shallow=False):
        draft.unlink()
    else:
        draft.replace(copy)


def _copies(path: Path, found: int) -> tuple[Path | None, Path]:
    """The newest copy that is there, and the name of the next one."""
    newest, copy, number = None, path.with_name(f"{path.name}.format-{found}"), 1
    while copy.exists():
        newest, number = copy, number + 1
        copy = path.with_name(f"{path.name}.format-{found}.{number}")
    return newest, copy


def check_known(db: sqlite3.Connection, path: Path) -> None:
    """BufferStoreError if this Driftline can neither read nor upgrade the file."""
    found = found_format(db)
    if not OLDEST_VERSION <= found <= SCHEMA_VERSION:
        raise BufferStoreError(
            f"{path}: the buffer has format {found}, this Driftline reads {OLDEST_VERSION} to {SCHEMA_VERSION}: "
            "use the Driftline that wrote it, or start over with another state.path and redis.prefix"
        )


def check_current(db: sqlite3.Connection, path: Path) -> None:
    """BufferStoreError if the file is not of today's format; who only reads does not upgrade it."""
    check_known(db, path)
    if (found := found_format(db)) != SCHEMA_VERSION:
        raise BufferStoreError(
            f"{path}: the buffer has format {found}, which an older Driftline wrote: start `driftline ingest` (or "
            f"`driftline up`) once; it upgrades the file to {SCHEMA_VERSION} and keeps a copy beside it"
        )


def found_format(db: sqlite3.Connection) -> int:
    """0: the tables are not made yet."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    return int(found)


def _run(db: sqlite3.Connection, script: Traversable) -> None:
    without_comments = "\n".join(line.split("--")[0] for line in script.read_text(encoding="utf-8").splitlines())
    for statement in without_comments.split(";"):  # executescript would commit the transaction first
        if statement.strip():
            db.execute(statement)
