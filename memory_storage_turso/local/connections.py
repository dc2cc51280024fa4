"""Connections to a local file, each with a thread of its own and with every setting made."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite
from attrs import frozen

from memory_core.errors import StorageClosedError
from memory_storage_turso.engine.driver import StatementError, StatementResult
from memory_storage_turso.local.errors import failure_of
from memory_storage_turso.local.prepared import PreparedCache
from memory_storage_turso.sql.statement import Row, RowStatement, SqlValue, Statement

__all__ = ["ConnectionSettings", "Session", "ThreadedConnection"]

T = TypeVar("T")

_LOCK_PAUSE = 0.01
_ROWS_AT_ONCE = 16
_MANY = ("INSERT", "UPDATE", "DELETE")


@frozen(kw_only=True)
class ConnectionSettings:
    """What every connection to a file is told.

    Attributes:
        path: the file.
        synchronous: ``FULL`` or ``NORMAL``.
        busy_timeout: seconds to wait for a lock.
        cached_statements: how many prepared statements are kept.
    """

    path: Path
    synchronous: str
    busy_timeout: float
    cached_statements: int

    def connect(self, *, writes: bool, shared: bool = False) -> sqlite3.Connection:
        """A connection with every setting made; blocks.

        Args:
            writes: whether it may write.
            shared: whether threads other than this one will use it, one at a time.
        """
        connection = sqlite3.connect(
            self.path,
            timeout=self.busy_timeout,
            isolation_level=None,
            cached_statements=self.cached_statements,
            check_same_thread=not shared,
        )
        try:
            for pragma in self._pragmas(writes=writes):
                self._patiently(connection, pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _pragmas(self, *, writes: bool) -> Iterator[str]:
        yield f"PRAGMA busy_timeout = {round(self.busy_timeout * 1000)}"
        yield "PRAGMA journal_mode = WAL"
        yield f"PRAGMA synchronous = {self.synchronous}"
        yield "PRAGMA foreign_keys = ON"
        if writes:
            # A statement that triggers may abort keeps the old pages until it ends: not in a file.
            yield "PRAGMA temp_store = MEMORY"
            yield "PRAGMA cache_size = -16384"
        else:
            yield "PRAGMA query_only = ON"

    def _patiently(self, connection: sqlite3.Connection, pragma: str) -> None:
        """Changing the journal mode does not always wait for a lock as other statements do."""
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


class Session:
    """Statements on one connection, on the thread that it belongs to."""

    def __init__(self, connection: sqlite3.Connection, path: Path, cache: PreparedCache) -> None:
        self.connection = connection
        self.path = path
        self._cache = cache
        self._cursor = connection.cursor()
        self._cursor.row_factory = None

    def execute(self, sql: str, args: Sequence[SqlValue] = (), *, index: int = 0) -> list[Row]:
        """Run one statement; its rows."""
        with self._cache.use(sql):
            try:
                return self._cursor.execute(sql, args).fetchall()
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise failure_of(error, self.path, index=index) from error

    def read(self, statements: Sequence[Statement]) -> list[StatementResult]:
        """Run reads against one snapshot."""
        if len(statements) == 1:
            return [StatementResult(self.execute(statements[0].sql, statements[0].args))]
        self.execute("BEGIN")
        try:
            return [
                StatementResult(self.execute(statement.sql, statement.args, index=index))
                for index, statement in enumerate(statements)
            ]
        finally:
            self.rollback()

    def run(self, statements: Iterable[Statement]) -> list[StatementResult]:
        """Run statements in order; those in a row that differ only in their values run together. The
        rows affected by such a run are counted with its last statement.
        """
        results: list[StatementResult] = []
        left = iter(statements)
        statement = next(left, None)
        while statement is not None:
            if not statement.sql.startswith(_MANY):
                rows = self.execute(statement.sql, statement.args, index=len(results))
                results.append(StatementResult(rows))
                statement = next(left, None)
                continue
            run = _Run(statement, left)
            if isinstance(statement, RowStatement):
                affected = self._insert(run, statement, len(results))
            else:
                affected = self._execute_many(run.sql, run, len(results))
            results += [_NOTHING] * (run.taken - 1)
            results.append(StatementResult([], affected))
            statement = run.following
        return results

    def rollback(self) -> None:
        """End whatever transaction is open."""
        if self.connection.in_transaction:
            self.execute("ROLLBACK")

    def _insert(self, run: _Run, statement: RowStatement, before: int) -> int:
        """Insert rows, many with one statement: each costs two crossings of the GIL, which another
        thread may hold just then.
        """
        several = statement.sql_of(_ROWS_AT_ONCE)
        affected = 0
        rows = iter(run)
        while chunk := list(islice(rows, _ROWS_AT_ONCE)):
            start = before + run.taken - len(chunk)
            try:
                if len(chunk) < _ROWS_AT_ONCE:
                    affected += self._execute_many(run.sql, chunk, start)
                    continue
                self.execute(several, list(chain.from_iterable(chunk)))
                affected += self._cursor.rowcount
            except StatementError:
                # Which of them? The transaction, or its savepoint, will be rolled back anyway.
                self._execute_many(run.sql, chunk, start)
                raise
        return affected

    def _execute_many(self, sql: str, args: Iterable[tuple[SqlValue, ...]], before: int) -> int:
        taken = 0

        def counted() -> Iterator[tuple[SqlValue, ...]]:
            nonlocal taken
            for each in args:
                taken += 1
                yield each

        with self._cache.use(sql):
            try:
                self._cursor.executemany(sql, counted())
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise failure_of(error, self.path, index=before + taken - 1) from error
        return self._cursor.rowcount


_NOTHING = StatementResult([], 0)


class _Run:
    """The arguments of statements in a row with the same SQL."""

    def __init__(self, first: Statement, left: Iterator[Statement]) -> None:
        self.sql = first.sql
        self.taken = 0
        self.following: Statement | None = first
        self._left = left

    def __iter__(self) -> Iterator[tuple[SqlValue, ...]]:
        statement = self.following
        while statement is not None and statement.sql == self.sql:
            self.taken += 1
            yield statement.args
            statement = next(self._left, None)
        self.following = statement


class ThreadedConnection(aiosqlite.Connection):
    """A connection whose whole operation is one job on its thread, and one crossing to it.

    Args:
        settings: what it is told.
        writes: whether it may write.
    """

    def __init__(self, settings: ConnectionSettings, *, writes: bool) -> None:
        super().__init__(lambda: settings.connect(writes=writes), iter_chunk_size=64)
        # An interpreter that exits without `close` must not wait for the thread.
        self._thread.daemon = True
        self.prepared = PreparedCache(settings.cached_statements)
        self.waiting = 0
        self._path = settings.path
        self._session: Session | None = None
        self._process = os.getpid()

    async def _connect(self) -> ThreadedConnection:
        try:
            await super()._connect()
        except sqlite3.Error:
            # aiosqlite tells its thread to stop, but does not wait: it may meet a closed event loop.
            self._thread.join()
            raise
        return self

    async def run(self, job: Callable[[Session], T]) -> T:
        """Run a job on the thread. A caller that is cancelled leaves the job to finish.

        Raises:
            StorageClosedError: the connection was closed, or belongs to the parent process.
        """
        if os.getpid() != self._process:
            msg = f"{self._path} was opened before a fork; open it again in the child"
            raise StorageClosedError(msg)
        self.waiting += 1
        try:
            execute = cast("Callable[..., Awaitable[T]]", self._execute)  # pyright: ignore[reportUnknownMemberType]  # not annotated there
            return await execute(self._with_session, job)
        except ValueError as error:
            # What aiosqlite raises once it is closed; a job may have reasons of its own.
            if self._connection is not None:
                raise
            raise StorageClosedError(f"{self._path} is closed") from error
        finally:
            self.waiting -= 1

    async def close(self) -> None:
        """Finish the jobs that wait, then end the thread. Idempotent."""
        await super().close()
        # It has told that it is done, and has nothing left to do but to end.
        self._thread.join()

    def _with_session(self, job: Callable[[Session], Any]) -> Any:
        if self._session is None:
            self.prepared.watch(self._conn)
            self._session = Session(self._conn, self._path, self.prepared)
        return job(self._session)
