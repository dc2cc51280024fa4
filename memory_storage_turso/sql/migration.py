"""The statements that bring a kind's table up to date with what its class declares now.

Columns are added and filled from the bodies first; `finish` does the rest in one transaction, in which
the old indexes and triggers are replaced. A migration that was interrupted starts over.
"""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from memory_core.codec import EncodedPut
from memory_core.records import Reference
from memory_storage_turso.sql.schema import (
    declaration,
    declare,
    kind_objects,
    kind_table,
    multi_fill,
)
from memory_storage_turso.sql.statement import Row, SqlValue, Statement
from memory_storage_turso.sql.tables import KindTable, Tables, quoted

__all__ = ["Migration"]


class Migration:
    """The steps for one kind.

    Attributes:
        changed: the indexes whose columns are new or hold values of another type now.

    Args:
        table: the kind, as it is declared now.
        tables: all kinds.
        before: its declaration in the store.
    """

    def __init__(self, table: KindTable, tables: Tables, before: str) -> None:
        self._table = table
        self._tables = tables
        self._before = _decoded(before)
        self._after = _decoded(declaration(table, tables))
        indexes: Mapping[str, object] = self._before["indexes"]
        self.changed = [
            name for name, index in self._after["indexes"].items() if indexes.get(name) != index
        ]

    @property
    def is_needed(self) -> bool:
        """Whether the declarations differ."""
        return self._before != self._after

    def columns(self) -> Statement:
        """Selects the names of the table's columns."""
        return Statement("SELECT name FROM pragma_table_info(?)", (self._table.kind,))

    def add_columns(self, present: Iterable[Row]) -> list[Statement]:
        """Adds the columns of the changed indexes; ``present`` is the result of `columns`."""
        names = {name for (name,) in present}
        return [
            Statement(f"ALTER TABLE {self._table.name} ADD COLUMN {column}")
            for column in map(self._column, self.changed)
            if column.strip('"') not in names
        ]

    def rows(self, after: int, limit: int) -> Statement:
        """Selects number, id and body of at most ``limit`` rows whose number is above ``after``."""
        sql = f"SELECT rid, id, body FROM {self._table.name} WHERE rid > ? ORDER BY rid LIMIT ?"
        return Statement(sql, (after, limit))

    def fill(self, rid: SqlValue, record: EncodedPut | None) -> Statement:
        """Fills the changed columns of a row.

        Args:
            rid: its number.
            record: the record in it; ``None`` if it is damaged: reading it still reports the damage,
                and no query by the new indexes finds it.
        """
        settings = ", ".join(f"{self._column(name)} = ?" for name in self.changed)
        values: list[SqlValue] = [None] * len(self.changed)
        if record is not None:
            put = self._table.put(0, record, indexed=True).args[2:-1]
            names = (index.name for index in self._table.cls.indexes)
            by_name = dict(zip(names, put, strict=True))
            values = [by_name[name] for name in self.changed]
        return Statement(f"UPDATE {self._table.name} SET {settings} WHERE rid = ?", (*values, rid))

    def dangling(self, reference: Reference) -> Statement:
        """Selects the id of a record whose reference points at a missing record."""
        column = self._column(reference.field)
        return Statement(
            f"SELECT id FROM {self._table.name} e WHERE {column} IS NOT NULL AND NOT EXISTS "
            f"(SELECT 1 FROM {self._tables[reference.kind].name} t "
            f"WHERE t.ns = e.ns AND t.id = e.{column}) LIMIT 1"
        )

    def objects(self) -> Statement:
        """Selects the database's triggers, indexes and tables, tables last."""
        return Statement(
            "SELECT type, name, tbl_name, sql FROM sqlite_master "
            "WHERE type IN ('trigger', 'index', 'table') ORDER BY type DESC"
        )

    def finish(self, objects: Sequence[Row]) -> list[Statement]:
        """Replaces the indexes and triggers; ``objects`` is the result of `objects`."""
        table = self._table
        own = f"{table.kind}$"
        statements = [
            Statement(f"DROP {str(kind).upper()} IF EXISTS {quoted(str(name))}")
            for kind, name, _, _ in objects
            if str(name).startswith(own) and quoted(str(name)) != table.by_id
        ]
        if set(self._before["own_keys"]) != set(self._after["own_keys"]):
            # Other kinds' triggers on the table are dropped with it, so they are created again.
            others = [
                Statement(str(sql))
                for kind, name, at, sql in objects
                if (kind, at) == ("trigger", table.kind) and not str(name).startswith(own)
            ]
            statements += [*self._rebuild(), *others]
        statements += [Statement(sql) for sql in kind_objects(table, self._tables)]
        statements += [Statement(multi_fill(table, multi)) for multi in table.multis.values()]
        return [*statements, declare(table, self._tables)]

    def _rebuild(self) -> list[Statement]:
        """Rebuilds the table with its rows: the only way to change foreign keys."""
        table = self._table
        columns = ["rid", "ns", "id", "indexed"]
        columns += [self._column(index.name) for index in table.cls.indexes]
        columns.append("body")
        listed, copy = ", ".join(columns), quoted(f"{table.kind}$copy")
        return [
            Statement(f"CREATE TABLE {copy} AS SELECT {listed} FROM {table.name}"),
            Statement(f"DROP TABLE {table.name}"),
            *(Statement(sql) for sql in kind_table(table)),
            Statement(f"INSERT INTO {table.name} ({listed}) SELECT {listed} FROM {copy}"),
            Statement(f"DROP TABLE {copy}"),
        ]

    def _column(self, name: str) -> str:
        table = self._table
        return (table.singles.get(name) or table.multis[name]).name


def _decoded(declared: str) -> dict[str, Any]:
    return msgspec.json.decode(declared, type=dict[str, Any])
