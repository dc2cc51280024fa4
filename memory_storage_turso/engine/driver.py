"""The interface of every database: a local file, a connection of the caller's, a server.

A driver knows SQL as text and values, and transactions; it knows nothing of records. It raises either
a typed error of ``memory_core.errors`` (the database could not be reached, the outcome of a write is
unknown, the disk is full, ...) or a `StatementError`, which stays inside this package: the engine
translates it into the error that the caller sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeAlias, TypeVar

import attrs

from memory_core.errors import (
    MemoryCoreError,
    StorageError,
    StorageUnavailableError,
    UnsupportedCapabilityError,
)
from memory_core.storage import Capability
from memory_core.values import Value
from memory_storage_turso.sql.statement import Row, SqlValue, Statement

__all__ = [
    "BatchResult",
    "BatchTooLargeError",
    "Driver",
    "KnownReasonError",
    "Namespace",
    "NamespaceMovedError",
    "NotAsExpectedError",
    "PreparedCacheStats",
    "Reliance",
    "RowTooLargeError",
    "StatementError",
    "StatementResult",
    "StoreIdentity",
    "StoreSetBackError",
    "WriteOutcome",
]

T = TypeVar("T")


@attrs.frozen(slots=True, eq=False, repr=False)
class StatementResult(Value):
    """The result of one statement.

    Attributes:
        rows: The rows it returned, in order; empty for a statement that returns none.
        rows_affected: Rows inserted, updated or deleted; 0 for a read.
    """

    rows: list[Row]
    rows_affected: int = 0


@attrs.frozen(slots=True, eq=False, repr=False)
class StoreIdentity(Value):
    """The query that identifies the store in a database.

    Attributes:
        statement: One row with one value, no arguments.
        value: What the right store answers.
    """

    statement: Statement
    value: SqlValue


class Namespace(int):
    """The number of a namespace, with its name.

    A wipe may give the name another number, and a server that is set back to a backup may give the number to
    another namespace: who relies on a number checks that it has this name.
    """

    name: str

    def __new__(cls, number: int, name: str) -> Self:
        """A number with a name."""
        made = super().__new__(cls, number)
        made.name = name
        return made


@attrs.frozen(slots=True, eq=False, repr=False)
class Reliance(Value):
    """What a write relies on in the store, beside the store's id.

    Attributes:
        namespaces: Each has this number.
        dictionaries: Ids of dictionaries; all of them are there.
    """

    namespaces: Collection[Namespace]
    dictionaries: Collection[int]


class StoreSetBackError(StorageUnavailableError):
    """A store that lacks what it had: it was set back to an earlier state. Nothing was applied.

    The process has forgotten what it knew of the store when this is raised: the next call looks again.
    """

    def __init__(self, where: str) -> None:
        super().__init__(
            f"{where}: the store was set back to an earlier state; repeat the call on that state"
        )
        self.where = where


class NamespaceMovedError(Exception):
    """A namespace that has another number by now; nothing was applied. Internal: it never crosses the SPI."""


class StatementError(Exception):
    """A statement that the database rejected. Internal: it never crosses the SPI.

    Attributes:
        message: The database's words.
        code: SQLite's extended error name where the driver can tell it, for example
            ``"SQLITE_CONSTRAINT_UNIQUE"``; otherwise the primary name, or ``None``.
        index: Position of the statement in its batch (or in the statements of a read).
    """

    def __init__(self, message: str, *, code: str | None = None, index: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.index = index

    def __str__(self) -> str:
        """Name the statement, the code and the database's words."""
        return f"statement {self.index}: {self.code or 'SQLITE_ERROR'}: {self.message}"


class KnownReasonError(StatementError):
    """A batch that cannot go on, for a reason that is known already.

    Attributes:
        reason: the error for the caller.
    """

    def __init__(self, reason: MemoryCoreError, index: int = 0) -> None:
        super().__init__(str(reason), index=index)
        self.reason = reason


class NotAsExpectedError(StatementError):
    """A `ComparingStatement` whose row is not as it expects, or not in the same bytes.

    Attributes:
        stored: The rows that its transaction has found at that point, for this statement and for the
            comparing statements behind it, by their position in the batch.
    """

    def __init__(self, message: str, index: int, stored: Mapping[int, Sequence[Row]]) -> None:
        super().__init__(message, index=index)
        self.stored = stored


