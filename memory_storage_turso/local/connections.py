"""Connections to a local file, each with its settings and a thread of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
from aiosqlite.core import (
    _STOP_RUNNING_SENTINEL,  # pyright: ignore[reportPrivateUsage]  # what ends its thread
)
from attrs import frozen

from memory_core.values import Value
from memory_storage_turso.local.forks import TrackedConnection, track
from memory_storage_turso.local.identity import file_uri
from memory_storage_turso.local.prepared import PreparedCache
from memory_storage_turso.local.session import Session

__all__ = ["ConnectionSettings", "ThreadedConnection"]

_LOCK_PAUSE = 0.01
_MOST_LOG_PAGES = 8000
"""The log, 32 MB, that SQLite copies within the commit that fills it; `Checkpoints` copies it before."""


@frozen(kw_only=True, eq=False, repr=False)
class ConnectionSettings(Value):
    """The settings of every connection to a file.

    Attributes:
        path: the file.
        synchronous: ``FULL`` or ``NORMAL``.
        busy_timeout: seconds to wait for a lock.
        cached_statements: how many prepared statements are kept.
        read_only: whether no connection may write.
        immutable: whether the file cannot be written while it is open; only with ``read_only``.
    """

    path: Path
    synchronous: str
    busy_timeout: float
    cached_statements: int
    read_only: bool = False
    immutable: bool = False

    def connect(self, *, writes: bool, waits: bool = True) -> TrackedConnection:
        """A connection with these settings, which threads may use one at a time; blocks.

        Args:
            writes: whether it may write.
            waits: whether it waits for locks once it is open.
        """
        connection = sqlite3.connect(
            file_uri(self.path, immutable=self.immutable) if self.read_only else self.path,
            uri=self.read_only,
            timeout=self.busy_timeout,
            isolation_level=None,
            cached_statements=self.cached_statements,
            check_same_thread=False,
            factory=TrackedConnection,
        )
        track(connection, self.path)
        try:
            for pragma in self._pragmas(writes=writes):
                self._run(connection, pragma)
            if not waits:
                self._run(connection, "PRAGMA busy_timeout = 0")
        except BaseException:
            connection.close()
            raise
        return connection

    def _pragmas(self, *, writes: bool) -> Iterator[str]:
        yield f"PRAGMA busy_timeout = {round(self.busy_timeout * 1000)}"
        if not self.read_only:
            yield "PRAGMA journal_mode = WAL"
            yield f"PRAGMA synchronous = {self.synchronous}"
        yield "PRAGMA foreign_keys = ON"
        if writes:
            # A statement that a trigger may abort keeps old pages until it ends: in memory, not in a file.
            yield "PRAGMA temp_store = MEMORY"
            yield "PRAGMA cache_size = -16384"
            yield f"PRAGMA wal_autocheckpoint = {_MOST_LOG_PAGES}"
        else:
            yield "PRAGMA query_only = ON"
            # A query that a rare condition leads looks at up to 128 records, each on pages of its own in the
            # trees of all conditions: 2 MB, SQLite's default, do not hold these and the inner pages.
            yield "PRAGMA cache_size = -8192"

    def _run(self, connection: sqlite3.Connection, pragma: str) -> None:
        """Retry while the file is locked: changing the journal mode does not always wait for a lock."""
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                connection.execute(pragma).fetchall()
                return
            except sqlite3.OperationalError as error:
                busy = str(error.sqlite_errorname).startswith("SQLITE_BUSY")
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(_LOCK_PAUSE)


class ThreadedConnection(aiosqlite.Connection):
    """A connection whose every operation is one job on its thread.

    Attributes:
        session: runs the statements; for jobs only.
        prepared: statistics of the prepared statements.
        waiting: how many jobs have been accepted and have not ended.

    Args:
        settings: its settings.
        writes: whether it may write.
        before: called on the thread before the file is opened.
    """

    session: Session

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        writes: bool,
        before: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(self._open, iter_chunk_size=64)
        # An interpreter that exits without `close` must not wait for the thread.
        self._thread.daemon = True
        self.prepared = PreparedCache(settings.cached_statements)
        self.waiting = 0
        self._opened: TrackedConnection | None = None
        self._settings = settings
        self._writes = writes
        self._before = before

    @property
    def native_id(self) -> int | None:
        """The native id of its thread."""
        return self._thread.native_id

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function on the thread. A caller that is cancelled leaves the job to finish."""
        if not self._running or self._connection is None:
            raise ValueError("Connection closed")
        return await self._post(partial(function, *args))

    async def close(self) -> None:
        """Finish the accepted jobs, then end the thread. Idempotent."""
        if self._connection is not None:
            self._connection = None
            await self.stop()
        # The thread has answered, and only has to end.
        self._thread.join()

    def stop(self) -> asyncio.Future[Any]:
        """End the thread after the accepted jobs, without waiting for it."""
        self._running = False
        return self._post(self._finish)

    def abandon(self) -> None:
        """Finish the accepted jobs and end the thread, when their event loop has ended."""
        self._running = False
        self._tx.put_nowait((None, self._finish))  # pyright: ignore[reportUnknownMemberType]  # aiosqlite's queue has no type
        self._thread.join()

    def __del__(self) -> None:
        if self._connection is not None:
            # First, as the warning may be an error.
            self._tx.put_nowait((None, self._finish))  # pyright: ignore[reportUnknownMemberType]  # as above
            message = f"{self._settings.path} was never closed"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)

    async def _connect(self) -> ThreadedConnection:
        if self._connection is None:
            try:
                self._connection = await self._post(self._open)
            except BaseException as error:
                # Also closes a connection that is opened after its caller was cancelled.
                self.stop()
                if isinstance(error, Exception):
                    # The thread ends now. It may not meet a closed event loop.
                    self._thread.join()
                raise
        return self

    def _post(self, job: Callable[[], Any]) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((None, _Job(job, done)))  # pyright: ignore[reportUnknownMemberType]  # as above
        return done

    def _finish(self) -> object:
        self._connection = None
        if self._opened is not None:
            self._opened.close()
        return _STOP_RUNNING_SENTINEL

    def _open(self) -> sqlite3.Connection:
        if self._before is not None:
            self._before()
        self._opened = connection = self._settings.connect(writes=self._writes)
        self.prepared.observe(connection)
        self.session = Session(connection, self._settings.path, self.prepared)
        return connection


class _Job:
    """A job that settles a future, whose loop may have ended, and then keeps nothing.

    aiosqlite's thread holds its last job, and what that has returned, until it gets the next. And on a loop
    that has ended it would end itself, and leave the jobs behind without an answer.
    """

    __slots__ = ("_left",)

    def __init__(self, function: Callable[[], object], done: asyncio.Future[Any]) -> None:
        self._left = [(function, done)]

    def __call__(self) -> object:
        """Run it; returns what ends aiosqlite's thread, or nothing."""
        function, done = self._left.pop()
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  # the caller gets it
            _answer(done, None, error)
            # The error has this frame, and the future has the error.
            del function, done
            return None
        _answer(done, result, None)
        return result if result is _STOP_RUNNING_SENTINEL else None


def _answer(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    # A loop that has ended takes no results.
    with suppress(RuntimeError):
        done.get_loop().call_soon_threadsafe(_settle, done, result, error)


def _settle(done: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
