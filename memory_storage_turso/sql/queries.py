"""Queries as SQL: one statement per page, in a bounded number of shapes, with every value as a parameter.

A page is found in two steps. Inner *arms* select the keys (order value, id) of at most one page each:
every arm runs along one B-tree in the page's order and stops at its limit, so that its cost depends on
the page and not on the store. There is an arm for each value of the leading condition, one for the
records whose index entries are pending, and one for the records without an order value where the cursor
has not reached them. The outer statement merges the arms and fetches the bodies.

A statement names the index that it runs along (``INDEXED BY``): so the plan depends on no statistics,
and is the same on every version of SQLite.
"""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import msgspec
from attrs import evolve, frozen

from memory_core.errors import QueryError
from memory_core.query import AllOf, AnyOf, Between, Condition, Query
from memory_core.records import Scalar
from memory_storage_turso.sql.statement import SqlValue, Statement
from memory_storage_turso.sql.tables import (
    NO_VALUE,
    Column,
    KindTable,
    MultiTable,
    multi_value,
    padded,
)

__all__ = ["count_statement", "order_value", "page_statement"]

_MOST_ARMS = 8
_SELECTIVE = 2
_MOST_PARAMETERS = 16_384


def page_statement(table: KindTable, ns: int, query: Query[Any]) -> Statement | None:
    """The statement of a page: rows of order value (see `order_value`), id, body and the overriding columns.

    It selects one row more than the page has, which shows that there is a next page.

    Returns:
        ``None`` where no record can fulfil the conditions.

    Raises:
        QueryError: a condition has more values than a statement can have parameters.
    """
    conditions = possible(query.conditions)
    if conditions is None:
        return None
    plan = _Page(table, ns, query, conditions)
    arms = list(plan.arms())
    keys = _merged(arms, plan.ordering("o", "id"), query.page_size + 1, distinct=plan.overlapping)
    extra = "".join(f", e.{column.name}" for column in table.overriding.values())
    sql = (
        f"SELECT {plan.order_value('p.o')}, e.id, e.body{extra} FROM ({keys.text}) p "
        f"CROSS JOIN {table.name} e ON e.rid = p.rid AND {_current(table)} "
        f"ORDER BY {plan.ordering('p.o', 'p.id')}"
    )
    return Statement(sql, keys.args)


def order_value(table: KindTable, query: Query[Any], selected: SqlValue) -> SqlValue:
    """The order value of a row of `page_statement`."""
    if isinstance(selected, str) and table.singles[query.order].index.type is float:
        return float(selected)
    return selected


def count_statement(table: KindTable, ns: int, query: Query[Any]) -> Statement | None:
    """The statement that counts: one row with one number.

    Returns:
        ``None`` where no record can fulfil the conditions.
    """
    conditions = possible(query.conditions)
    if conditions is None:
        return None
    if not conditions:
        return Statement(
            f"SELECT count(*) FROM {table.name} INDEXED BY {table.by_id} WHERE ns = ?", (ns,)
        )
    lead = min(leads(table, conditions), key=lambda item: item.rank, default=None)
    parts = list(_counts(table, ns, conditions, lead))
    sql = " + ".join(f"({part.text})" for part in parts)
    return Statement(f"SELECT {sql}", tuple(arg for part in parts for arg in part.args))


