"""A statement: SQL text and the values of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import TypeAlias

from attrs import field, frozen

__all__ = [
    "CheckedRead",
    "ComparingStatement",
    "Interlude",
    "Row",
    "RowStatement",
    "SqlValue",
    "Statement",
    "as_one",
    "merged",
]

SqlValue: TypeAlias = int | float | str | bytes | None
Row: TypeAlias = tuple[SqlValue, ...]


@frozen(slots=True)
class Statement:
    """One SQL statement and its positional arguments."""

    sql: str
    args: tuple[SqlValue, ...] = ()


@frozen(slots=True)
class RowStatement(Statement):
    """A statement that inserts a row, and could insert several.

    Attributes:
        row: the part of its SQL that stands for the row.
    """

    row: str = ""

    def of_rows(self, rows: Sequence[Statement]) -> Statement:
        """This statement for the rows of several statements that differ only in their values."""
        sql = self.sql.replace(self.row, ", ".join([self.row] * len(rows)), 1)
        return Statement(sql, tuple(chain.from_iterable(row.args for row in rows)))


@frozen(slots=True)
class CheckedRead(Statement):
    """A read whose rows are checked by Python, within the transaction.

    Attributes:
        check: gets the rows, and how to read more in the same transaction. What it raises is the statement's
            own rejection.
    """

    check: Callable[[Sequence[Row], Callable[[Statement], Sequence[Row]]], None] = field(
        kw_only=True, eq=False
    )


@frozen(slots=True)
class ComparingStatement(Statement):
    """A read that fails unless a stored row is as its arguments say.

    Attributes:
        stored: selects that row.
    """

    stored: Statement = field(kw_only=True)


@frozen(slots=True)
class Interlude(Statement):
    """Python that runs between the statements of a batch, within the transaction; it is not one of them.

    Attributes:
        run: gets how to run statements.
    """

    run: Callable[[Callable[[Statement], Sequence[Row]]], None] = field(kw_only=True, eq=False)

    @classmethod
    def of(cls, run: Callable[[Callable[[Statement], Sequence[Row]]], None]) -> Interlude:
        """The interlude that calls this."""
        return cls("", run=run)


def merged(statements: Iterable[Statement], sizes: Sequence[int]) -> Iterator[Sequence[Statement]]:
    """The statements in order; consecutive rows form groups that one statement can insert.

    Args:
        statements: may be lazy; at most the largest size plus one are consumed ahead.
        sizes: how many rows a group may have, largest first, ending with 1. Few sizes make few
            different texts.
    """
    for (_, mergeable), group in groupby(statements, _mergeable):
        if not mergeable:
            yield from ((statement,) for statement in group)
            continue
        while rows := list(islice(group, sizes[0])):
            start = 0
            for size in sizes:
                while len(rows) - start >= size:
                    yield rows[start : start + size]
                    start += size


def as_one(group: Sequence[Statement]) -> Statement:
    """The single statement that is equivalent to a group from `merged`."""
    first = group[0]
    return first.of_rows(group) if len(group) > 1 and isinstance(first, RowStatement) else first


def _mergeable(statement: Statement) -> tuple[str, bool]:
    return statement.sql, isinstance(statement, RowStatement)
