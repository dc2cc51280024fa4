"""A group of batches as one transaction on one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

from memory_storage_turso.engine.driver import StatementError, StatementResult, WriteOutcome
from memory_storage_turso.local.connections import Session
from memory_storage_turso.sql.statement import Statement

__all__ = ["write_group"]

_Runner: TypeAlias = Callable[
    [Session, Sequence[Iterable[Statement]]], list[list[StatementResult] | StatementError]
]


def write_group(
    session: Session,
    batches: Sequence[Iterable[Statement]],
    closing: Sequence[Statement],
    before_commit: Callable[[Session, int], None] | None = None,
) -> tuple[WriteOutcome, bool]:
    """Run batches, each whole or not at all, and commit; see ``Driver.write``.

    A savepoint keeps old pages for every batch. Batches rarely fail, so it is tried without first; a
    transaction in which one fails is rolled back and run again with savepoints.

    Args:
        session: the connection.
        batches: what to run.
        closing: what to run behind them.
        before_commit: to be told how many statements the transaction has.

    Returns:
        The outcome, and whether it took the second run.
    """
    replayed = [_Replayed(batch) for batch in batches] if len(batches) > 1 else list(batches)
    try:
        return _transaction(session, replayed, closing, _plainly, before_commit), False
    except _BatchFailedError as failed:
        if len(batches) == 1:
            outcome = _transaction(session, [], closing, _plainly) if closing else None
            return WriteOutcome([failed.error], outcome.closing if outcome else []), False
    return _transaction(session, replayed, closing, _with_savepoints), True


class _BatchFailedError(Exception):
    """A batch was refused in a transaction without savepoints."""

    def __init__(self, error: StatementError) -> None:
        super().__init__(str(error))
        self.error = error


def _plainly(
    session: Session, batches: Sequence[Iterable[Statement]]
) -> list[list[StatementResult] | StatementError]:
    """Run batches as one: statements that only differ in their values run together across batches."""
    ends: list[int] = []

    def chained() -> Iterator[Statement]:
        count = 0
        for batch in batches:
            for statement in batch:
                yield statement
                count += 1
            ends.append(count)

    try:
        results = session.run(chained())
    except StatementError as error:
        if len(batches) == 1:
            raise _BatchFailedError(error) from error
        # Its number counts from the first batch: the second run will tell.
        raise _BatchFailedError(StatementError(error.message, code=error.code)) from error
    return [results[start:end] for start, end in pairwise([0, *ends])]


def _with_savepoints(
    session: Session, batches: Sequence[Iterable[Statement]]
) -> list[list[StatementResult] | StatementError]:
    """Run each batch under a savepoint of its own."""
    return [_with_savepoint(session, batch) for batch in batches]


def _with_savepoint(
    session: Session, batch: Iterable[Statement]
) -> list[StatementResult] | StatementError:
    session.execute("SAVEPOINT batch")
    try:
        results = session.run(batch)
    except StatementError as error:
        session.execute("ROLLBACK TO batch")
        session.execute("RELEASE batch")
        return error
    session.execute("RELEASE batch")
    return results


def _transaction(
    session: Session,
    batches: Sequence[Iterable[Statement]],
    closing: Sequence[Statement],
    run: _Runner,
    before_commit: Callable[[Session, int], None] | None = None,
) -> WriteOutcome:
    session.execute("BEGIN IMMEDIATE")
    try:
        results = run(session, batches)
        closed = session.run(closing)
        if before_commit is not None:
            before_commit(session, sum(len(each) for each in results if isinstance(each, list)))
        session.execute("COMMIT")
    except BaseException:
        session.rollback()
        raise
    return WriteOutcome(list(results), closed)


class _Replayed:
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
