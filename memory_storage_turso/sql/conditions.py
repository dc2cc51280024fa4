"""Conditions as SQL: what a row, or an entry of a multi-valued index, has to fulfil."""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import msgspec
from attrs import define, frozen

from memory_core.errors import QueryError
from memory_core.query import AllOf, AnyOf, Between, Condition, Query
from memory_core.records import Scalar
from memory_core.values import Value
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
    "along",
    "current",
    "joined",
    "leads",
    "one_of",
    "one_of_many",
    "pending",
    "possible",
    "predicate",
    "remaining",
    "remaining_entries",
    "searched",
    "single_conditions",
    "started",
    "started_entries",
]

_MOST_PARAMETERS = 16_384


@define
class Sql:
    """A piece of SQL and its parameters."""

    # Not frozen: a query is made of dozens, and those would take twice as long to make.

    text: str
    args: tuple[SqlValue, ...] = ()

    def __add__(self, other: Sql) -> Sql:
        return Sql(self.text + other.text, self.args + other.args)


def along(table: KindTable, ns: int, column: Column | None, *, indexed: bool = False) -> Sql:
    """Rows of a namespace along the B-tree of a column, or of the id.

    Args:
        table: the kind.
        ns: number of the namespace.
        column: the column.
        indexed: leave out the rows whose index entries are pending, also where the B-tree has them.
    """
    by = table.by_id if column is None else column.by
    every = (column is None or column.complete) and not indexed
    which = current(table) if every else f"e.{table.indexed} = 1"
    return Sql(f"FROM {table.name} e INDEXED BY {by} WHERE e.ns = ? AND {which}", (ns,))


def current(table: KindTable) -> str:
    """A condition that every row fulfils, and that is an error where the kind is declared otherwise now.

    SQLite evaluates it once, as the column is never NULL.
    """
    return f"e.{table.indexed} IS NOT NULL"


def pending(table: KindTable, ns: int) -> Sql:
    """Rows of a namespace whose index entries are pending."""
    return Sql(
        f"FROM {table.name} e INDEXED BY {table.by_pending} "
        f"WHERE e.ns = ? AND e.{table.indexed} = 0",
        (ns,),
    )


@frozen(eq=False, repr=False)
class Lead(Value):
    """The leading condition: the one that an arm's B-tree is searched by."""

    condition: AnyOf | AllOf
    at: Column | MultiTable
    rank: int


def possible(conditions: Sequence[Condition]) -> list[Condition] | None:
    """The conditions without those that every record fulfils; ``None`` where no record can."""
    if any(isinstance(item, AnyOf) and not item.values for item in conditions):
        return None
    return [item for item in conditions if isinstance(item, Between) or item.values]


def leads(table: KindTable, conditions: Sequence[Condition]) -> Iterator[Lead]:
    """The conditions that an arm can be searched by; a lower rank probably finds fewer records."""
    for condition in conditions:
        if isinstance(condition, Between):
            continue
        multi = table.multis.get(condition.index)
        if multi is not None:
            yield Lead(condition, multi, 1)
            continue
        column = table.singles[condition.index]
        yield Lead(condition, column, _rank(column, condition.values))


def single_conditions(table: KindTable, conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions, with one for each of the values that a record must have all of.

    The one that probably finds the fewest records comes first, ranges come last.
    """
    singles: list[Condition] = []
    for condition in conditions:
        if isinstance(condition, AllOf) and len(condition.values) > 1:
            singles += [AllOf(condition.index, (value,)) for value in condition.values]
        else:
            singles.append(condition)
    leading = sorted(leads(table, singles), key=lambda item: item.rank)
    ranges = [item for item in singles if isinstance(item, Between)]
    return [*(lead.condition for lead in leading), *ranges]


def remaining(table: KindTable, conditions: Sequence[Condition], led: Condition | None) -> Sql:
    """The conditions that a search by the leading one has to check row by row."""
    sql = Sql("")
    for condition in conditions:
        if condition is not led:
            sql += Sql(" AND ") + predicate(table, condition)
    return sql


def remaining_entries(
    table: KindTable, conditions: Sequence[Condition], led: Condition | None
) -> Sql:
    """Like `remaining`, for a search along the entries of a multi-valued index, ``m``.

    The entries of other multi-valued indexes, and other values of that one, are looked up, without a look at
    the row. Of a condition that a record has several values, one leads, as a condition of its own.
    """
    found = led.values if isinstance(led, AllOf) else ()
    sql = Sql("")
    for condition in conditions:
        multi = table.multis.get(condition.index)
        if condition is led:
            continue
        if multi is None or isinstance(condition, Between):
            sql += Sql(" AND ") + predicate(table, condition)
            continue
        groups = [condition.values]
        if isinstance(condition, AllOf):
            own = led is not None and led.index == condition.index
            groups = [(value,) for value in condition.values if not (own and value in found)]
        same = "t.ns = m.ns AND t.id = m.id" + (" AND t.ord = m.ord" if table.order else "")
        for values in groups:
            sql += Sql(f" AND EXISTS (SELECT 1 FROM {multi.table} t WHERE {same} AND ")
            sql += one_of_many("t.value", values) + Sql(")")
    return sql


def searched(condition: AnyOf | AllOf) -> list[tuple[Scalar, ...]]:
    """The values of a condition in groups by which a B-tree can be searched."""
    some = tuple(value for value in condition.values if value is not None)
    return [group for group in (some, (None,) if None in condition.values else ()) if group]


def one_of(column: str, values: Sequence[Scalar]) -> Sql:
    """The condition that a column has one of these values, which may include ``None``."""
    some = [value for value in values if value is not None]
    if not some:
        return Sql(f"{column} IS NULL")
    if len(some) == len(values) == 1:
        return Sql(f"{column} = ?", (some[0],))
    if len(some) > _MOST_PARAMETERS:
        msg = f"a condition has {len(some)} values; at most {_MOST_PARAMETERS} are possible"
        raise QueryError(msg)
    marks = padded(some)
    among = Sql(f"{column} IN ({', '.join('?' * len(marks))})", tuple(marks))
    if len(some) == len(values):
        return among
    return Sql("(") + among + Sql(f" OR {column} IS NULL)")


def one_of_many(column: str, values: Sequence[Scalar]) -> Sql:
    """The condition that a value of a multi-valued index is one of these."""
    given = [multi_value(value) for value in values]
    if len(given) == 1:
        return Sql(f"{column} = ?", (given[0],))
    array = msgspec.json.encode(given).decode()
    return Sql(f"{column} IN (SELECT value FROM json_each(?))", (array,))


def started(row: str, order: Column | None, query: Query[Any]) -> list[Sql]:
    """The conditions of which each record after the cursor fulfils one; each is one range."""
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
    """Like `started`, along the table of a multi-valued index, where no order value is NULL."""
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
    """Join the parts with a word between them."""
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


def predicate(table: KindTable, condition: Condition) -> Sql:
    """The condition on a row, ``e``."""
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
