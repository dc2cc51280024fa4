"""The driver of a database that the caller has opened and will close."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import aiosqlite

from memory_core.errors import ConfigurationError, StorageClosedError, StorageUnavailableError
from memory_core.storage import Capability
from memory_storage_turso.engine.driver import (
    Driver,
    Namespace,
    Reliance,
    StatementResult,
    WriteOutcome,
)
from memory_storage_turso.local.prepared import PreparedCache
from memory_storage_turso.local.session import Session, write_group
from memory_storage_turso.sql.statement import Statement

__all__ = ["BorrowedDriver"]

T = TypeVar("T")


class BorrowedDriver(Driver):
    """One connection for everything. Make it with ``open``."""

    checks_reads = True

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._session: Session | None = None
        self._closed = False
        self._writes = self._rewrites = self._reads = 0
        self.where = "an open database"

    @classmethod
    async def open(cls, connection: aiosqlite.Connection) -> BorrowedDriver:
        """Use a connection, which the caller closes when the store is closed.

        Raises:
            ConfigurationError: its settings do not let the store work.
        """
        if connection.text_factory is not str:
            raise ConfigurationError("the connection's text_factory must be str")
        driver = cls(connection)
        await driver._run(lambda session: session.execute("PRAGMA foreign_keys = ON"))
        files = await driver._run(lambda session: session.execute("PRAGMA database_list"))
        driver.where = str(files[0][2] or "") or ":memory:"
        durable = {Capability.DURABLE} if driver.where != ":memory:" else set[Capability]()
        own = (Capability.BOUNDED_COUNTS, Capability.NAMESPACES, Capability.PARTS)
        driver.capabilities = frozenset({*own, *durable})
        return driver

    async def write(
        self,
        batches: Sequence[Iterable[Statement]],
        closing: Sequence[Statement] = (),
        relies: Reliance | None = None,
        within: float | None = None,
    ) -> WriteOutcome:
        """Run every batch in one transaction; see ``Driver.write``."""
        del within  # `busy_timeout` bounds the wait
        namespaces = () if relies is None else relies.namespaces
        self._writes += 1
        outcome, again, _ = await self._run(
            lambda session: write_group(self._idle(session), batches, closing, namespaces)
        )
        self._rewrites += again
        return outcome

    async def read_then(
        self,
        statements: Sequence[Statement],
        then: Callable[[list[StatementResult]], T],
        *,
        primary: bool = False,
        namespace: Namespace | None = None,
    ) -> T:
        """Read, and make something of the results on the same thread; see ``Driver.read_then``."""
        del primary  # there is only one connection
        self._reads += 1
        return await self._run(
            lambda session: self._idle(session).read(statements, then, namespace)
        )

    def stats(self) -> Mapping[str, object]:
        """Counters."""
        return {"writes": self._writes, "rewrites": self._rewrites, "reads": self._reads}

    async def aclose(self) -> None:
        """Finish what was accepted; the connection stays open. Idempotent."""
        if self._closed:
            return
        # Jobs run in order: this one runs after all of ours, unless the owner has closed the connection.
        with suppress(StorageClosedError):
            await self._run(lambda _: None)
        self._closed = True

    def abandon(self) -> None:
        """The connection is the caller's, who has to release it."""
        self._closed = True

    async def _run(self, job: Callable[[Session], T]) -> T:
        if self._closed:
            raise StorageClosedError(f"{self.where} is closed")
        try:
            return await cast("Any", self._connection)._execute(self._with_session, job)  # noqa: SLF001  # aiosqlite has no public way to run a job
        except ValueError as error:
            if "connection" not in str(error).lower():
                raise
            raise StorageClosedError(f"{self.where} was closed by its owner") from error

    def _with_session(self, job: Callable[[Session], Any]) -> Any:
        if self._session is None:
            connection = cast("Any", self._connection)._conn  # noqa: SLF001  # as above
            # Observing would take the place of an authorizer that the owner has set.
            self._session = Session(connection, Path(self.where), PreparedCache(0))
        return job(self._session)

    def _idle(self, session: Session) -> Session:
        if session.connection.in_transaction:
            raise StorageUnavailableError(f"{self.where}: its owner has a transaction open")
        return session
