"""Conditions as SQL: which can lead a search, and what the others are, row by row."""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import msgspec
from attrs import frozen

from memory_core.errors import QueryError
from memory_core.query import AllOf, AnyOf, Between, Condition, Query
from memory_core.records import Scalar
from memory_storage_turso.sql.statement import SqlValue
from memory_storage_turso.sql.tables import (
    NO_VALUE,
    Column,
    KindTable,
    MultiTable,
    multi_value,
    padded,
)

__all__ = [
    "Lead",
    "Sql",
    "joined",
    "leads",
    "one_of",
    "one_of_many",
    "possible",
    "remaining",
    "started",
    "started_entries",
]

_MOST_PARAMETERS = 16_384


@frozen
class Sql:
    """A piece of SQL and its parameters."""

    text: str
    args: tuple[SqlValue, ...] = ()

    def __add__(self, other: Sql) -> Sql:
        return Sql(self.text + other.text, self.args + other.args)


@frozen
class Lead:
    """The condition that an arm's B-tree is searched by."""

    condition: AnyOf | AllOf
    at: Column | MultiTable
    rank: int


def possible(conditions: Sequence[Condition]) -> list[Condition] | None:
    """The conditions without those that everything fulfils; ``None`` where nothing can fulfil one."""
    if any(isinstance(item, AnyOf) and not item.values for item in conditions):
        return None
    return [item for item in conditions if isinstance(item, Between) or item.values]


def leads(table: KindTable, conditions: Sequence[Condition]) -> Iterator[Lead]:
    """The conditions an arm can be searched by; a lower rank is expected to find fewer records."""
    for condition in conditions:
        if isinstance(condition, Between):
            continue
        multi = table.multis.get(condition.index)
        if multi is not None:
            yield Lead(condition, multi, 1)
            continue
        column = table.singles[condition.index]
        yield Lead(condition, column, _rank(column, condition.values))


def remaining(table: KindTable, conditions: Sequence[Condition], lead: Lead | None) -> Sql:
    """The conditions that a search by this one leaves to be looked at row by row."""
    sql = Sql("")
    for condition in conditions:
        if lead is None or condition is not lead.condition:
            sql += Sql(" AND ") + _predicate(table, condition)
    return sql


def one_of(column: str, values: tuple[Scalar, ...]) -> Sql:
    """The column has one of these values, ``None`` being one that it can have."""
    some = [value for value in values if value is not None]
    if not some:
        return Sql(f"{column} IS NULL")
    if len(some) == len(values) == 1:
        return Sql(f"{column} = ?", (some[0],))
    if len(some) > _MOST_PARAMETERS:
        msg = f"a condition with {len(some)} values; at most {_MOST_PARAMETERS} can be asked for"
        raise QueryError(msg)
    marks = padded(some)
    among = Sql(f"{column} IN ({', '.join('?' * len(marks))})", tuple(marks))
    if len(some) == len(values):
        return among
    return Sql("(") + among + Sql(f" OR {column} IS NULL)")


def one_of_many(column: str, values: tuple[Scalar, ...]) -> Sql:
    """The value of a multi-valued index is one of these."""
    given = [multi_value(value) for value in values]
    if len(given) == 1:
        return Sql(f"{column} = ?", (given[0],))
    array = msgspec.json.encode(given).decode()
    return Sql(f"{column} IN (SELECT value FROM json_each(?))", (array,))


def started(row: str, order: Column | None, query: Query[Any]) -> list[Sql]:
    """Conditions of which one holds for each record after the cursor; each is one range."""
    start = query.start
    if start is None:
        return []
    sign = "<" if query.descending else ">"
    if order is None:
        return [Sql(f"{row}.id {sign} ?", (start.id.bytes,))]
    column = f"{row}.{order.name}"
    if start.value is not None:
        after = Sql(f"({column}, {row}.id) {sign} (?, ?)", (start.value, start.id.bytes))
        return [after, Sql(f"{column} IS NULL")] if query.descending else [after]
    same = Sql(f"({column} IS NULL AND {row}.id {sign} ?)", (start.id.bytes,))
    return [same] if query.descending else [same, Sql(f"{column} IS NOT NULL")]


def started_entries(ordered: bool, query: Query[Any]) -> list[Sql]:
    """The same along the table of a multi-valued index, where no order value is NULL."""
    start = query.start
    if start is None:
        return []
    sign = "<" if query.descending else ">"
    if not ordered:
        return [Sql(f"m.id {sign} ?", (start.id.bytes,))]
    if start.value is None:
        return [Sql(f"(m.ord, m.id) {sign} ({NO_VALUE}, ?)", (start.id.bytes,))]
    return [Sql(f"(m.ord, m.id) {sign} (?, ?)", (start.value, start.id.bytes))]


def joined(parts: Sequence[Sql], word: str) -> Sql:
    """The parts with a word between them."""
    return Sql(
        word.join(part.text for part in parts), tuple(arg for part in parts for arg in part.args)
    )


def _rank(column: Column, values: tuple[Scalar, ...]) -> int:
    kind: type[Any] = column.index.type
    if None in values or kind is bool or issubclass(kind, Enum):
        return 4
    if column.complete:
        return 0
    if isinstance(values[0], bytes):
        return 1
    return 2 if isinstance(values[0], str) else 3


def _predicate(table: KindTable, condition: Condition) -> Sql:
    if isinstance(condition, Between):
        return _range(f"e.{table.singles[condition.index].name}", condition)
    multi = table.multis.get(condition.index)
    if multi is None:
        return one_of(f"e.{table.singles[condition.index].name}", condition.values)
    among = one_of_many("value", condition.values)
    if isinstance(condition, AnyOf):
        return Sql(f"EXISTS (SELECT 1 FROM json_each(e.{multi.name}) WHERE ") + among + Sql(")")
    return (
        Sql(f"(SELECT count(*) FROM json_each(e.{multi.name}) WHERE ")
        + among
        + Sql(") = ?", (len(condition.values),))
    )


def _range(column: str, condition: Between) -> Sql:
    parts: list[Sql] = []
    if condition.lower is not None:
        parts.append(
            Sql(f"{column} {'>=' if condition.include_lower else '>'} ?", (condition.lower,))
        )
    if condition.upper is not None:
        parts.append(
            Sql(f"{column} {'<=' if condition.include_upper else '<'} ?", (condition.upper,))
        )
    return joined(parts, " AND ") if parts else Sql(f"{column} IS NOT NULL")
