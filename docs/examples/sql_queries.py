"""Queries as SQL, over one table with a row for each index value of each record.

``vals`` has the columns ``kind``, ``name`` (of the index), ``key`` (``sort_bytes`` of the value) and ``id``;
``records`` has ``kind``, ``id`` and ``body``. Keys sort by their bytes, so that nothing depends on how a
database sorts texts or where it puts NULL.
"""

# ruff: noqa: S608  # names of columns are constants; values are parameters

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from memory_core.backend import NO_VALUE, sort_bytes
from memory_core.query import AllOf, AnyOf, Between, Query

TABLES = """
CREATE TABLE records (kind TEXT, id BLOB, body BLOB, PRIMARY KEY (kind, id));
CREATE TABLE vals (kind TEXT, name TEXT, key BLOB, id BLOB, PRIMARY KEY (kind, name, key, id));
CREATE INDEX vals_of_record ON vals (kind, id, name);
"""


def rows(kind: str, record_id: UUID, values: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """The rows of ``vals`` of a record with these index values."""
    many = ((name, of if isinstance(of, tuple) else (of,)) for name, of in values.items())
    return {(kind, name, sort_bytes(one), record_id.bytes) for name, of in many for one in of}


def statement(query: Query[Any], *, counts: bool = False) -> tuple[str, list[Any]]:
    """The statement of a page, with one row more than it has, or of a count; and its parameters."""
    given: list[Any] = [query.kind]

    def mark(value: Any) -> str:  # PostgreSQL: return f"${len(given)}"
        given.append(value)
        return "?"

    source, order, where = "records r", "r.id", ["r.kind = ?"]
    if query.order and not counts:
        source += " JOIN vals o ON o.kind = r.kind AND o.id = r.id"
        where.append(f"o.name = {mark(query.order)}")
        order = "o.key, r.id"
    for condition in query.conditions:
        for name, test in tests(condition, mark):
            same = f"c.kind = r.kind AND c.id = r.id AND c.name = {name}"
            where.append(f"EXISTS (SELECT 1 FROM vals c WHERE {same} AND {test})")
    if counts:
        return f"SELECT count(*) FROM {source} WHERE {' AND '.join(where)}", given
    if query.start is not None:
        keys = [sort_bytes(query.start.value)] if query.order else []
        place = ", ".join(mark(value) for value in (*keys, query.start.id.bytes))
        where.append(f"({order}) {'<' if query.descending else '>'} ({place})")
    if query.descending:
        order = order.replace(",", " DESC,") + " DESC"
    found = f"SELECT r.id, r.body FROM {source} WHERE {' AND '.join(where)}"
    return f"{found} ORDER BY {order} LIMIT {mark(query.page_size + 1)}", given


def tests(condition: Any, mark: Callable[[Any], str]) -> list[tuple[str, str]]:
    """Rows that a record must have: the parameter of the index's name, and a test of ``c.key``, for each."""
    name = condition.index
    match condition:
        case AnyOf(values=values):
            return [
                (mark(name), f"c.key IN ({', '.join(mark(sort_bytes(one)) for one in values)})")
            ]
        case AllOf(values=values):
            return [(mark(name), f"c.key = {mark(sort_bytes(one))}") for one in values]
        case Between():
            named, parts = mark(name), [f"c.key > {mark(NO_VALUE)}"]
            if condition.lower is not None:
                sign = ">=" if condition.include_lower else ">"
                parts.append(f"c.key {sign} {mark(sort_bytes(condition.lower))}")
            if condition.upper is not None:
                sign = "<=" if condition.include_upper else "<"
                parts.append(f"c.key {sign} {mark(sort_bytes(condition.upper))}")
            return [(named, " AND ".join(parts))]
    raise TypeError(f"a condition that this version does not know: {condition!r}")
