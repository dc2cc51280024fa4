"""Bringing a database up to date: what is missing is made, what is newer is left alone."""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec

from memory_core.codec import Codec
from memory_core.errors import CodecError, ConfigurationError, SchemaVersionError, StorageError
from memory_storage_turso.engine.driver import Driver, StatementError
from memory_storage_turso.sql.schema import (
    SCHEMA_VERSION,
    SYSTEM_TABLES,
    declaration,
    kind_objects,
    kind_table,
    multi_fill,
)
from memory_storage_turso.sql.statement import Row, Statement
from memory_storage_turso.sql.tables import KindTable, Tables, quoted

__all__ = ["open_kinds", "open_system"]

_CHUNK = 200
_META = "SELECT key, value FROM _meta"


async def open_system(driver: Driver, where: str) -> UUID:
    """Make the system tables where they are missing, and check their version.

    Returns:
        The store's id.

    Raises:
        SchemaVersionError: a newer version wrote the store; it was left untouched.
    """
    if not await _has_tables(driver, where):
        await _run(driver, where, _system())
    meta = {str(key): value for key, value in await _rows(driver, _META)}
    version = meta.get("schema_version")
    store_id = meta.get("store_id")
    if not isinstance(version, int) or not isinstance(store_id, bytes):
        raise ConfigurationError(f"{where} has a table _meta of another program")
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(where, version, SCHEMA_VERSION)
    return UUID(bytes=store_id)


async def open_kinds(driver: Driver, tables: Tables, codec: Codec, where: str) -> tuple[str, ...]:
    """Make the tables of kinds that are new, and bring those up to date that have changed.

    Args:
        driver: the database.
        tables: the kinds to prepare for.
        codec: to read records whose kind has new indexes.
        where: the store, for errors.

    Returns:
        The kinds in the store that are not among these.

    Raises:
        ConfigurationError: the database has tables of these names that are not this package's, or
            records that a new constraint forbids.
    """
    rows = await _rows(driver, "SELECT kind, declaration FROM _kinds")
    known = {str(kind): declared for kind, declared in rows}
    fresh = [table for table in tables if table.kind not in known]
    if fresh:
        await _check_names(driver, fresh, where)
        await _run(driver, where, _created(fresh, tables))
    for table in tables:
        if table.kind in known and known[table.kind] != declaration(table, tables):
            await _Migration(driver, table, tables, codec, where).run()
    return tuple(kind for kind in known if kind not in tables)


async def _has_tables(driver: Driver, where: str) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_meta'"
    try:
        return bool(await _rows(driver, sql))
    except StatementError as error:
        raise StorageError(f"{where}: {error.message}") from error


