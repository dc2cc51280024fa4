"""Whether a local file is a store, told without changing a byte of it; and making a new one.

A store says what it is by SQLite's application id. Stores of earlier versions have none, and are known by
their table ``_meta``.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from memory_core.disk import (
    is_read_only,
    is_unwritten,
    make_folder,
    may_access,
    private_file,
    size_of,
)
from memory_core.errors import ConfigurationError, NotAStoreError
from memory_storage_turso.sql.system import (
    APPLICATION_ID,
    STORE_ID,
    create_system_tables,
)

__all__ = ["check_store", "create_store", "file_uri", "is_immutable"]

# Bytes of the smallest page.
_SMALLEST = 512
_TABLES = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
)


def check_store(path: Path, *, may_create: bool) -> bool:
    """Check that a file is a store, or that a new one may be made there; returns whether it is one already.

    Args:
        path: the file.
        may_create: whether a new store may be made.

    Raises:
        NotAStoreError: it is something else; it was not changed.
        OSError: it cannot be read.
        sqlite3.Error: it is damaged.
    """
    companions = [Path(f"{path}{end}") for end in ("-wal", "-shm", ".search")]
    if is_unwritten(path, *companions, may_create=may_create):
        return False
    if path.stat().st_size < _SMALLEST:
        raise NotAStoreError(str(path), "it is not a SQLite database")
    try:
        application = _asked(path, "PRAGMA application_id", immutable=True)[0][0]
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname == "SQLITE_NOTADB":
            raise NotAStoreError(str(path), "it is not a SQLite database") from error
        # Read without locks, a file that another connection writes to may look damaged.
        application = _asked(path, "PRAGMA application_id", immutable=False)[0][0]
    if application == APPLICATION_ID:
        return True
    if application:
        raise NotAStoreError(str(path), f"its application id is {application:#x}")
    return _is_earlier_store(path, may_create=may_create)


def create_store(path: Path, busy_timeout: float) -> None:
    """Make a store with the tables of the store itself, unless another process makes it meanwhile.

    Raises:
        sqlite3.Error: SQLite cannot write the file.
        OSError: the file cannot be made.
    """
    make_folder(path.parent)
    os.close(private_file(path, os.O_RDWR | os.O_CREAT))
    with closing(sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)) as connection:
        # Not with a write-ahead log yet: a process that is killed here leaves an empty file without
        # companions, or a store.
        connection.execute("BEGIN EXCLUSIVE")
        found = [name for (name,) in connection.execute(_TABLES)]
        if found and "_meta" not in found:
            raise _foreign(path, found)
        if not found:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for statement in create_system_tables(uuid4().bytes):
                connection.execute(statement.sql, statement.args)
        connection.execute("COMMIT")


def is_immutable(path: Path) -> bool:
    """Whether a store is on a file system that is read-only, and complete without a write-ahead log.

    Raises:
        ConfigurationError: it has a log there, which SQLite cannot read without an index of it.
        OSError: the file cannot be read.
    """
    if not may_access(path, os.R_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if not is_read_only(path) and not is_read_only(path.parent):
        return False
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    if not size_of(log):
        return True
    if not index.exists():
        raise ConfigurationError(
            f"{path}: its newest writes are in {log.name}, which cannot be read on a read-only file system "
            "without its -shm file: copy both files to another folder and open the copy"
        )
    return False


def file_uri(path: Path, *, immutable: bool) -> str:
    """The URI by which SQLite opens a file to read it."""
    return f"file:{quote(os.fsencode(path))}?{'immutable=1' if immutable else 'mode=ro'}"


def _is_earlier_store(path: Path, *, may_create: bool) -> bool:
    """Whether a database without an application id has the tables of a store."""
    log = Path(f"{path}-wal")
    has_log = size_of(log) > 0
    # The file alone tells, unless its tables are all in its log. Reading that makes an index of the log.
    try:
        found = _tables(path, immutable=True)
    except sqlite3.DatabaseError:
        if not has_log:
            raise
        found = []
    if not found and has_log:
        found = _tables(path, immutable=False)
    if not found:
        # A process of an earlier version that was killed as it made a store has left an empty database.
        if may_create:
            return False
        raise NotAStoreError(str(path), "it is an empty database")
    if "_meta" not in found:
        raise _foreign(path, found)
    return True


def _foreign(path: Path, tables: list[str]) -> NotAStoreError:
    return NotAStoreError(str(path), f"it has tables of another program: {', '.join(tables[:5])}")


def _tables(path: Path, *, immutable: bool) -> list[str]:
    """The names of the tables, of which ``_meta`` has a store's id in it."""
    names = [name for (name,) in _asked(path, _TABLES, immutable=immutable)]
    if "_meta" in names:
        try:
            rows = _asked(path, STORE_ID, immutable=immutable)
        except sqlite3.OperationalError:  # it has no such columns
            rows = []
        if [type(value) for (value,) in rows] != [bytes]:
            raise NotAStoreError(str(path), "its table _meta is of another program")
    return names


def _asked(path: Path, sql: str, *, immutable: bool) -> list[tuple[Any, ...]]:
    """The rows of a statement, by a connection that changes nothing.

    SQLite itself has to read the file: closing any other descriptor of it would release the locks of all
    connections that this process has to it.
    """
    uri = file_uri(path, immutable=immutable)
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return connection.execute(sql).fetchall()
