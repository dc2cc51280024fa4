"""A statement: SQL text and the values of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from typing import TypeAlias

from attrs import field, frozen

from memory_core.values import Value

__all__ = [
    "AbsenceRead",
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


@frozen(slots=True, eq=False, repr=False)
class Statement(Value):
    """One SQL statement and its positional arguments."""

    sql: str
    args: tuple[SqlValue, ...] = ()


@frozen(slots=True, eq=False, repr=False)
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


@frozen(slots=True, eq=False, repr=False)
class CheckedRead(Statement):
    """A read whose rows are checked by Python, within the transaction.

    Attributes:
        check: gets the rows, and how to read more in the same transaction. What it raises is the statement's
            own rejection.
    """

    check: Callable[[Sequence[Row], Callable[[Statement], Sequence[Row]]], None] = field(
        kw_only=True, eq=False
    )


@frozen(slots=True, eq=False, repr=False)
class AbsenceRead(CheckedRead):
    """A checked read of one id, which has no rows as a rule; several ids can be read at once.

    Its arguments end with the id, its SQL with ``(?)``, and its rows begin with the id.
    """

    def of_rows(self, reads: Sequence[Statement]) -> Statement:
        """The read for several such reads that differ only in their ids."""
        checks = {read.args[-1]: read.check for read in reads if isinstance(read, AbsenceRead)}

        def check(rows: Sequence[Row], read_more: Callable[[Statement], Sequence[Row]]) -> None:
            for row in rows:
                checks[row[0]]([row], read_more)

        sql = f"{self.sql.removesuffix('(?)')}({', '.join('?' * len(reads))})"
        ids = (read.args[-1] for read in reads)
        return CheckedRead(sql, (*self.args[:-1], *ids), check=check)


@frozen(slots=True, eq=False, repr=False)
class ComparingStatement(Statement):
    """A read that fails unless a stored row is as its arguments say.

    Attributes:
        stored: selects that row.
    """

    stored: Statement = field(kw_only=True)


@frozen(slots=True, eq=False, repr=False)
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
    """The statements in order; consecutive rows, or ids to look for, form groups for one statement.

    Args:
        statements: may be lazy; at most the largest size plus one are consumed ahead.
        sizes: how many rows a group may have, largest first, ending with 1. Few sizes make few
            different texts.
    """
    for (_, like), group in groupby(statements, _mergeable):
        if like is None:
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
    if len(group) > 1 and isinstance(first, RowStatement | AbsenceRead):
        return first.of_rows(group)
    return first


def _mergeable(statement: Statement) -> tuple[str, tuple[SqlValue, ...] | None]:
    """What statements have in common that can be one; the second is None for one that stays alone."""
    if isinstance(statement, RowStatement):
        return statement.sql, ()
    return statement.sql, statement.args[:-1] if isinstance(statement, AbsenceRead) else None
