"""A consistent copy of a local file while it is in use."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from memory_core.disk import disk_failure, new_backup
from memory_core.errors import ConfigurationError, StorageError
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.local.connections import Session
from memory_storage_turso.local.errors import failure_of

__all__ = ["write_backup"]


def write_backup(session: Session, target: Path) -> None:
    """Write a compacted copy to a new file, which appears when it is complete.

    Args:
        session: a connection to the store.
        target: the new file.

    Raises:
        ConfigurationError: the target exists, or cannot be written.
        StorageFullError: there is no room for it.
        StorageError: the copy failed otherwise.
    """
    try:
        if not target.parent.is_dir():
            raise ConfigurationError(f"{target.parent} is no folder to write a backup into")
        with new_backup(target) as growing:
            _copy(session, growing, target)
    except OSError as error:
        raise disk_failure(error, target) from error


def _copy(session: Session, growing: Path, target: Path) -> None:
    try:
        session.connection.execute("VACUUM INTO ?", (str(growing),))
    except sqlite3.Error as error:
        # By `Session.execute` it would be an error of the store, whose disk may have room.
        failure = failure_of(error, growing)
        kind = StorageError if isinstance(failure, StatementError) else type(failure)
        name = getattr(error, "sqlite_errorname", None)
        message = f"{target}: the backup of {session.path} failed: {error} ({name})"
        raise kind(message) from error
