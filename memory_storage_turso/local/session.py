"""Statements and transactions on one connection; everything here runs on the connection's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from memory_storage_turso.engine.driver import (
    BatchResult,
    Namespace,
    NamespaceMovedError,
    StatementError,
    StatementResult,
    WriteOutcome,
)
from memory_storage_turso.local.errors import SQLITE_ERRORS, failure_of
from memory_storage_turso.local.forks import TrackedConnection
from memory_storage_turso.local.prepared import PreparedCache
from memory_storage_turso.sql.statement import (
    CheckedRead,
    Interlude,
    Row,
    SqlValue,
    Statement,
    as_one,
    merged,
)
from memory_storage_turso.sql.system import NAMESPACE_NUMBER

__all__ = ["Session", "write_group"]

T = TypeVar("T")

_ROWS = (16, 1)
"""Rows of a statement: each costs two crossings of the GIL, which another thread may hold just then."""
_NOTHING = StatementResult([], 0)


class Session:
    """Runs statements on a connection.

    Attributes:
        in_use: held while a statement or transaction runs; forks wait for it.

    Args:
        connection: the connection.
        path: of its database, for errors.
        prepared: statistics of its prepared statements.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, prepared: PreparedCache) -> None:
        self.connection = connection
        self.in_use: AbstractContextManager[object] = (
            connection.in_use if isinstance(connection, TrackedConnection) else nullcontext()
        )
        self.path = path
        self._prepared = prepared
        self._cursor = self._new_cursor()

    def execute(self, sql: str, args: Sequence[SqlValue] = (), *, index: int = 0) -> list[Row]:
        """Run one statement; its rows.

        Raises:
            StatementError: the database rejected it; with this ``index``.
            StorageError: the database could not be used.
        """
        self._prepared.begin_use()
        started = perf_counter()
        try:
            with self.in_use:
                return self._cursor.execute(sql, args).fetchall()
        except BaseException as error:
            self._renew_cursor()
            if isinstance(error, SQLITE_ERRORS):
                raise failure_of(error, self.path, index=index) from error
            raise
        finally:
            self._prepared.end_use(sql, perf_counter() - started)

    def _renew_cursor(self) -> None:
        """Drop a failed statement: it would keep the files open after the connection is closed."""
        with suppress(sqlite3.ProgrammingError):  # the connection is closed already
            self._cursor.close()
            self._cursor = self._new_cursor()

    def close(self) -> None:
        """Close the connection; for one without a thread of its own."""
        self._cursor.close()
        self.connection.close()

    def _new_cursor(self) -> sqlite3.Cursor:
        cursor = self.connection.cursor()
        cursor.row_factory = None
        return cursor

    def read(
        self,
        statements: Sequence[Statement],
        then: Callable[[list[StatementResult]], T],
        namespace: Namespace | None = None,
    ) -> T:
        """Run reads against one snapshot, and make something of the results.

        Raises:
            NamespaceMovedError: the namespace has another number.
        """
        if len(statements) == 1:
            results = [StatementResult(self.execute(statements[0].sql, statements[0].args))]
        else:
            with self.in_use:
                self.execute("BEGIN")
                try:
                    results = [
                        StatementResult(self.execute(statement.sql, statement.args, index=index))
                        for index, statement in enumerate(statements)
                    ]
                finally:
                    self.rollback()
        # No number comes back: one that is right now was right then.
        if namespace is not None and self.execute(NAMESPACE_NUMBER, (namespace.name,)) != [
            (namespace,)
        ]:
            raise NamespaceMovedError(namespace.name)
        return then(results)

    def run(self, statements: Iterable[Statement]) -> list[StatementResult]:
        """Run statements in order, rows that follow each other together.

        The affected rows of statements that ran together are counted with the last one.
        """
        results: list[StatementResult] = []
        for group in merged(statements, _ROWS):
            statement = as_one(group)
            if isinstance(statement, Interlude):
                statement.run(partial(self._run_for, len(results)))
                continue
            try:
                rows = self.execute(statement.sql, statement.args, index=len(results))
                if isinstance(statement, CheckedRead):
                    self._check(statement, rows, len(results))
            except StatementError:
                self._run_singly(group, len(results))
                raise
            results += [_NOTHING] * (len(group) - 1)
            results.append(StatementResult(rows, max(self._cursor.rowcount, 0)))
        return results

    def _run_singly(self, group: Sequence[Statement], start: int) -> None:
        """Find which statement of a group was rejected; what they did is rolled back in any case."""
        for index, single in enumerate(group if len(group) > 1 else (), start):
            rows = self.execute(single.sql, single.args, index=index)
            if isinstance(single, CheckedRead):
                self._check(single, rows, index)

    def _run_for(self, index: int, statement: Statement) -> list[Row]:
        """Run a statement on behalf of the one with this index."""
        return self.execute(statement.sql, statement.args, index=index)

    def _check(self, statement: CheckedRead, rows: Sequence[Row], index: int) -> None:
        try:
            statement.check(rows, lambda other: self.execute(other.sql, other.args))
        except StatementError as error:
            error.index = index
            raise

    def rollback(self) -> None:
        """End the transaction, if one is open."""
        if self.connection.in_transaction:
            self.execute("ROLLBACK")


