"""The driver of a database that the caller has opened, and keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite

from memory_core.errors import ConfigurationError, StorageClosedError, StorageUnavailableError
from memory_storage_turso.engine.driver import StatementResult, WriteOutcome
from memory_storage_turso.local.connections import Session
from memory_storage_turso.local.prepared import PreparedCache
from memory_storage_turso.local.transactions import write_group
from memory_storage_turso.sql.statement import Statement

__all__ = ["BorrowedDriver"]

T = TypeVar("T")


class BorrowedDriver:
    """One connection for everything. Make it with ``open``."""

    def __init__(self, connection: aiosqlite.Connection, path: str) -> None:
        self._connection = connection
        self._session: Session | None = None
        self._closed = False
        self._counters = {"writes": 0, "rewrites": 0, "reads": 0}
        self.path = path

    @classmethod
    async def open(cls, connection: aiosqlite.Connection) -> BorrowedDriver:
        """Use a connection, which the caller closes when the store is closed.

        Raises:
            ConfigurationError: its settings do not let the store work.
        """
        if connection.text_factory is not str:
            raise ConfigurationError("the connection's text_factory must be str")
        driver = cls(connection, "an open database")
        await driver._run(lambda session: session.execute("PRAGMA foreign_keys = ON"))
        files = await driver._run(lambda session: session.execute("PRAGMA database_list"))
        driver.path = str(files[0][2] or "") or ":memory:"
        return driver

    @property
    def durable(self) -> bool:
        """Whether it is a file."""
        return self.path != ":memory:"

    async def write(
        self, batches: Sequence[Iterable[Statement]], closing: Sequence[Statement] = ()
    ) -> WriteOutcome:
        """Run every batch in one transaction; see ``Driver.write``."""
        self._counters["writes"] += 1
        outcome, again = await self._run(
            lambda session: write_group(self._idle(session), batches, closing)
        )
        self._counters["rewrites"] += again
        return outcome

    async def read(
        self,
        statements: Sequence[Statement],
        *,
        min_position: int | None = None,
        primary: bool = False,
    ) -> list[StatementResult]:
        """Run reads against one snapshot; see ``Driver.read``."""
        del min_position, primary  # there is but one connection
        self._counters["reads"] += 1
        return await self._run(lambda session: self._idle(session).read(statements))

    def stats(self) -> Mapping[str, object]:
        """Counters."""
        return dict(self._counters)

    async def aclose(self) -> None:
        """Finish what was accepted; the connection stays open. Idempotent."""
        if self._closed:
            return
        # Jobs are done in order: behind this one there is nothing of ours, nor where its owner has
        # closed the connection.
        with suppress(StorageClosedError):
            await self._run(lambda _: None)
        self._closed = True

    async def _run(self, job: Callable[[Session], T]) -> T:
        if self._closed:
            raise StorageClosedError(f"{self.path} is closed")
        try:
            return await cast("Any", self._connection)._execute(self._with_session, job)  # noqa: SLF001  # aiosqlite has no public way to run a job
        except ValueError as error:
            if "connection" not in str(error).lower():
                raise
            raise StorageClosedError(f"{self.path} was closed by its owner") from error

    def _with_session(self, job: Callable[[Session], Any]) -> Any:
        if self._session is None:
            connection = cast("Any", self._connection)._conn  # noqa: SLF001  # as above
            self._session = Session(connection, Path(self.path), PreparedCache(0))
        return job(self._session)

    def _idle(self, session: Session) -> Session:
        if session.connection.in_transaction:
            raise StorageUnavailableError(f"{self.path}: its owner has a transaction open")
        return session