class BatchTooLargeError(StatementError):
    """A batch that does not fit into one transaction of the server; none of it was sent.

    Attributes:
        size: Its size in bytes.
        limit: The most bytes that are sent to the server in one transaction.
        limit_name: The setting that holds the limit.
    """

    def __init__(self, size: int, limit: int, limit_name: str) -> None:
        super().__init__(
            f"a batch of {size} bytes is over {limit_name}={limit}", code="SQLITE_TOOBIG"
        )
        self.size = size
        self.limit = limit
        self.limit_name = limit_name


class RowTooLargeError(StatementError):
    """A row that is larger than the database stores.

    Attributes:
        size: Bytes of its values.
        limit: The most bytes that a row may have.
        limit_name: SQLite's name of the limit.
    """

    def __init__(self, message: str, size: int, limit: int, *, index: int) -> None:
        super().__init__(message, code="SQLITE_TOOBIG", index=index)
        self.size = size
        self.limit = limit
        self.limit_name = "SQLITE_LIMIT_LENGTH"


BatchResult: TypeAlias = list[StatementResult] | StatementError | StorageError
"""The results of a batch's statements, or why the batch was not applied."""


@attrs.frozen(slots=True, eq=False, repr=False)
class WriteOutcome(Value):
    """The outcome of a group of batches whose transaction was committed.

    Attributes:
        results: Per batch, one `StatementResult` per statement, or the `StatementError` that
            rolled the batch back. A group that a server takes only in several transactions may
            be cut short: then each batch that was not applied has the reason, a `StorageError`.
        closing: One `StatementResult` per closing statement, after the last transaction that was
            committed.
        recovered: The answer was lost and the outcome was found out afterwards. The batches are
            applied, but rows and counts of all statements are lost: results are empty, except
            the results of the position statement, which tell the position after the whole group. A
            batch that was rolled back may have a `StorageUnavailableError` for its reason.
    """

    results: list[BatchResult]
    closing: list[StatementResult]
    recovered: bool = False


@attrs.frozen(slots=True, eq=False, repr=False)
class PreparedCacheStats(Value):
    """Statistics of a cache of prepared statements.

    Attributes:
        hits: Uses of a statement that was prepared already.
        misses: Uses that had to prepare it first.
        evictions: Statements evicted for room or for age.
        current_size: Statements held now, over all connections.
        refreshes: Statements prepared again because they were old or the schema had changed.
        prepare_time_saved: Seconds that hits did not spend preparing, from measured costs; 0 for a
            server, which prepares every statement that it is sent.
        bytes_saved: Bytes of SQL text that were not sent again; 0 for a local file.
    """

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    current_size: int = 0
    refreshes: int = 0
    prepare_time_saved: float = 0.0
    bytes_saved: int = 0

    def hit_rate(self) -> float:
        """Hits among all uses, 0 to 1; 0 before the first use."""
        uses = self.hits + self.misses
        return self.hits / uses if uses else 0.0