class _Page:
    """The parts of one page's statement."""

    def __init__(
        self, table: KindTable, ns: int, query: Query[Any], conditions: Sequence[Condition]
    ) -> None:
        self._table = table
        self._ns = ns
        self._query = query
        self._conditions = _after_start(query, conditions)
        self._order = table.singles[query.order] if query.order else None
        self._ranged = any(
            isinstance(item, Between) and item.index == query.order for item in conditions
        )
        self._limit = query.page_size + 1
        self._natural = self._order is table.order
        self._lead = self._choose()
        self.overlapping = (
            self._lead is not None
            and isinstance(self._lead.at, MultiTable)
            and len(self._lead.condition.values) > 1
        )

    def order_value(self, value: str) -> str:
        """The order value as it is selected: servers answer in JSON, which has no infinities."""
        if self._order is None or self._order.index.type is not float:
            return value
        return f"CASE {value} WHEN 9e999 THEN 'inf' WHEN -9e999 THEN '-inf' ELSE {value} END"

    def ordering(self, value: str, record_id: str) -> str:
        """The terms of ``ORDER BY`` for the page's order, over these columns."""
        direction = "DESC" if self._query.descending else "ASC"
        terms = [f"{value} {direction}"] if self._order is not None else []
        return ", ".join([*terms, f"{record_id} {direction}"])

    def arms(self) -> Iterator[Sql]:
        """The statements whose results together contain the page."""
        lead = self._lead
        if lead is None:
            yield from self._scan()
            if self._order is not None and not self._order.complete:
                yield from self._unindexed()
            return
        if isinstance(lead.at, MultiTable):
            yield from self._by_values(lead, lead.at)
            yield from self._unindexed()
            return
        yield from self._by_column(lead, lead.at)
        if not lead.at.complete:
            yield from self._unindexed()

    def _choose(self) -> Lead | None:
        lead = min(leads(self._table, self._conditions), key=lambda item: item.rank, default=None)
        if lead is None:
            return None
        if lead.rank <= _SELECTIVE:
            return lead
        # Many records have such a value: it only leads if its B-tree has the order of the page.
        fits = self._natural and len(lead.condition.values) <= _MOST_ARMS
        return lead if fits else None

    def _scan(self) -> Iterator[Sql]:
        """Arms along the order itself, which check the conditions row by row."""
        yield from self._from_start(_along(self._table, self._ns, self._order) + self._rest(None))

    def _by_column(self, lead: Lead, column: Column) -> Iterator[Sql]:
        source = _along(self._table, self._ns, column) + Sql(" AND ")
        rest = self._rest(lead)
        for value in self._groups(lead):
            yield from self._from_start(source + one_of(f"e.{column.name}", value) + rest)

    def _by_values(self, lead: Lead, multi: MultiTable) -> Iterator[Sql]:
        condition = lead.condition
        source = Sql(
            f"FROM {multi.table} m CROSS JOIN {self._table.name} e INDEXED BY {self._table.by_id} "
            f"ON e.ns = m.ns AND e.id = m.id WHERE m.ns = ? AND ",
            (self._ns,),
        )
        if isinstance(condition, AllOf):
            groups: list[tuple[Scalar, ...]] = [condition.values[:1]]
            rest = self._rest(lead if len(condition.values) == 1 else None)
        else:
            groups = self._groups(lead)
            rest = self._rest(lead)
        for values in groups:
            several = len(values) > 1
            found = source + one_of_many("m.value", values) + rest
            yield from self._from_start(found, entries=True, distinct=several)

    def _groups(self, lead: Lead) -> list[tuple[Scalar, ...]]:
        """The values of each arm: one value per arm where that keeps the order."""
        values = lead.condition.values
        if self._natural and len(values) <= _MOST_ARMS:
            return [(value,) for value in values]
        some = tuple(value for value in values if value is not None)
        return [group for group in (some, (None,) if None in values else ()) if group]

    def _unindexed(self) -> Iterator[Sql]:
        start = started("e", self._order, self._query)
        whole = Sql("") if not start else Sql(" AND (") + joined(start, " OR ") + Sql(")")
        yield self._arm(_pending(self._table, self._ns) + self._rest(None) + whole)

    def _from_start(
        self, source: Sql, *, entries: bool = False, distinct: bool = False
    ) -> Iterator[Sql]:
        """An arm, or two where the records without an order value are a range of their own."""
        if entries and self._natural:
            starts = started_entries(self._order is not None, self._query)
        else:
            starts = started("e", self._order, self._query)
            if self._ranged:
                # A record without an order value is in no range of order values.
                starts = starts[:1]
        if not starts:
            yield self._arm(source, entries=entries, distinct=distinct)
        for start in starts:
            yield self._arm(source + Sql(" AND ") + start, entries=entries, distinct=distinct)

    def _arm(self, source: Sql, *, entries: bool = False, distinct: bool = False) -> Sql:
        value = "NULL" if self._order is None else f"e.{self._order.name}"
        if distinct:
            # A record that has several of the values is found several times.
            ordering = self.ordering("o", "id")
        elif entries and self._natural:
            ordering = self.ordering("m.ord", "m.id")
        else:
            ordering = self.ordering(value, "e.id")
        return (
            Sql(f"SELECT {'DISTINCT ' if distinct else ''}{value} AS o, e.id AS id, e.rid AS rid ")
            + source
            + Sql(f" ORDER BY {ordering} LIMIT ?", (self._limit,))
        )

    def _rest(self, lead: Lead | None) -> Sql:
        return remaining(self._table, self._conditions, lead)


