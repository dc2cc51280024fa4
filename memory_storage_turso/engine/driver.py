"""The one interface the storage speaks to a database through, local file or server.

A driver knows SQL as text and values, and transactions; it knows nothing of records. What it
raises is either a typed error of ``memory_core.errors`` (the database could not be reached, the
outcome of a write is unknown, the disk is full, ...) or a `StatementError`, which stays inside this
package: the storage translates it into the error its user should see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import attrs

from memory_core.errors import StorageError
from memory_storage_turso.sql.statement import Row, SqlValue, Statement


@attrs.frozen(slots=True)
class StatementResult:
    """What one statement gave back.

    Attributes:
        rows: The rows it returned, in order; empty for a statement that returns none.
        rows_affected: Rows inserted, updated or deleted; 0 for a read.
    """

    rows: list[Row]
    rows_affected: int = 0


@attrs.frozen(slots=True)
class StoreIdentity:
    """How to tell which store a database holds.

    Attributes:
        statement: One row with one value, no arguments.
        value: What the right store answers.
    """

    statement: Statement
    value: SqlValue


class StatementError(Exception):
    """A statement the database refused. Internal: it never crosses the SPI.

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


class BatchTooLargeError(StatementError):
    """A batch that cannot fit into one transaction of the server; none of it was sent.

    Attributes:
        size: What it would take, in bytes.
        limit: The most the server is sent in one transaction.
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
        limit: The most a row may have.
        limit_name: SQLite's name of the limit.
    """

    def __init__(self, message: str, size: int, limit: int, *, index: int) -> None:
        super().__init__(message, code="SQLITE_TOOBIG", index=index)
        self.size = size
        self.limit = limit
        self.limit_name = "SQLITE_LIMIT_LENGTH"


@attrs.frozen(slots=True)
class WriteOutcome:
    """What became of a group of batches whose transaction was committed.

    Attributes:
        results: Per batch, one `StatementResult` per statement, or the `StatementError` that
            rolled the batch back. A group that a server takes only in several transactions may
            be cut short: then each batch that was not applied has the reason, a `StorageError`.
        closing: One `StatementResult` per closing statement, after the last transaction that stands.
        recovered: The answer was lost and the outcome was found out afterwards. The batches
            stand, but rows and counts of all statements are gone: results are empty, save
            those of the position statement, which tell the position after the whole group. A
            batch that was rolled back may have a `StorageUnavailableError` for its reason.
    """

    results: list[list[StatementResult] | StatementError | StorageError]
    closing: list[StatementResult]
    recovered: bool = False


@attrs.frozen(slots=True)
class PreparedCacheStats:
    """Figures of a cache of prepared statements.

    Attributes:
        hits: Uses of a statement that was prepared already.
        misses: Uses that had to prepare it first.
        evictions: Statements dropped for room or for age.
        current_size: Statements held now, over all connections.
        refreshes: Statements prepared anew because they were old or the schema had changed.
        prepare_time_saved: Seconds that hits did not spend preparing, from measured costs; 0 for a
            server, which prepares anew whatever it is sent.
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


class Driver(Protocol):
    """A database that can be written in groups and read in snapshots."""

    async def write(
        self, batches: Sequence[Iterable[Statement]], closing: Sequence[Statement] = ()
    ) -> WriteOutcome:
        """Run every batch in ONE write transaction; what this returns is durable.

        Each batch runs under a savepoint of its own: a failing statement rolls back its batch and
        no other, and becomes that batch's entry in the outcome. The closing statements run in the
        same transaction after all batches; a failure there rolls the whole transaction back and
        is raised as `StatementError`.

        Args:
            batches: May be lazy; a driver may consume them on a thread of its own.
            closing: Statements that see the effect of every batch that stood.

        Raises:
            StorageUnavailableError: Certainly not applied.
            OutcomeUnknownError: Sent, but whether it was applied could not be found out.
            StorageFullError: The database has no room left; not applied.
            StorageClosedError: The driver was closed before.
            StatementError: A closing statement failed, or the commit itself was refused;
                not applied.
        """
        ...

    async def read(
        self,
        statements: Sequence[Statement],
        *,
        min_position: int | None = None,
        primary: bool = False,
    ) -> list[StatementResult]:
        """Run the statements against one snapshot, in one round trip where there is a network.

        Args:
            statements: Reads only.
            min_position: The snapshot must contain every change up to this position. A driver
                whose every read sees the newest commit may ignore it.
            primary: The snapshot must contain every commit, also of rows that no position covers:
                only records have positions, namespaces, kinds and dictionaries have none.

        Raises:
            StatementError: A statement was refused; ``index`` tells which.
            StorageUnavailableError: No answer to be had.
            StorageClosedError: The driver was closed before.
        """
        ...

    def stats(self) -> Mapping[str, object]:
        """Counters and sizes, by name; every one of them moves."""
        ...

    async def aclose(self) -> None:
        """Finish what was accepted, then release everything. Idempotent."""
        ...