def write_group(
    session: Session,
    batches: Sequence[Iterable[Statement]],
    closing: Sequence[Statement],
    namespaces: Collection[Namespace] = (),
) -> tuple[WriteOutcome, bool, int]:
    """Run batches in one transaction, each whole or not at all, and commit; see ``Driver.write``.

    A savepoint keeps old pages for every batch. Batches rarely fail, so they are run without savepoints
    first; a transaction in which one fails is rolled back and run again with them.

    Args:
        session: the connection.
        batches: what to run.
        closing: what to run after them.
        namespaces: what they rely on.

    Returns:
        The outcome, whether it took the second run, and how many rows the connection has written since it was
        opened.

    Raises:
        NamespaceMovedError: a namespace has another number.
    """
    # A fork waits for the whole transaction.
    with session.in_use:
        several = len(batches) > 1
        replayed = [_ReplayableBatch(batch) for batch in batches] if several else batches
        ends: list[int] = []
        _begin(session, namespaces)
        try:
            found = session.run(_chained(replayed, ends))
        except StatementError as error:
            session.rollback()
            results = None if several else [error]
        except BaseException:
            session.rollback()
            raise
        else:
            results = [found[start:end] for start, end in pairwise([0, *ends])]
            outcome = _finish(session, results, closing)
            return outcome, False, session.connection.total_changes
        _begin(session, namespaces)
        try:
            results = results or [_with_savepoint(session, batch) for batch in replayed]
        except BaseException:
            session.rollback()
            raise
        outcome = _finish(session, results, closing)
        return outcome, several, session.connection.total_changes


def _begin(session: Session, namespaces: Collection[Namespace]) -> None:
    """Begin to write, and check the namespaces: from then on nobody moves them."""
    session.execute("BEGIN IMMEDIATE")
    moved: list[str] = []
    try:
        for namespace in namespaces:
            rows = session.execute(NAMESPACE_NUMBER, (namespace.name,))
            moved += [namespace.name] if rows != [(namespace,)] else []
    except BaseException:
        session.rollback()
        raise
    if moved:
        session.rollback()
        raise NamespaceMovedError(*moved)


def _finish(
    session: Session,
    results: Sequence[BatchResult],
    closing: Sequence[Statement],
) -> WriteOutcome:
    """Run the closing statements and commit."""
    closed: list[StatementResult] = []
    try:
        for index, statement in enumerate(closing):
            rows = session.execute(statement.sql, statement.args, index=index)
            closed.append(StatementResult(rows))
        session.execute("COMMIT")
    except BaseException:
        session.rollback()
        raise
    return WriteOutcome(list(results), closed)


def _with_savepoint(session: Session, batch: Iterable[Statement]) -> BatchResult:
    session.execute("SAVEPOINT batch")
    try:
        results = session.run(batch)
    except StatementError as error:
        session.execute("ROLLBACK TO batch")
        session.execute("RELEASE batch")
        return error
    session.execute("RELEASE batch")
    return results


def _chained(batches: Sequence[Iterable[Statement]], ends: list[int]) -> Iterator[Statement]:
    """The statements of all batches; ``ends`` gets their number after each batch."""
    number = 0
    for batch in batches:
        for statement in batch:
            yield statement
            number += not isinstance(statement, Interlude)
        ends.append(number)


class _ReplayableBatch:
    """A lazy batch that can be run a second time."""

    def __init__(self, statements: Iterable[Statement]) -> None:
        self._left = iter(statements)
        self._taken: list[Statement] = []
        self._error: StatementError | None = None

    def __iter__(self) -> Iterator[Statement]:
        yield from self._taken
        if self._error is not None:
            raise self._error
        while True:
            try:
                statement = next(self._left)
            except StopIteration:
                return
            except StatementError as error:
                self._error = error
                raise
            self._taken.append(statement)
            yield statement
