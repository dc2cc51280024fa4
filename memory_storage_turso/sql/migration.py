"""The statements that bring a kind's table up to date with what its class declares now.

First `begin` keeps every process out that knows the earlier declaration, adds columns, and removes the
triggers and B-trees that do not suit them; then the columns are filled from the bodies; `finish` makes the
new ones. Each of the two is one transaction, and each gives the kind another revision. What fills columns
names the revision: where another process has gone further meanwhile, it finds no such column and changes
nothing. A migration that was interrupted is continued by the next process that opens the store.
"""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence

from attrs import evolve

from memory_core.records import Acyclic, IndexValues, Reference, Unique
from memory_storage_turso.sql.declarations import Declaration
from memory_storage_turso.sql.schema import (
    acyclic_triggers,
    declaration,
    interim_objects,
    kind_objects,
    kind_table,
    multi_fill,
    reference_triggers,
    unique_index,
)
from memory_storage_turso.sql.statement import Row, SqlValue, Statement
from memory_storage_turso.sql.tables import (
    KindTable,
    Tables,
    failing_unless,
    indexed_column,
    quoted,
)

__all__ = ["OBJECTS", "Migration"]

OBJECTS = Statement(
    "SELECT type, name, tbl_name, sql FROM sqlite_master "
    "WHERE type IN ('trigger', 'index', 'table') ORDER BY type DESC"
)
"""Selects the database's triggers, indexes and tables, tables last."""

_EXAMPLES = 3


