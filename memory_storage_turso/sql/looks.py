"""Which condition of a query is rare: a statement finds out itself, before it reads.

SQLite has no statistics here that would be current, and plans a statement before it knows the values. So the
statement first counts the entries of its conditions, up to a bound, one condition after the other. The first
one that has fewer is searched alone: the other parts of the statement get a limit of zero, at which SQLite
does not begin them.
"""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import Sequence

from memory_core.query import Between, Condition
from memory_storage_turso.sql.conditions import (
    Sql,
    along,
    joined,
    one_of,
    one_of_many,
    predicate,
    searched,
)
from memory_storage_turso.sql.statement import SqlValue, Statement
from memory_storage_turso.sql.tables import KindTable

__all__ = ["Looks"]

_RARE = 128
"""A condition with more entries than this does not lead for being rare."""

_NONE = -1
"""Stands for the condition that leads where none is rare."""

_MOST_LOOKS = 8
_MOST_VALUES = 64


class Looks:
    """Bounded looks at the entries of some conditions.

    Args:
        table: the kind.
        ns: number of the namespace.
        conditions: all conditions of a query, one for each value that a record must have, the probably
            rarest first; none where it is known which of them leads.

    Attributes:
        conditions: the conditions that are looked at. Each makes the statement longer, so that more than a
            few, and conditions of many values, are only checked.
    """

    def __init__(self, table: KindTable, ns: int, conditions: Sequence[Condition]) -> None:
        self._table = table
        self._ns = ns
        self.conditions = [
            item
            for item in conditions
            if isinstance(item, Between) or len(item.values) <= _MOST_VALUES
        ][:_MOST_LOOKS]

    def before(self, statement: Sql) -> Statement:
        """The statement, which looks first."""
        if not self.conditions:
            return Statement(statement.text, statement.args)
        cases = [
            Sql("WHEN (") + self._count(condition) + Sql(f") <= {_RARE} THEN {number}")
            for number, condition in enumerate(self.conditions)
        ]
        look = joined(cases, " ") + Sql(f" ELSE {_NONE} END")
        whole = Sql("WITH look(chosen) AS (SELECT CASE ") + look + Sql(") ") + statement
        return Statement(whole.text, whole.args)

    def limit(self, limit: SqlValue, led: Condition | None = None) -> Sql:
        """The limit of what is read where no condition is rare, or this one leads; else zero."""
        if not self.conditions:
            return Sql("?", (limit,))
        others = [n for n, condition in enumerate(self.conditions) if condition is not led]
        return _without(others, limit)

    def rare_limit(self, limit: SqlValue, led: Condition | None = None) -> Sql:
        """The limit of what is read where this condition, or any, leads for being rare; else zero."""
        if led is None:
            return _without([_NONE], limit)
        others = [n for n, condition in enumerate(self.conditions) if condition is not led]
        return _without([_NONE, *others], limit)

    def _count(self, condition: Condition) -> Sql:
        """How many entries a condition has, up to one more than are rare."""
        multi = self._table.multis.get(condition.index)
        if isinstance(condition, Between):
            column = self._table.singles[condition.index]
            parts = [
                along(self._table, self._ns, column)
                + Sql(" AND ")
                + predicate(self._table, condition)
            ]
        elif multi is not None:
            parts = [
                Sql(f"FROM {multi.table} m WHERE m.ns = ? AND ", (self._ns,))
                + one_of_many("m.value", condition.values)
            ]
        else:
            column = self._table.singles[condition.index]
            parts = [
                along(self._table, self._ns, column)
                + Sql(" AND ")
                + one_of(f"e.{column.name}", values)
                for values in searched(condition)
            ]
        entries = joined([Sql("SELECT 1 ") + part for part in parts], " UNION ALL ")
        return Sql("SELECT count(*) FROM (") + entries + Sql(f" LIMIT {_RARE + 1})")


def _without(chosen: Sequence[int], limit: SqlValue) -> Sql:
    # As a list after IN, the numbers would be put into a table first, which takes longer than the rest.
    cases = " ".join(f"WHEN {number} THEN 0" for number in chosen)
    case = f"CASE chosen {cases} ELSE ? END" if cases else "?"
    return Sql(f"(SELECT {case} FROM look)", (limit,))
