"""Queries as SQL: one statement per page, in a bounded number of shapes, with every value as a parameter.

A page is found in two steps. Inner *arms* select the keys (order value, id) of at most one page each:
every arm runs along one B-tree in the page's order and stops at its limit, so that its cost depends on
the page and not on the store. There is an arm for each value of the leading condition, one for the
records whose index entries are pending, and one for the records without an order value where the cursor
has not reached them. The outer statement merges the arms and fetches the bodies.

Where one of several conditions is rare, arms along its entries replace the others (see ``looks``). So the
cost of a page depends neither on the order of its conditions nor on the kinds of their indexes.

A statement names the index that it runs along (``INDEXED BY``): so the plan depends on no statistics,
and is the same on every version of SQLite.
"""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import evolve

from memory_core.query import AllOf, AnyOf, Between, Condition, Query
from memory_core.records import Scalar
from memory_storage_turso.sql.conditions import (
    Lead,
    Sql,
    along,
    current,
    joined,
    leads,
    one_of,
    one_of_many,
    pending,
    possible,
    predicate,
    remaining,
    remaining_entries,
    searched,
    single_conditions,
    started,
    started_entries,
)
from memory_storage_turso.sql.counts import count_of
from memory_storage_turso.sql.looks import Looks
from memory_storage_turso.sql.statement import SqlValue, Statement
from memory_storage_turso.sql.tables import Column, KindTable, MultiTable

__all__ = ["count_statement", "order_value", "page_statement"]

_MOST_ARMS = 8
_SELECTIVE = 2


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
    keys = _merged(arms, plan.ordering("+o", "+id"), query.page_size + 1, distinct=plan.overlapping)
    extra = "".join(f", e.{column.name}" for column in table.overriding.values())
    page = Sql(
        f"SELECT {plan.order_value('p.o')}, e.id, e.body{extra} FROM ({keys.text}) p "
        f"CROSS JOIN {table.name} e ON e.rid = p.rid AND {current(table)} "
        f"ORDER BY {plan.ordering('p.o', 'p.id')}",
        keys.args,
    )
    return plan.looks.before(page)


def order_value(table: KindTable, query: Query[Any], selected: SqlValue) -> SqlValue:
    """The order value of a row of `page_statement`."""
    if isinstance(selected, str) and table.singles[query.order].index.type is float:
        return float(selected)
    return selected


