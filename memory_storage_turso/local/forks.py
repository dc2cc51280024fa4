"""Connections that a forked child inherits, which it must close before it opens their file.

SQLite notes a file's locks in the memory of the process, and the system does not pass locks on to a child. A
child that opens a file next to inherited connections believes to hold locks that only its parent holds: the
parent's last close then deletes the write-ahead log that the child writes to, and with it what the child has
acknowledged. Closing idle connections is safe: it releases locks of the child alone, which has none.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

from memory_core.errors import StorageError

__all__ = ["TrackedConnection", "close_inherited", "track"]

_PATIENCE = 5.0
"""Seconds that a fork waits for calls in-flight, and that closing an inherited connection may take."""


class TrackedConnection(sqlite3.Connection):
    """A connection that a fork waits for, and that a forked child can find.

    Attributes:
        path: its file.
        in_use: held while it runs a statement or transaction, or closes; a fork waits for it.
        looking: the same, where holding a lock would take too long: whether it runs a statement.
        idle: whether it was idle when this process was forked.
    """

    path: Path
    in_use: threading.RLock
    looking: bool = False
    idle: bool = True

    def close(self) -> None:
        """Close it; forks need not know of it any more."""
        with self.in_use:
            super().close()
        _tracked.discard(self)


_tracked: WeakSet[TrackedConnection] = WeakSet()
_held: list[TrackedConnection] = []
_inherited: list[TrackedConnection] = []
_closing = threading.Lock()
_forking = threading.Lock()


def track(connection: TrackedConnection, path: Path) -> None:
    """Let forks know of a connection."""
    connection.path, connection.in_use = path, threading.RLock()
    _tracked.add(connection)


def close_inherited(path: Path) -> None:
    """Close the connections to a file that this process has from before it was forked.

    Raises:
        StorageError: one of them was in use then.
    """
    if not _inherited:
        return
    with _closing:
        found = [connection for connection in _inherited if _is_file(connection.path, path)]
        if not all(connection.idle for connection in found) or not _all_closed(found):
            raise StorageError(
                f"{path}: a call was in-flight on this file when the process was forked, so SQLite cannot "
                "open it again here: fork when no call is in-flight, or start processes by 'spawn'"
            )
        for connection in found:
            _inherited.remove(connection)


def _all_closed(connections: Sequence[TrackedConnection]) -> bool:
    def close() -> None:
        for connection in connections:
            connection.close()

    # What another thread of the parent held is held for good: so closing may never end.
    thread = threading.Thread(target=close, name="memory-core forked", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return not thread.is_alive()


def _is_file(path: Path, other: Path) -> bool:
    with suppress(OSError):
        return path.samefile(other)
    return False


def _before() -> None:
    """Wait until no connection runs a statement, and keep them from it."""
    _forking.acquire()  # until after the fork
    deadline = time.monotonic() + _PATIENCE
    for connection in list(_tracked):
        connection.idle = connection.in_use.acquire(timeout=max(deadline - time.monotonic(), 0))
        if connection.idle:
            _held.append(connection)
    while any(connection.looking for connection in _tracked) and time.monotonic() < deadline:
        time.sleep(1e-5)


def _in_parent() -> None:
    for connection in _held:
        connection.in_use.release()
    _held.clear()
    _forking.release()


def _in_child() -> None:
    global _closing, _forking  # threads of the parent may hold them
    _closing, _forking = threading.Lock(), threading.Lock()
    for connection in _tracked:
        connection.idle = connection.idle and not connection.looking and _has_ended(connection)
        connection.in_use = threading.RLock()
    # A reference for good: they must not be closed when they are collected, either.
    _inherited.extend(_tracked)
    _tracked.clear()
    _held.clear()


def _has_ended(connection: TrackedConnection) -> bool:
    """Whether no transaction runs on it."""
    with suppress(sqlite3.ProgrammingError):  # it is closed
        return not connection.in_transaction
    return True


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