class Migration:
    """The steps for one kind.

    Attributes:
        kind: the kind.
        types: all kinds.
        changed: the indexes whose columns have to be filled.
        begun: whether an earlier process has begun to fill them, and this one can go on.
        rules: the constraints and references that hold for no records yet: those that are new, and those on
            changed indexes.

    Args:
        tables: all kinds, as they are declared now.
        kind: the one to migrate.
        stored: its declaration as it is stored.
        objects: the result of `OBJECTS`.
    """

    def __init__(self, tables: Tables, kind: str, stored: str, objects: Sequence[Row]) -> None:
        self.kind = kind
        self.types = tables.types
        self._tables = tables
        self._stored = stored
        self._before = before = Declaration.decoded(stored)
        after = declaration(tables[kind], tables)
        self.changed = before.changed(after)
        # The table has the foreign keys of before until it is rebuilt.
        begun = evolve(after, filling=tuple(self.changed), own_keys=before.own_keys)
        self.begun = before.agrees(begun)
        at = before.revision if self.begun or not self.changed else _after(before.revision)
        self._interim = KindTable.of(tables[kind].cls, at)
        self._table = KindTable.of(tables[kind].cls, _after(at))
        self._begun = evolve(begun, revision=at)
        self._after = evolve(after, revision=self._table.revision)
        self.rules = list(self._new_rules({_plain(str(row[3])) for row in objects}))

    def begin(self, objects: Sequence[Row], columns: Iterable[Row]) -> list[Statement]:
        """Makes the table ready to be filled.

        Args:
            objects: the result of `OBJECTS`.
            columns: the result of `columns`.
        """
        table = self._interim
        interim = map(Statement, interim_objects(table, self._tables, self.changed))
        return [
            self._before.expect(self.kind, self._stored),
            *self._drop(objects),
            self._rename(self._before, table),
            *self._add_columns(columns),
            *interim,
            self._begun.replace(self.kind),
        ]

    def columns(self) -> Statement:
        """Selects the names of the table's columns."""
        return Statement("SELECT name FROM pragma_table_info(?)", (self.kind,))

    def rows(self, after: int, limit: int) -> Statement:
        """Selects number, id and body of at most ``limit`` rows whose number is above ``after``."""
        sql = f"SELECT rid, id, body FROM {self._table.name} WHERE rid > ? ORDER BY rid LIMIT ?"
        return Statement(sql, (after, limit))

    def fill(self, rid: SqlValue, values: IndexValues | None) -> Statement:
        """Fills the changed columns of a row.

        Args:
            rid: its number.
            values: the index values of its record; ``None`` if that is damaged: reading it still reports the
                damage, and no query by the new indexes finds it.
        """
        table = self._interim
        settings = ", ".join(f"{self._column(name)} = ?" for name in self.changed)
        new = [None if values is None else table.value(name, values[name]) for name in self.changed]
        sql = f"UPDATE {table.name} SET {settings} WHERE rid = ? AND {table.indexed} IS NOT NULL"
        return Statement(sql, (*new, rid))

    def finish(self, objects: Sequence[Row]) -> list[Statement]:
        """Makes the new B-trees and triggers; ``objects`` is the result of `OBJECTS`."""
        table = self._table
        fresh = self.changed and not self.begun
        before, stored = (self._begun, self._begun.text) if fresh else (self._before, self._stored)
        # Another process may have deleted targets while the column was filled.
        dangling = (
            failing_unless(
                f"NOT EXISTS ({self._dangling(rule)})",
                (),
                f"memory_core:dangling:{self.kind}:{rule.field}",
            )
            for rule in self.rules
            if isinstance(rule, Reference)
        )
        return [
            before.expect(self.kind, stored),
            *dangling,
            *self._drop(objects),
            self._rename(before, table),
            *self._rebuilt(objects),
            *(Statement(sql) for sql in kind_objects(table, self._tables)),
            *(Statement(multi_fill(table, multi)) for multi in table.multis.values()),
            self._after.replace(self.kind),
        ]

    def duplicates(self, rule: Unique) -> Statement:
        """Selects pairs of ids of records with the same unique values."""
        columns = [self._column(name) for name in rule.fields]
        some = " AND ".join(f"{column} IS NOT NULL" for column in columns)
        return Statement(
            f"SELECT min(id), max(id) FROM {self._table.name} WHERE {some} "
            f"GROUP BY ns, {', '.join(columns)} HAVING count(*) > 1 LIMIT {_EXAMPLES}"
        )

    def dangling(self, rule: Reference) -> Statement:
        """Selects ids of records whose reference points at a missing record, and the missing ids."""
        return Statement(f"{self._dangling(rule)} LIMIT {_EXAMPLES}")

    def edges(self, rule: Acyclic) -> Statement:
        """Selects namespace, id, source, target and group of the edges that must form no cycle."""
        columns = [self._column(name) for name in (rule.source, rule.target, rule.group)]
        groups = tuple(sorted(rule.groups))
        marks = ", ".join("?" * len(groups))
        return Statement(
            f"SELECT ns, id, {', '.join(columns)} FROM {self._table.name} "
            f"WHERE {columns[2]} IN ({marks})",
            groups,
        )

    def _new_rules(self, present: set[str]) -> Iterator[Unique | Acyclic | Reference]:
        table, tables = self._table, self._tables
        # The values of a store of before fingerprints are taken for what its rules were checked with.
        changed = {name for name in self.changed if name in self._before_differs()}
        for number, rule in enumerate(table.uniques):
            if (
                changed.intersection(rule.fields)
                or _plain(unique_index(table, rule, number)) not in present
            ):
                yield rule
        for number, rule in enumerate(table.acyclics):
            fields = {rule.source, rule.target, rule.group}
            triggers = map(_plain, acyclic_triggers(table, rule, number))
            if changed & fields or not present.issuperset(triggers):
                yield rule
        for reference in table.references:
            triggers = map(_plain, reference_triggers(table, reference, tables))
            if reference.field in changed or not present.issuperset(triggers):
                yield reference

    def _before_differs(self) -> Iterator[str]:
        for name, index in self._after.indexes.items():
            known = self._before.indexes.get(name, ())
            if known[:2] != index[:2] or (len(known) > 2 and known != index):
                yield name

    def _dangling(self, rule: Reference) -> str:
        column, table = self._column(rule.field), self._table
        itself = " AND e.id IS NOT e." + column if rule.kind == table.kind else ""
        return (
            f"SELECT e.id, e.{column} FROM {table.name} e WHERE e.{column} IS NOT NULL{itself} "
            f"AND NOT EXISTS (SELECT 1 FROM {self._tables[rule.kind].name} t "
            f"WHERE t.ns = e.ns AND t.id = e.{column})"
        )

    def _drop(self, objects: Sequence[Row]) -> list[Statement]:
        own = f"{self.kind}$"
        return [
            Statement(f"DROP {str(kind).upper()} IF EXISTS {quoted(str(name))}")
            for kind, name, _, _ in objects
            if str(name).startswith(own) and quoted(str(name)) != self._table.by_id
        ]

    def _rename(self, before: Declaration, table: KindTable) -> Statement:
        earlier = indexed_column(before.revision)
        return Statement(f"ALTER TABLE {table.name} RENAME COLUMN {earlier} TO {table.indexed}")

    def _add_columns(self, present: Iterable[Row]) -> list[Statement]:
        names = {name for (name,) in present}
        return [
            Statement(f"ALTER TABLE {self._table.name} ADD COLUMN {column}")
            for column in map(self._column, self.changed)
            if column.strip('"') not in names
        ]

    def _rebuilt(self, objects: Sequence[Row]) -> Iterator[Statement]:
        """Rebuilds the table with its rows where its foreign keys change: there is no other way."""
        if set(self._before.own_keys) == set(self._after.own_keys):
            return
        table = self._table
        columns = ["rid", "ns", "id", table.indexed]
        columns += [self._column(index.name) for index in table.cls.indexes]
        columns.append("body")
        listed, copy = ", ".join(columns), quoted(f"{table.kind}$copy")
        yield Statement(f"CREATE TABLE {copy} AS SELECT {listed} FROM {table.name}")
        yield Statement(f"DROP TABLE {table.name}")
        yield from map(Statement, kind_table(table))
        yield Statement(f"INSERT INTO {table.name} ({listed}) SELECT {listed} FROM {copy}")
        yield Statement(f"DROP TABLE {copy}")
        # Other kinds' triggers on the table were dropped with it.
        for kind, name, at, sql in objects:
            if (kind, at) == ("trigger", table.kind) and not str(name).startswith(f"{table.kind}$"):
                yield Statement(str(sql))

    def _column(self, name: str) -> str:
        table = self._table
        return (table.singles.get(name) or table.multis[name]).name


def _after(revision: int) -> int:
    """A later revision. Not the next one: a store may be set back to a backup and migrated otherwise, which a
    process must not take for what it knows.
    """
    return revision + 1 + secrets.randbelow(2**31)


def _plain(sql: str) -> str:
    """The SQL of an object as ``sqlite_master`` has it."""
    return sql.replace(" IF NOT EXISTS", "", 1)