def _after_start(query: Query[Any], conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions without the bound that the cursor has passed: SQLite might start at the bound."""
    if query.start is None or query.start.value is None or not query.order:
        return list(conditions)
    reached = {"upper": None} if query.descending else {"lower": None}
    return [
        evolve(condition, **reached)
        if isinstance(condition, Between) and condition.index == query.order
        else condition
        for condition in conditions
    ]


def _merged(arms: Sequence[Sql], ordering: str, limit: int, *, distinct: bool) -> Sql:
    if len(arms) == 1:
        return arms[0]
    union = " UNION " if distinct else " UNION ALL "
    text = union.join(f"SELECT o, id, rid FROM ({arm.text})" for arm in arms)
    args = tuple(arg for arm in arms for arg in arm.args)
    return Sql(f"{text} ORDER BY {ordering} LIMIT ?", (*args, limit))


def _along(table: KindTable, ns: int, column: Column | None) -> Sql:
    """Rows of a namespace along the B-tree of a column, or of the id."""
    by = table.by_id if column is None else column.by
    complete = column is None or column.complete
    indexed = _current(table) if complete else f"e.{table.indexed} = 1"
    return Sql(f"FROM {table.name} e INDEXED BY {by} WHERE e.ns = ? AND {indexed}", (ns,))


def _current(table: KindTable) -> str:
    """A condition that every row fulfils, and that is an error where the kind is declared otherwise now.

    SQLite evaluates it once, as the column is never NULL.
    """
    return f"e.{table.indexed} IS NOT NULL"


def _pending(table: KindTable, ns: int) -> Sql:
    """Rows of a namespace whose index entries are pending."""
    return Sql(
        f"FROM {table.name} e INDEXED BY {table.by_pending} "
        f"WHERE e.ns = ? AND e.{table.indexed} = 0",
        (ns,),
    )


def _counts(
    table: KindTable, ns: int, conditions: Sequence[Condition], lead: Lead | None
) -> Iterator[Sql]:
    """Statements whose numbers together are the count."""
    count, every = Sql("SELECT count(*) "), remaining(table, conditions, None)
    if lead is not None and isinstance(lead.at, MultiTable):
        yield _count_entries(table, ns, lead, lead.at, conditions)
        yield count + _pending(table, ns) + every
        return
    if lead is not None and isinstance(lead.at, Column):
        column = lead.at
        found = Sql(" AND ") + one_of(f"e.{column.name}", lead.condition.values)
        found += remaining(table, conditions, lead)
    else:
        ranged = next((item for item in conditions if isinstance(item, Between)), None)
        column = None if ranged is None else table.singles[ranged.index]
        found = every
    yield count + _along(table, ns, column) + found
    if column is not None and not column.complete:
        yield count + _pending(table, ns) + every


def _count_entries(
    table: KindTable, ns: int, lead: Lead, multi: MultiTable, conditions: Sequence[Condition]
) -> Sql:
    condition = lead.condition
    values = condition.values[:1] if isinstance(condition, AllOf) else condition.values
    complete = len(values) == len(condition.values)
    rest = remaining(table, conditions, lead if complete else None)
    counted = "*" if len(values) == 1 else "DISTINCT m.id"
    join = (
        f" CROSS JOIN {table.name} e INDEXED BY {table.by_id} ON e.ns = m.ns AND e.id = m.id"
        if rest.text
        else ""
    )
    return (
        Sql(f"SELECT count({counted}) FROM {multi.table} m{join} WHERE m.ns = ? AND ", (ns,))
        + one_of_many("m.value", values)
        + rest
    )


# Conditions


@frozen
class Sql:
    """A piece of SQL and its parameters."""

    text: str
    args: tuple[SqlValue, ...] = ()

    def __add__(self, other: Sql) -> Sql:
        return Sql(self.text + other.text, self.args + other.args)


@frozen
class Lead:
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


def remaining(table: KindTable, conditions: Sequence[Condition], lead: Lead | None) -> Sql:
    """The conditions that a search by the leading one has to check row by row."""
    sql = Sql("")
    for condition in conditions:
        if lead is None or condition is not lead.condition:
            sql += Sql(" AND ") + _predicate(table, condition)
    return sql


def one_of(column: str, values: tuple[Scalar, ...]) -> Sql:
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


def one_of_many(column: str, values: tuple[Scalar, ...]) -> Sql:
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