def count_statement(
    table: KindTable, ns: int, query: Query[Any], up_to: int | None = None
) -> Statement | None:
    """The statement that counts: one row with one number.

    Args:
        table: the kind.
        ns: number of the namespace.
        query: the conditions.
        up_to: where counting may end: a larger number means that there are more.

    Returns:
        ``None`` where no record can fulfil the conditions.
    """
    conditions = possible(query.conditions)
    if conditions is None:
        return None
    if not conditions:
        return count_of(table.kind, ns)
    singles = single_conditions(table, conditions)
    looks = Looks(table, ns, singles if len(singles) > 1 else ())
    # With a limit of zero, a count has no row.
    parts = _counts(table, ns, conditions, looks, up_to)
    counts = [Sql("ifnull((") + part + Sql("), 0)") for part in parts]
    return looks.before(Sql("SELECT ") + joined(counts, " + "))


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
        self.looks = Looks(table, ns, self._looked_at())
        led = [*self.looks.conditions, *([self._lead.condition] if self._lead else [])]
        self.overlapping = any(
            isinstance(item, AnyOf) and item.index in table.multis and len(item.values) > 1
            for item in led
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
        if self._lead is None:
            rows = along(self._table, self._ns, self._order) + self._rest(None)
            yield from self._from_start(rows, self.looks.limit(self._limit))
        else:
            led = self._lead.condition
            limit = self.looks.limit(self._limit, led)
            yield from self._led(led, limit, indexed=bool(self.looks.conditions))
        for condition in self.looks.conditions:
            if self._lead is None or condition is not self._lead.condition:
                limit = self.looks.rare_limit(self._limit, condition)
                yield from self._led(condition, limit, indexed=True)
        yield from self._pending()

    def _pending(self) -> Iterator[Sql]:
        """The arm of the rows whose index entries are pending, where no other arm finds them."""
        limit = Sql("?", (self._limit,))
        at = self._order if self._lead is None else self._lead.at
        if at is None or (isinstance(at, Column) and at.complete):
            if not self.looks.conditions:
                return
            if self._lead is None:
                limit = self.looks.rare_limit(self._limit)
        start = started("e", self._order, self._query)
        whole = Sql(" AND (") + joined(start, " OR ") + Sql(")") if start else Sql("")
        yield self._arm(pending(self._table, self._ns) + self._rest(None) + whole, limit)

    def _looked_at(self) -> Sequence[Condition]:
        """The conditions of which one may be rare, unless it is known which of them leads."""
        singles = single_conditions(self._table, self._conditions)
        if len(singles) > 1:
            return singles
        led = self._lead is not None or any(item.index == self._query.order for item in singles)
        return () if led else singles

    def _choose(self) -> Lead | None:
        lead = min(leads(self._table, self._conditions), key=lambda item: item.rank, default=None)
        if lead is None:
            return None
        if lead.rank <= _SELECTIVE:
            return lead
        # Many records have such a value: it only leads if its B-tree has the order of the page.
        fits = self._natural and len(lead.condition.values) <= _MOST_ARMS
        return lead if fits else None

    def _led(self, condition: Condition, limit: Sql, *, indexed: bool = False) -> Iterator[Sql]:
        """Arms along the entries of a condition.

        With ``indexed``, they leave out the rows whose index entries are pending.
        """
        multi = self._table.multis.get(condition.index)
        if multi is not None and not isinstance(condition, Between):
            yield from self._by_values(condition, multi, limit)
            return
        column = self._table.singles[condition.index]
        source = along(self._table, self._ns, column, indexed=indexed) + Sql(" AND ")
        rest = self._rest(condition)
        if isinstance(condition, Between):
            yield from self._from_start(source + predicate(self._table, condition) + rest, limit)
            return
        for values in self._groups(condition):
            rows = source + one_of(f"e.{column.name}", values) + rest
            yield from self._from_start(rows, limit)

    def _by_values(self, condition: AnyOf | AllOf, multi: MultiTable, limit: Sql) -> Iterator[Sql]:
        source = Sql(
            f"FROM {multi.table} m CROSS JOIN {self._table.name} e INDEXED BY {self._table.by_id} "
            f"ON e.ns = m.ns AND e.id = m.id WHERE m.ns = ? AND ",
            (self._ns,),
        )
        groups, led = self._groups(condition), condition
        if isinstance(condition, AllOf):
            led = AllOf(condition.index, condition.values[:1])
            groups = [led.values]
        rest = remaining_entries(self._table, self._conditions, led)
        for values in groups:
            several = len(values) > 1
            found = source + one_of_many("m.value", values) + rest
            yield from self._from_start(found, limit, entries=True, distinct=several)

    def _groups(self, condition: AnyOf | AllOf) -> list[tuple[Scalar, ...]]:
        """The values of each arm: one value per arm where that keeps the order."""
        if self._natural and len(condition.values) <= _MOST_ARMS:
            return [(value,) for value in condition.values]
        return searched(condition)

    def _from_start(
        self, source: Sql, limit: Sql, *, entries: bool = False, distinct: bool = False
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
            yield self._arm(source, limit, entries=entries, distinct=distinct)
        for start in starts:
            after = source + Sql(" AND ") + start
            yield self._arm(after, limit, entries=entries, distinct=distinct)

    def _arm(
        self, source: Sql, limit: Sql, *, entries: bool = False, distinct: bool = False
    ) -> Sql:
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
            + Sql(f" ORDER BY {ordering} LIMIT ")
            + limit
        )

    def _rest(self, led: Condition | None) -> Sql:
        return remaining(self._table, self._conditions, led)


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
    union = joined(
        [Sql("SELECT o, id, rid FROM (") + arm + Sql(")") for arm in arms],
        " UNION " if distinct else " UNION ALL ",
    )
    # SQLite would sort each part of a union that has an order, in a temporary table of its own.
    found = Sql("SELECT o, id, rid FROM (") + union
    return found + Sql(f") ORDER BY {ordering} LIMIT ?", (limit,))


def _counts(
    table: KindTable, ns: int, conditions: Sequence[Condition], looks: Looks, up_to: int | None
) -> Iterator[Sql]:
    """Statements whose numbers together are the count."""
    lead = min(leads(table, conditions), key=lambda item: item.rank, default=None)
    # Without a lead, all conditions are ranges.
    led = conditions[0] if lead is None else lead.condition
    looked = bool(looks.conditions)
    for each, rows in _rows_led(table, ns, conditions, led, indexed=looked):
        yield _count(each, rows, lambda limit: looks.limit(limit, led), up_to)
    for condition in looks.conditions:
        if condition is not led:
            for each, rows in _rows_led(table, ns, conditions, condition, indexed=True):
                limited = partial(looks.rare_limit, led=condition)
                yield _count(each, rows, limited, up_to)
    column = table.singles.get(led.index)
    if looked or column is None or not column.complete:
        rows = pending(table, ns) + remaining(table, conditions, None)
        yield _count("", rows, lambda limit: Sql("?", (limit,)), up_to)


def _count(each: str, rows: Sql, limited: Callable[[SqlValue], Sql], up_to: int | None) -> Sql:
    """Counts rows: all, or up to a bound.

    Args:
        each: what is counted once; each row, where it is empty.
        rows: the rows.
        limited: the limit, or zero where these rows are not read.
        up_to: the bound.
    """
    if up_to is None:
        counted = f"DISTINCT {each}" if each else "*"
        return Sql(f"SELECT count({counted}) ") + rows + Sql(" LIMIT ") + limited(1)
    found = Sql(f"SELECT DISTINCT {each} " if each else "SELECT 1 ") + rows
    return Sql("SELECT count(*) FROM (") + found + Sql(" LIMIT ") + limited(up_to) + Sql(")")


def _rows_led(
    table: KindTable,
    ns: int,
    conditions: Sequence[Condition],
    led: Condition,
    *,
    indexed: bool,
) -> Iterator[tuple[str, Sql]]:
    """Rows along the entries of a condition, and what of them is counted; see `_Page._led`."""
    multi = table.multis.get(led.index)
    if multi is not None and not isinstance(led, Between):
        yield _entries_led(table, ns, conditions, led, multi)
        return
    column = table.singles[led.index]
    rows = along(table, ns, column, indexed=indexed) + Sql(" AND ")
    rest = remaining(table, conditions, led)
    if isinstance(led, Between):
        yield "", rows + predicate(table, led) + rest
        return
    for values in searched(led):
        yield "", rows + one_of(f"e.{column.name}", values) + rest


def _entries_led(
    table: KindTable,
    ns: int,
    conditions: Sequence[Condition],
    led: AnyOf | AllOf,
    multi: MultiTable,
) -> tuple[str, Sql]:
    if isinstance(led, AllOf):
        led = AllOf(led.index, led.values[:1])
    join = (
        f" CROSS JOIN {table.name} e INDEXED BY {table.by_id} ON e.ns = m.ns AND e.id = m.id"
        if any(item.index not in table.multis for item in conditions)
        else ""
    )
    rows = (
        Sql(f"FROM {multi.table} m{join} WHERE m.ns = ? AND ", (ns,))
        + one_of_many("m.value", led.values)
        + remaining_entries(table, conditions, led)
    )
    return "" if len(led.values) == 1 else "m.id", rows
