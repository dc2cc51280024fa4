"""Bringing a database up to date: what is missing is created, what is newer is not touched."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import cast
from uuid import UUID, uuid4

from memory_core.codec import Codec, EncodedPut
from memory_core.errors import (
    CodecError,
    ConfigurationError,
    MigrationNeededError,
    NotAStoreError,
    SchemaVersionError,
    StorageError,
    StoreNotFoundError,
)
from memory_core.storage import StorageContext
from memory_storage_turso.engine.driver import Driver, StatementError
from memory_storage_turso.sql.migration import Migration
from memory_storage_turso.sql.schema import TABLES, create_kinds, declaration
from memory_storage_turso.sql.statement import Row, Statement
from memory_storage_turso.sql.system import (
    KINDS,
    META,
    SCHEMA_VERSION,
    SYSTEM_NAMES,
    create_system_tables,
)
from memory_storage_turso.sql.tables import KindTable, Tables

__all__ = ["open_kinds", "open_system"]

_CHUNK = 200


async def open_system(driver: Driver, tables: Tables, context: StorageContext) -> UUID:
    """Create the system tables where they are missing, and check their version.

    Args:
        driver: the database.
        tables: the kinds, whose tables must not belong to another program.
        context: whether a store may be created.

    Returns:
        The store's id.

    Raises:
        StoreNotFoundError: there is no store, and none may be created.
        NotAStoreError: the tables are another program's; nothing was changed.
        SchemaVersionError: a newer version wrote the store; it was not touched.
    """
    try:
        present = {str(name).lower() for (name,) in await _rows(driver, Statement(TABLES))}
    except StatementError as error:
        raise StorageError(f"{driver.where}: {error.message}") from error
    if "_meta" not in present:
        if not context.may_create:
            raise StoreNotFoundError(driver.where)
        _check_names(driver, present, [*SYSTEM_NAMES, *(table.kind for table in tables)])
        await _run(driver, create_system_tables(uuid4().bytes))
    try:
        meta = {str(key): value for key, value in await _rows(driver, Statement(META))}
    except StatementError:
        # It has no such columns.
        meta = {}
    version = meta.get("schema_version")
    store_id = meta.get("store_id")
    if not isinstance(version, int) or not isinstance(store_id, bytes):
        raise NotAStoreError(driver.where, "its table _meta is of another program")
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(driver.where, version, SCHEMA_VERSION)
    return UUID(bytes=store_id)


async def open_kinds(
    driver: Driver, tables: Tables, codec: Codec, *, read_only: bool = False
) -> tuple[str, ...]:
    """Create the tables of kinds that are new, and migrate the tables of kinds that have changed.

    Args:
        driver: the database.
        tables: the kinds to prepare for.
        codec: to read records whose kind has new indexes.
        read_only: whether they are only checked.

    Returns:
        The kinds in the store that are not among these.

    Raises:
        NotAStoreError: the database has tables of these names that are not this package's.
        ConfigurationError: it has records that a new constraint forbids.
        MigrationNeededError: the store is only read, and lacks a kind or an index.
    """
    known = await _known_kinds(driver)
    if read_only:
        _check_kinds(driver.where, known, tables)
        return tuple(kind for kind in known if kind not in tables)
    fresh = [table for table in tables if table.kind not in known]
    if fresh:
        present = {str(name).lower() for (name,) in await _rows(driver, Statement(TABLES))}
        # Another process may have made them since the kinds were looked up.
        fresh_now = {table.kind for table in fresh} - (await _known_kinds(driver)).keys()
        _check_names(driver, present, fresh_now)
        await _run(driver, create_kinds(fresh, tables))
    for table in tables:
        if table.kind in known and known[table.kind] != declaration(table, tables):
            await _migrate(driver, table, tables, codec)
    return tuple(kind for kind in known if kind not in tables)


def _check_kinds(where: str, known: Mapping[str, str], tables: Tables) -> None:
    """Check that a store has what the kinds declare."""
    for table in tables:
        if table.kind not in known:
            raise MigrationNeededError(where, f"the store has no kind {table.kind!r} yet")
        missing = Migration(table, tables, known[table.kind]).changed
        if missing:
            names = ", ".join(map(repr, missing))
            raise MigrationNeededError(
                where, f"the store lacks the index {names} of {table.kind!r}"
            )


async def _known_kinds(driver: Driver) -> dict[str, str]:
    return {str(kind): str(declared) for kind, declared in await _rows(driver, Statement(KINDS))}


def _check_names(driver: Driver, present: Container[str], names: Iterable[str]) -> None:
    """Check that the database has no tables of these names."""
    foreign = sorted(name for name in names if name in present)
    if foreign:
        raise NotAStoreError(
            driver.where,
            f"it has tables of another program: {', '.join(foreign)}; use a database of its own",
        )


async def _migrate(driver: Driver, table: KindTable, tables: Tables, codec: Codec) -> None:
    migration = Migration(table, tables, (await _known_kinds(driver))[table.kind])
    if not migration.is_needed:
        # Another process has done it meanwhile.
        return
    await _run(driver, migration.add_columns(await _rows(driver, migration.columns())))
    if migration.changed:
        last = 0
        while rows := await _rows(driver, migration.rows(last, _CHUNK)):
            last = cast("int", rows[-1][0])
            await _run(
                driver, [migration.fill(row[0], _encoded(codec, table.kind, row)) for row in rows]
            )
    for reference in table.references:
        dangling = await _rows(driver, migration.dangling(reference))
        if dangling:
            raise ConfigurationError(
                f"{driver.where}: {table.kind} {UUID(bytes=cast('bytes', dangling[0][0]))} has "
                f"a {reference.field} that points at no {reference.kind}"
            )
    await _run(driver, migration.finish(await _rows(driver, migration.objects())))


def _encoded(codec: Codec, kind: str, row: Row) -> EncodedPut | None:
    """The record in a row of number, id and body; ``None`` where it is damaged."""
    record_id, body = UUID(bytes=cast("bytes", row[1])), cast("bytes", row[2])
    try:
        return codec.encode_put(codec.decode(kind, body, record_id))
    except CodecError:
        return None


async def _rows(driver: Driver, statement: Statement) -> list[Row]:
    return (await driver.read([statement], primary=True))[0].rows


async def _run(driver: Driver, statements: Iterable[Statement]) -> None:
    listed = list(statements)
    if not listed:
        return
    result = (await driver.write([listed])).results[0]
    if isinstance(result, StatementError):
        if "constraint" in result.message.lower() or "memory_core:" in result.message:
            raise ConfigurationError(
                f"{driver.where}: records in the store break what their kind declares: "
                f"{result.message}"
            ) from result
        raise StorageError(f"{driver.where}: the schema could not be made: {result}") from result
    if isinstance(result, StorageError):
        raise result
