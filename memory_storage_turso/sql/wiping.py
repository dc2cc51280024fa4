"""Deleting all records of a namespace in few statements, instead of by the triggers of each record.

Whatever kinds the store has, known here or not: the statements name what is found in the schema.
"""

# ruff: noqa: S608  # names come from the schema, quoted; values are parameters

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TypeAlias

from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.tables import delete_all, quoted

__all__ = [
    "DELETE_TRIGGERS",
    "VALUE_TABLES",
    "Trigger",
    "has_others",
    "records_in",
    "without_triggers",
]

Trigger: TypeAlias = tuple[str, str]
"""Name and SQL."""

_OF_KIND = (
    "EXISTS (SELECT 1 FROM _kinds k WHERE substr({0}, 1, length(k.kind) + 1) = k.kind || '$')"
)

DELETE_TRIGGERS = Statement(
    "SELECT name, sql FROM sqlite_master t WHERE type = 'trigger' "
    "AND tbl_name IN (SELECT kind FROM _kinds) AND instr(sql, ' AFTER DELETE ON ') "
    f"AND (substr(name, 1, 8) = '_counts$' OR {_OF_KIND.format('t.name')}) ORDER BY rowid"
)
"""Selects the triggers of this package that run when a record is deleted; not those of other programs."""

VALUE_TABLES = Statement(
    f"SELECT name FROM sqlite_master t WHERE type = 'table' AND {_OF_KIND.format('t.name')}"
)
"""Selects the tables of multi-valued indexes."""


def records_in(ns: int) -> Statement:
    """Selects how many records a namespace has."""
    return Statement("SELECT ifnull(sum(records), 0) FROM _counts WHERE ns = ?", (ns,))


def has_others(table: str, ns: int) -> Statement:
    """Selects whether a table has rows of other namespaces."""
    found = f"EXISTS (SELECT 1 FROM {quoted(table)} WHERE ns {{}} ?)"
    return Statement(f"SELECT {found.format('<')} OR {found.format('>')}", (ns, ns))


def without_triggers(
    ns: int,
    kinds: Sequence[str],
    tables: Sequence[str],
    triggers: Sequence[Trigger],
    shared: Container[str],
) -> Iterator[Statement]:
    """Deletes all records of a namespace, with what the triggers would have done for each.

    Args:
        ns: the namespace.
        kinds: every kind of the store, in the order in which the change feed names their records.
        tables: those of the multi-valued indexes.
        triggers: the triggers that run when a record is deleted: dropped before, and made again after it.
        shared: the tables that have rows of other namespaces. SQLite empties any other by its pages, and not
            by its rows and their index entries.
    """
    for name, _ in triggers:
        yield Statement(f"DROP TRIGGER {quoted(name)}")
    for kind in kinds:
        yield Statement(
            "INSERT INTO _changes (ns, kind, id, operation) "
            f"SELECT ns, ?, id, 'delete' FROM {quoted(kind)} WHERE ns = ?",
            (kind, ns),
        )
    for table in (*tables, *kinds):
        yield delete_all(table, ns if table in shared else None)
    yield Statement("UPDATE _counts SET records = 0 WHERE ns = ?", (ns,))
    for _, sql in triggers:
        yield Statement(sql)