class Driver(ABC):
    """A database that can be written in groups and read in snapshots.

    Attributes:
        where: The location, fit for messages.
        capabilities: What a store on it declares.
        writing_thread: The native id of a thread of the driver that consumes batches statement by statement,
            so that records may be encoded meanwhile; ``None`` where a batch has to be complete.
        reads_at_once: Whether `read_at_once` may have an answer.
        checks_reads: Whether it takes a `CheckedRead`; elsewhere it takes a `ComparingStatement`.
        may_be_set_back: Whether the store may be set back or replaced while it is open, so that namespaces
            are `Namespace`s.
        together_bytes: Bytes of records from several batches that may be written as one batch: a driver
            splits a group that is too much for one transaction, but not a batch.
        call_timeout: Seconds that a call may take, its wait for earlier writes included; ``None`` where calls
            are not bounded as a whole.
    """

    where: str
    capabilities: frozenset[Capability]
    writing_thread: int | None = None
    reads_at_once: bool = False
    checks_reads: bool = False
    may_be_set_back: bool = False
    together_bytes: int = 4 << 20
    call_timeout: float | None = None

    @abstractmethod
    async def write(
        self,
        batches: Sequence[Iterable[Statement]],
        closing: Sequence[Statement] = (),
        relies: Reliance | None = None,
        within: float | None = None,
    ) -> WriteOutcome:
        """Run every batch in ONE write transaction; when this returns, it is durable.

        Each batch is applied whole or not at all: a failing statement rolls back its batch and no
        other, and becomes that batch's entry in the outcome. The closing statements run in the
        same transaction after all batches; a failure there rolls the whole transaction back and
        is raised as `StatementError`.

        Args:
            batches: May be lazy, and may raise a `StatementError` where they cannot go on.
            closing: Statements that see the effect of every batch that was applied.
            relies: What has to hold in the same transaction.
            within: Seconds that are left of `call_timeout`.

        Raises:
            NamespaceMovedError: A wipe has given a namespace another number; not applied.
            StoreSetBackError: What the write relies on in a server does not hold; not applied.
            StorageUnavailableError: Certainly not applied.
            OutcomeUnknownError: Sent, but whether it was applied could not be found out.
            StorageFullError: The database has no room left; not applied.
            StorageClosedError: The driver was closed before.
            StatementError: A closing statement failed, or the commit itself was rejected;
                not applied.
        """

    @abstractmethod
    async def read_then(
        self,
        statements: Sequence[Statement],
        then: Callable[[list[StatementResult]], T],
        *,
        primary: bool = False,
        namespace: Namespace | None = None,
    ) -> T:
        """Run the statements against one snapshot, in one round trip where there is a network.

        The snapshot has every commit that this driver has seen.

        Args:
            statements: Reads only.
            then: Makes something of the results; runs on a thread, at least where there are many rows.
            primary: The snapshot must contain every commit, also of rows that no position covers:
                only records have positions, namespaces, kinds and dictionaries have none.
            namespace: What the statements rely on.

        Raises:
            NamespaceMovedError: A wipe has given the namespace another number.
            StoreSetBackError: The server's store does not have the namespace under this number.
            StatementError: A statement was rejected; ``index`` tells which.
            StorageUnavailableError: There is no answer.
            StorageClosedError: The driver was closed before.
        """

    def read_at_once(
        self, statements: Sequence[Statement], namespace: Namespace | None = None
    ) -> list[StatementResult] | None:
        """Run short reads against one snapshot on the event loop's thread, where that takes microseconds.

        Args:
            statements: Reads only.
            namespace: What they rely on.

        Returns:
            Their results; ``None`` where it would have to wait, or one was rejected: `read_then` waits, and
            says why.

        Raises:
            NamespaceMovedError: The namespace has another number.
            StorageError: The database could not be used.
        """
        del statements, namespace
        return None

    async def read(
        self,
        statements: Sequence[Statement],
        *,
        primary: bool = False,
        namespace: Namespace | None = None,
    ) -> list[StatementResult]:
        """The results of `read_then` themselves."""
        return await self.read_then(statements, list, primary=primary, namespace=namespace)

    @abstractmethod
    def stats(self) -> Mapping[str, object]:
        """Counters and sizes, by name; every one of them moves."""

    @abstractmethod
    async def aclose(self) -> None:
        """Finish what was accepted, then release everything. Idempotent."""

    @abstractmethod
    def abandon(self) -> None:
        """Release everything without awaiting: the event loop has ended, and with it what was in flight."""

    def drain(self) -> None:  # noqa: B027  # only a server has something to do
        """Begin closing: limit the time of in-flight calls, where they may hang. Idempotent."""

    def use_position(self, statement: Statement, identity: StoreIdentity) -> None:  # noqa: B027  # as above
        """Set the queries for the newest position and the store's id, once their tables exist."""

    def when_set_back(self, renew: Callable[[], Awaitable[None]]) -> None:  # noqa: B027  # as above
        """Set what is called once before a `StoreSetBackError` is raised, to look at the store again."""

    def position(self) -> int | None:
        """The newest position that any process has committed; ``None`` where it is not cheap to tell."""
        return None

    def size_bytes(self) -> int | None:
        """Bytes on disk; ``None`` where only the database can tell."""
        return None

    def prepared_stats(self) -> PreparedCacheStats | None:
        """Statistics of the prepared statements; ``None`` where they are not observed."""
        return None

    async def backup(self, target: Path) -> None:
        """Write a consistent copy, where `capabilities` has ``BACKUP``."""
        del target
        raise UnsupportedCapabilityError(Capability.BACKUP.value, type(self).__name__)
