"""A statement: SQL text and the values of its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

from attrs import frozen

__all__ = ["Row", "RowStatement", "SqlValue", "Statement"]

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

    def sql_of(self, count: int) -> str:
        """The SQL that inserts so many rows."""
        return self.sql.replace(self.row, ", ".join([self.row] * count), 1)

    def of_rows(self, rows: Sequence[RowStatement]) -> Statement:
        """This statement for the rows of some like it."""
        args = tuple(chain.from_iterable(row.args for row in rows))
        return Statement(self.sql_of(len(rows)), args)
