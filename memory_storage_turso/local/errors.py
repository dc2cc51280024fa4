"""Exceptions of sqlite3 as errors of the framework."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from memory_core.disk import has_room, may_access
from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    StorageClosedError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_storage_turso.engine.driver import StatementError

__all__ = ["SQLITE_ERRORS", "failure_of"]

SQLITE_ERRORS = (sqlite3.Error, sqlite3.Warning, UnicodeDecodeError)
"""The last one where a message quotes damaged text of the schema: sqlite3 cannot decode it."""

_REJECTED = frozenset({"SQLITE_ERROR", "SQLITE_CONSTRAINT", "SQLITE_TOOBIG", "SQLITE_MISMATCH"})
"""The statement itself is wrong: the transaction can go on without it."""

_FAILURES: Mapping[str, tuple[type[MemoryCoreError], str]] = {
    "SQLITE_BUSY": (StorageUnavailableError, "is locked by another process"),
    "SQLITE_LOCKED": (StorageUnavailableError, "is locked"),
    "SQLITE_INTERRUPT": (StorageUnavailableError, "was interrupted"),
    "SQLITE_PROTOCOL": (StorageUnavailableError, "is locked by another process"),
    "SQLITE_FULL": (StorageFullError, "has no room left"),
    "SQLITE_NOTADB": (StorageError, "is not a database"),
    "SQLITE_CORRUPT": (StorageError, "is corrupt"),
    "SQLITE_IOERR": (StorageError, "cannot be read or written"),
    "SQLITE_READONLY": (StorageError, "cannot be written"),
    "SQLITE_PERM": (ConfigurationError, "may not be opened"),
    "SQLITE_AUTH": (ConfigurationError, "may not be opened"),
    "SQLITE_CANTOPEN": (ConfigurationError, "cannot be opened"),
    "SQLITE_NOMEM": (StorageError, "needs more memory than there is"),
    "SQLITE_NOLFS": (StorageError, "is larger than the file system can hold"),
}
#: What SQLite calls it when it may not make the index of a log.
_WITHOUT_INDEX = {"SQLITE_CANTOPEN", "SQLITE_READONLY_DIRECTORY", "SQLITE_READONLY_CANTINIT"}


def failure_of(
    error: sqlite3.Error | sqlite3.Warning | UnicodeDecodeError, path: Path | str, *, index: int = 0
) -> MemoryCoreError | StatementError:
    """The error that an exception of sqlite3 stands for.

    Args:
        error: what was raised.
        path: the database.
        index: position of the statement.

    Returns:
        A ``StatementError`` where the statement is wrong; otherwise an error that concerns the whole
        database, after which nothing of the transaction is applied.
    """
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode(errors="backslashreplace")
        return StorageError(f"{path} is corrupt: {message}")
    name: str | None = getattr(error, "sqlite_errorname", None)
    if name is None:
        # Raised by the module itself: misuse of a connection, or a value it cannot pass on.
        if "closed" in str(error).lower():
            return StorageClosedError(f"{path} is closed")
        return StatementError(str(error), code="SQLITE_MISUSE", index=index)
    primary = "_".join(name.split("_")[:2])
    if primary in _REJECTED:
        return StatementError(str(error), code=name, index=index)
    if name in _WITHOUT_INDEX and _lacks_index(Path(path)):
        return ConfigurationError(
            f"{path}: it cannot be read without a -shm file beside it, and none may be made there: make "
            "the folder writable, or copy the file, and its -wal file where there is one, and open the copy"
        )
    kind, words = _FAILURES.get(primary, (StorageError, "failed"))
    # SQLite reports a write that a quota or a limit cut short as an input/output error.
    if primary == "SQLITE_IOERR" and not all(map(has_room, (Path(path), Path(f"{path}-wal")))):
        kind, words = _FAILURES["SQLITE_FULL"]
    return kind(f"{path} {words}: {error} ({name})")


def _lacks_index(path: Path) -> bool:
    """Whether the index of the log, which SQLite reads a file with, is missing and may not be made."""
    may_make = may_access(path.parent, os.W_OK | os.X_OK)
    return path.exists() and not Path(f"{path}-shm").exists() and not may_make
