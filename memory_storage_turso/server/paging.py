"""Reads whose answer is too large for one response, where it cannot be streamed.

Each statement is wrapped in a LIMIT and OFFSET inside one read transaction, so all pages show the
same snapshot; a page that is still too large is halved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from memory_storage_turso.engine.driver import StatementResult
from memory_storage_turso.server.hrana.errors import NoAnswerError, ResponseTooLargeError
from memory_storage_turso.server.hrana.program import (
    EncodedStatement,
    ProgramAnswer,
    Snapshot,
    Step,
    first_row,
    statement_error,
)
from memory_storage_turso.server.hrana.values import encode_value
from memory_storage_turso.sql.statement import Row

_FIRST_PAGE = 1024


class StepRunner(Protocol):
    """A connection, as far as paging needs it."""

    broken: bool

    async def run(self, steps: Sequence[Step]) -> ProgramAnswer:
        """Execute a program."""
        ...


async def read_in_pages(
    connection: StepRunner,
    statements: Sequence[EncodedStatement],
    position: EncodedStatement | None,
) -> Snapshot:
    """Read one snapshot in as many requests as it takes.

    Raises:
        ResponseTooLargeError: A single row is too large.
        StatementError: A statement was refused.
        HranaError: As the connection says.
    """
    # Between its requests the connection holds a transaction open, so it counts as broken until
    # that is over.
    begun = await connection.run([Step("BEGIN")])
    _first(begun, 0)
    connection.broken = True
    mark: Row = ()
    if position is not None:
        mark = first_row(await _run(connection, Step(position.sql, position.args), 0))
    results = [
        await _read_statement(connection, statement, index)
        for index, statement in enumerate(statements)
    ]
    ended = await connection.run([Step("COMMIT")])
    if ended.errors[0] is not None:
        msg = f"the snapshot was lost between two pages: {ended.errors[0].message}"
        raise NoAnswerError(msg)
    connection.broken = False
    return Snapshot(results, mark)


async def _read_statement(
    connection: StepRunner, statement: EncodedStatement, index: int
) -> StatementResult:
    rows: StatementResult = StatementResult([])
    page = _FIRST_PAGE
    sql = f"SELECT * FROM ({statement.sql}) LIMIT ? OFFSET ?"  # noqa: S608 - wraps our own text
    while True:
        bounds = (encode_value(page), encode_value(len(rows.rows)))
        try:
            part = await _run(connection, Step(sql, (*statement.args, *bounds)), index)
        except ResponseTooLargeError:
            if page == 1:
                raise
            page = max(page // 4, 1)
            continue
        rows.rows.extend(part.rows)
        if len(part.rows) < page:
            return rows


async def _run(connection: StepRunner, step: Step, index: int) -> StatementResult:
    return _first(await connection.run([step]), index)


def _first(answer: ProgramAnswer, index: int) -> StatementResult:
    error = answer.errors[0]
    if error is not None:
        raise statement_error(error, index)
    return answer.results[0] or StatementResult([])