async def _check_names(driver: Driver, fresh: Iterable[KindTable], where: str) -> None:
    rows = await _rows(driver, "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
    present = {str(name).lower() for (name,) in rows}
    taken = [table.kind for table in fresh if table.kind in present]
    known = await _rows(driver, "SELECT kind FROM _kinds")
    # Another process may have made them since the kinds were looked up.
    foreign = sorted(set(taken) - {str(kind) for (kind,) in known})
    if foreign:
        raise ConfigurationError(
            f"{where} has tables of another program: {', '.join(foreign)}; use a database of its own"
        )


def _system() -> Iterator[Statement]:
    for sql in SYSTEM_TABLES:
        yield Statement(sql)
    meta = "INSERT INTO _meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
    yield Statement(meta, ("schema_version", SCHEMA_VERSION))
    yield Statement(meta, ("store_id", uuid4().bytes))


def _created(fresh: Iterable[KindTable], tables: Tables) -> Iterator[Statement]:
    listed = list(fresh)
    # A trigger may name a table of another kind: all of them first.
    for table in listed:
        for sql in kind_table(table):
            yield Statement(sql)
    for table in listed:
        for sql in kind_objects(table, tables):
            yield Statement(sql)
        yield _declared(table, tables)


def _declared(table: KindTable, tables: Tables) -> Statement:
    return Statement(
        "INSERT INTO _kinds (kind, declaration) VALUES (?, ?) "
        "ON CONFLICT (kind) DO UPDATE SET declaration = excluded.declaration",
        (table.kind, declaration(table, tables)),
    )


class _Migration:
    """Brings one kind's table to what its class declares now.

    Columns are added and filled from the bodies first; the rest follows in one transaction, in which
    the old indexes and triggers go and the new ones come. Interrupted, it starts over.
    """

    def __init__(
        self, driver: Driver, table: KindTable, tables: Tables, codec: Codec, where: str
    ) -> None:
        self._driver = driver
        self._table = table
        self._tables = tables
        self._codec = codec
        self._where = where

    async def run(self) -> None:
        """Do it."""
        sql = "SELECT declaration FROM _kinds WHERE kind = ?"
        rows = await _rows(self._driver, sql, (self._table.kind,))
        before = msgspec.json.decode(str(rows[0][0]), type=dict[str, Any])
        after = _declared_as(self._table, self._tables)
        if before == after:
            # Another process has done it meanwhile.
            return
        old, new = before["indexes"], after["indexes"]
        fresh = [name for name in new if old.get(name) != new[name]]
        await self._add_columns(fresh)
        async for statements in self._filled(fresh):
            await _run(self._driver, self._where, statements)
        await self._check_references()
        await _run(self._driver, self._where, await self._finish(before))

    def _column(self, name: str) -> str:
        table = self._table
        return table.singles[name].name if name in table.singles else table.multis[name].name

    async def _add_columns(self, fresh: Iterable[str]) -> None:
        sql = "SELECT name FROM pragma_table_info(?)"
        present = {str(name) for (name,) in await _rows(self._driver, sql, (self._table.kind,))}
        missing = [
            Statement(f"ALTER TABLE {self._table.name} ADD COLUMN {column}")
            for column in map(self._column, fresh)
            if column.strip('"') not in present
        ]
        if missing:
            await _run(self._driver, self._where, missing)

    async def _filled(self, fresh: list[str]) -> AsyncIterator[list[Statement]]:
        """Updates that fill the new columns, some records at a time."""
        if not fresh:
            return
        table, last = self._table, 0
        settings = ", ".join(f"{self._column(name)} = ?" for name in fresh)
        update = f"UPDATE {table.name} SET {settings} WHERE rid = ?"
        select = f"SELECT rid, id, body FROM {table.name} WHERE rid > ? ORDER BY rid LIMIT {_CHUNK}"
        while rows := await _rows(self._driver, select, (last,)):
            last = cast("int", rows[-1][0])
            yield [self._values(update, fresh, row) for row in rows]

    def _values(self, update: str, fresh: list[str], row: Row) -> Statement:
        rid, record_id, body = row
        try:
            record = self._codec.decode(
                self._table.kind, cast("bytes", body), UUID(bytes=cast("bytes", record_id))
            )
        except CodecError:
            # A damaged record stays readable as damaged; no query by the new index finds it.
            return Statement(update, (*[None] * len(fresh), rid))
        encoded = self._codec.encode_put(record)
        given = self._table.put(0, encoded, indexed=True).args[2:-1]
        by_name = dict(zip((index.name for index in self._table.cls.indexes), given, strict=True))
        return Statement(update, (*(by_name[name] for name in fresh), rid))

    async def _check_references(self) -> None:
        """Refuse to go on where a record points at nothing."""
        for reference in self._table.references:
            column = self._column(reference.field)
            rows = await _rows(
                self._driver,
                f"SELECT id FROM {self._table.name} e WHERE {column} IS NOT NULL AND NOT EXISTS "
                f"(SELECT 1 FROM {self._tables[reference.kind].name} t "
                f"WHERE t.ns = e.ns AND t.id = e.{column}) LIMIT 1",
            )
            if rows:
                raise ConfigurationError(
                    f"{self._where}: {self._table.kind} {UUID(bytes=cast('bytes', rows[0][0]))} has "
                    f"a {reference.field} that points at no {reference.kind}"
                )

    async def _finish(self, before: Mapping[str, object]) -> list[Statement]:
        """Out with the old indexes and triggers, in with the new."""
        table = self._table
        objects = await _rows(
            self._driver,
            "SELECT type, name, tbl_name, sql FROM sqlite_master "
            "WHERE type IN ('trigger', 'index', 'table') ORDER BY type DESC",
        )
        stem = f"{table.kind}$"
        statements = [
            Statement(f"DROP {str(kind).upper()} IF EXISTS {quoted(str(name))}")
            for kind, name, _, _ in objects
            if str(name).startswith(stem) and quoted(str(name)) != table.by_id
        ]
        if _own_keys(before) != _own_keys(_declared_as(table, self._tables)):
            # The triggers that other kinds have on the table go with it, and come back.
            others = [
                Statement(str(sql))
                for kind, name, at, sql in objects
                if (kind, at) == ("trigger", table.kind) and not str(name).startswith(stem)
            ]
            statements += [*self._rebuilt(), *others]
        statements += [Statement(sql) for sql in kind_objects(table, self._tables)]
        statements += [Statement(multi_fill(table, multi)) for multi in table.multis.values()]
        return [*statements, _declared(table, self._tables)]

    def _rebuilt(self) -> list[Statement]:
        """The table made anew with its rows: the only way to change foreign keys."""
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


def _declared_as(table: KindTable, tables: Tables) -> dict[str, Any]:
    return msgspec.json.decode(declaration(table, tables))


def _own_keys(declared: Mapping[str, Any]) -> set[str]:
    """References to the kind itself that cascade, which are foreign keys."""
    return set(declared["own_keys"])


async def _rows(driver: Driver, sql: str, args: tuple[str | int, ...] = ()) -> list[Row]:
    return (await driver.read([Statement(sql, args)], primary=True))[0].rows


async def _run(driver: Driver, where: str, statements: Iterable[Statement]) -> None:
    outcome = await driver.write([list(statements)])
    result = outcome.results[0]
    if isinstance(result, StatementError):
        if "constraint" in result.message.lower() or "memory_core:" in result.message:
            raise ConfigurationError(
                f"{where}: records in the store break what their kind declares: {result.message}"
            ) from result
        raise StorageError(f"{where}: the schema could not be made: {result}") from result
    if isinstance(result, StorageError):
        raise result
