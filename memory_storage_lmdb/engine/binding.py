"""The lmdb driver: names for its types, and the framework's errors for its own.

No error of lmdb leaves the backend: every call of it is translated here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import lmdb

from memory_core.disk import NO_ACCESS, NO_SPACE, disk_failure, has_room
from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)

__all__ = [
    "Cursor",
    "DamagedEntryError",
    "Database",
    "MapFullError",
    "MapResizedError",
    "ReadersFullError",
    "Transaction",
    "translate",
    "translated",
]

if TYPE_CHECKING:
    Transaction: TypeAlias = lmdb.Transaction[bytes]
    Cursor: TypeAlias = lmdb.Cursor[bytes]
    Database: TypeAlias = lmdb._Database  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # its only name
else:
    Transaction = lmdb.Transaction
    Cursor = lmdb.Cursor
    Database = lmdb._Database  # noqa: SLF001  # its only name

MapFullError = lmdb.MapFullError
MapResizedError = lmdb.MapResizedError
ReadersFullError = lmdb.ReadersFullError

_UNREADABLE = "no LMDB data file, or one of another version"
_DAMAGED = "the store is damaged"
_BUG = "lmdb rejected an operation"

# By name, because older versions of the driver lack some of them.
_ERRORS: dict[str, tuple[type[MemoryCoreError], str]] = {
    "BadChecksumError": (StorageError, _DAMAGED),
    "BadDbiError": (StorageError, _BUG),
    "BadRslotError": (StorageError, _BUG),
    "BadTxnError": (StorageError, _BUG),
    "BadValsizeError": (StorageError, _BUG),
    "CorruptedError": (StorageError, _DAMAGED),
    "CryptoFailError": (StorageError, _UNREADABLE),
    "CursorFullError": (StorageError, _DAMAGED),
    "DbsFullError": (ConfigurationError, "max_dbs is too small for the record types"),
    "DiskError": (StorageFullError, "the disk is full"),
    "EnvEncryptionError": (StorageError, _UNREADABLE),
    "Error": (StorageError, "lmdb failed"),
    "IncompatibleError": (StorageError, _UNREADABLE),
    "InvalidError": (StorageError, _UNREADABLE),
    "InvalidParameterError": (StorageError, _BUG),
    "KeyExistsError": (StorageError, _BUG),
    "LockError": (StorageUnavailableError, "the store is locked"),
    "MapFullError": (StorageFullError, "the map is full"),
    "MapResizedError": (StorageUnavailableError, "another process has grown the store"),
    "MemoryError": (StorageUnavailableError, "out of memory"),
    "NotFoundError": (StorageError, _DAMAGED),
    "PageFullError": (StorageError, _DAMAGED),
    "PageNotFoundError": (StorageError, _DAMAGED),
    "PanicError": (StorageError, "writing failed in the middle; close and open the store again"),
    "ProblemError": (StorageError, "writing failed; nothing was applied"),
    "ReadersFullError": (
        StorageUnavailableError,
        "too many read transactions are open, in all processes",
    ),
    "ReadonlyError": (ConfigurationError, "the store cannot be written"),
    "TlsFullError": (StorageUnavailableError, "too many environments are open in this process"),
    "TxnFullError": (StorageFullError, "the batch is too large for one transaction"),
    "VersionMismatchError": (StorageError, _UNREADABLE),
}

# Errors of the operating system, which lmdb passes on as a bare ``Error`` or an ``OSError``.
_CODES = {os.strerror(code): code for code in (*NO_SPACE, *NO_ACCESS, errno.EIO)}


class DamagedEntryError(Exception):
    """An entry of the store's own databases differs from what was written.

    ``Environment`` turns it into a ``StorageError`` that names the store.
    """

    def __init__(self, what: str, key: bytes, reason: object) -> None:
        super().__init__(f"the store is damaged: {what} {key!r}: {reason}")


def translate(error: Exception, where: str) -> MemoryCoreError:
    """Translate an error of lmdb or of the operating system into the framework's error.

    Args:
        error: a ``lmdb.Error`` or ``OSError``.
        where: the store's path.
    """
    code = _code(error)
    if type(error) is lmdb.Error or isinstance(error, OSError) or code in NO_SPACE:
        cut_short = code == errno.EIO or "MDB_SHORT_WRITE" in str(error)
        if cut_short and not has_room(Path(where, "data.mdb")):
            # LMDB 0.9 reports a write that was cut short as an input/output error.
            code = errno.ENOSPC
        return disk_failure(error, where, code)
    kind, what = _ERRORS.get(type(error).__name__, _ERRORS["Error"])
    return kind(f"{where}: {what}: {error}")


def _code(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    code: int | None = getattr(error, "code", None)
    # Older versions of the driver only give the code in the message.
    return code or _CODES.get(str(error).rpartition(": ")[2])


@contextmanager
def translated(where: str) -> Generator[None]:
    """Translate errors of lmdb and of the operating system."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise translate(error, where) from error
