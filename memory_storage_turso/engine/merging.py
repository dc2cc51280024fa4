"""Puts of a group in few statements, for servers.

sqld prepares each statement anew that it is sent, and with a put all the triggers of its table, which
takes several times as long as inserting the row. So rows that only differ in their values are sent as
one statement.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from memory_storage_turso.sql.statement import RowStatement, Statement

__all__ = ["merged"]

_ROWS = (64, 16, 4, 1)
"""Rows of a statement. Few sizes, so that there are few texts; none is too long to be stored."""


def merged(statements: Iterable[Statement]) -> list[Statement]:
    """The same statements, rows that follow each other put together where they fit."""
    found: list[Statement] = []
    for (_, mergeable), group in groupby(
        statements, key=lambda each: (each.sql, isinstance(each, RowStatement))
    ):
        rows = list(group)
        if mergeable:
            found += _together([row for row in rows if isinstance(row, RowStatement)])
        else:
            found += rows
    return found


def _together(rows: list[RowStatement]) -> Iterable[Statement]:
    start = 0
    for size in _ROWS:
        while len(rows) - start >= size:
            yield rows[start].of_rows(rows[start : start + size])
            start += size
