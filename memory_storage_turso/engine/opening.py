"""Bringing a database up to date: what is missing is created, what is newer is not touched."""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import cast
from uuid import UUID, uuid4

from attrs import frozen

from memory_core.backend import RuleCheck, check_broken, check_versions
from memory_core.backend.rules import Rule
from memory_core.codec import Codec
from memory_core.errors import (
    ConfigurationError,
    DeclarationChangedError,
    MemoryCoreError,
    MigrationNeededError,
    NotAStoreError,
    SchemaVersionError,
    StorageError,
    StoreNotFoundError,
)
from memory_core.records import Acyclic, IndexValues, RecordTypes, Reference, Unique
from memory_core.storage import StorageContext
from memory_core.values import Value
from memory_storage_turso.engine.driver import Driver, StatementError, StatementResult
from memory_storage_turso.engine.namespaces import remove_wiped
from memory_storage_turso.sql.counts import UNCOUNTED, count_kinds
from memory_storage_turso.sql.declarations import DECLARED_OTHERWISE, Declaration
from memory_storage_turso.sql.migration import OBJECTS, Migration
from memory_storage_turso.sql.schema import TABLES, create_kinds, declaration
from memory_storage_turso.sql.statement import Row, Statement
from memory_storage_turso.sql.system import (
    CLOSE_EARLIER_FEED,
    COUNTED_VERSION,
    EARLIER_FEED,
    KINDS,
    META,
    RAISE_VERSION,
    SCHEMA_VERSION,
    SYSTEM_NAMES,
    create_system_tables,
)
from memory_storage_turso.sql.tables import KindTable, Tables

__all__ = ["OpenedKinds", "changed_since", "open_kinds", "open_system"]

_LOG = logging.getLogger("memory_storage_turso")
_CHUNK = 200
_ATTEMPTS = 20
_MISSING = re.compile(r"no such (?:column|table|index)|has no column named", re.IGNORECASE)
"""How SQLite rejects statements that were made for another declaration."""
_OVERTAKEN = re.compile(
    r"no such column:? \S*(?:indexed|seq\b)|UNIQUE constraint failed: _kinds", re.IGNORECASE
)


async def open_system(driver: Driver, context: StorageContext) -> UUID:
    """Create the system tables where they are missing, and check their version.

    Args:
        driver: the database.
        context: the kinds, whose tables must not belong to another program, and whether a store may be
            created.

    Returns:
        The store's id.

    Raises:
        StoreNotFoundError: there is no store, and none may be created.
        NotAStoreError: the tables are another program's; nothing was changed.
        SchemaVersionError: a newer version wrote the store; it was not touched.
        MigrationNeededError: an earlier version wrote the store, and it is only read.
    """
    try:
        present = {str(name).lower() for (name,) in await _rows(driver, Statement(TABLES))}
    except StatementError as error:
        raise StorageError(f"{driver.where}: {error.message}") from error
    if "_meta" not in present:
        if not context.may_create:
            raise StoreNotFoundError(driver.where)
        _check_names(driver, present, [*SYSTEM_NAMES, *context.record_types.kinds])
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
    if version < COUNTED_VERSION and context.read_only:
        raise MigrationNeededError(driver.where, f"the store has the earlier format {version}")
    return UUID(bytes=store_id)


@frozen(eq=False, repr=False)
class OpenedKinds(Value):
    """The kinds of a store that is ready for them.

    Attributes:
        tables: the kinds that were asked for, with their revisions in this store.
        filled: how many records were indexed again.
        unreadable: how many of these are damaged: queries by the new indexes do not find them.
    """

    tables: Tables
    filled: int = 0
    unreadable: int = 0


async def open_kinds(
    driver: Driver, types: RecordTypes, codec: Codec, *, read_only: bool = False
) -> OpenedKinds:
    """Create the tables of kinds that are new, and migrate the tables of kinds that have changed.

    Before, the version of the store is raised, and kinds whose records an earlier version has not counted are
    counted, also those that are not known here.

    Args:
        driver: the database.
        types: the kinds to prepare for.
        codec: to read records whose kind has new indexes.
        read_only: whether they are only checked.

    Raises:
        NotAStoreError: the database has tables of these names that are not this package's.
        MigrationNeededError: the store is only read, and lacks an index or counts.
        ConfigurationError: it has records that a new constraint forbids.
        SchemaVersionError: a newer version of a plugin wrote the store; the kind was not touched.
        DeclarationChangedError: other processes keep opening the store with other declarations.
    """
    filling = _Filling(driver, codec)
    tables = Tables(types)
    overtaken = ""
    await _raise_version(driver, read_only=read_only)
    for _ in range(_ATTEMPTS):
        known = await _known_kinds(driver)
        stored = {kind: Declaration.decoded(text) for kind, text in known.items()}
        versions = {kind: declared.schema_version for kind, declared in stored.items()}
        check_versions(driver.where, types, versions)
        fresh = [table for table in tables if table.kind not in known]
        changed = _changed(stored, tables)
        if read_only:
            _check_kinds(driver.where, known, tables, changed)
        if (not fresh or read_only) and not changed:
            revisions = {kind: declared.revision for kind, declared in stored.items()}
            opened = Tables(types, revisions, absent=[table.kind for table in fresh])
            return OpenedKinds(opened, filling.records, filling.unreadable)
        try:
            if fresh:
                await _create(driver, fresh, tables)
            for kind in changed:
                await _migrate(
                    filling, Migration(tables, kind, known[kind], await _objects(driver))
                )
        except _OvertakenError as error:
            # Another process has declared the kind meanwhile: as it is declared here, or otherwise.
            overtaken = error.kind
    raise DeclarationChangedError(driver.where, overtaken)


async def _raise_version(driver: Driver, *, read_only: bool) -> None:
    """Keep processes of earlier versions out, and count the records of kinds that no trigger counts.

    Then the store is of an earlier version or was set back to such a state, or a process of one has added the
    kinds while another one changed the store's version.
    """
    questions = [Statement(UNCOUNTED), Statement(EARLIER_FEED)]
    for _ in range(_ATTEMPTS):
        found = await driver.read(questions, primary=True)
        uncounted = [str(kind) for (kind,) in found[0].rows]
        earlier = [CLOSE_EARLIER_FEED] if found[1].rows else []
        if read_only and uncounted:
            raise MigrationNeededError(driver.where, f"it does not count its {uncounted[0]!r}s")
        if read_only or not (uncounted or earlier):
            return
        # Another process may do the same at the same moment.
        with suppress(_OvertakenError):
            await _run(driver, [RAISE_VERSION, *earlier, *count_kinds(uncounted)])
    raise StorageError(f"{driver.where}: the feed of an earlier version cannot be closed")


def _changed(stored: Mapping[str, Declaration], tables: Tables) -> list[str]:
    """The kinds that are declared otherwise than the store has them."""
    return [
        table.kind
        for table in tables
        if table.kind in stored and not stored[table.kind].agrees(declaration(table, tables))
    ]


async def _create(driver: Driver, fresh: Sequence[KindTable], tables: Tables) -> None:
    present = {str(name).lower() for (name,) in await _rows(driver, Statement(TABLES))}
    # Another process may have made them since the kinds were looked up.
    fresh_now = {table.kind for table in fresh} - (await _known_kinds(driver)).keys()
    _check_names(driver, present, fresh_now)
    await _run(driver, create_kinds(fresh, tables), fresh[0].kind)


async def changed_since(
    driver: Driver, tables: Tables, error: StatementError
) -> DeclarationChangedError | None:
    """Whether a statement was rejected because a kind is declared otherwise by now.

    Args:
        driver: the database.
        tables: the kinds as they were when the store was opened.
        error: the rejection.
    """
    if not _MISSING.search(error.message):
        return None
    try:
        known = await _known_kinds(driver)
    except (MemoryCoreError, StatementError):
        # Without an answer the error is less exact.
        return None
    for kind, text in known.items():
        if kind in tables and Declaration.decoded(text).revision != tables[kind].revision:
            return DeclarationChangedError(driver.where, kind)
    return None


def _check_kinds(
    where: str, known: Mapping[str, str], tables: Tables, changed: Sequence[str]
) -> None:
    """Check that a store has what the kinds declare. Of a kind that it has never had, it has no records."""
    for kind in changed:
        missing = Declaration.decoded(known[kind]).changed(declaration(tables[kind], tables))
        what = f"the index {', '.join(map(repr, missing))}" if missing else "the declarations"
        raise MigrationNeededError(where, f"the store lacks {what} of {kind!r}")


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


class _OvertakenError(Exception):
    """Another process has changed what is stored of a kind. It never leaves this module."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class _Filling:
    """Fills columns from bodies, and counts the records.

    Args:
        driver: the database.
        codec: decodes the bodies.
    """

    def __init__(self, driver: Driver, codec: Codec) -> None:
        self.driver = driver
        self.records = self.unreadable = 0
        self._codec = codec

    async def run(self, migration: Migration) -> None:
        """Fill the changed columns of all rows."""
        before = self.unreadable
        last = 0
        while rows := await _rows(self.driver, migration.rows(last, _CHUNK)):
            last = cast("int", rows[-1][0])
            values = [self._values(migration.kind, row) for row in rows]
            fills = map(migration.fill, (row[0] for row in rows), values)
            await _run(self.driver, fills, migration.kind)
            self.records += len(rows)
            self.unreadable += values.count(None)
        if self.unreadable > before:
            _LOG.warning(
                "%s: %d records of kind %r cannot be decoded; queries by %s do not find them",
                self.driver.where,
                self.unreadable - before,
                migration.kind,
                ", ".join(migration.changed),
            )

    def _values(self, kind: str, row: Row) -> IndexValues | None:
        """The index values of the record in a row of number, id and body; ``None`` where it is damaged."""
        record_id, body = UUID(bytes=cast("bytes", row[1])), cast("bytes", row[2])
        try:
            # Not checked against limits, which may be lower than when it was put.
            return self._codec.decode(kind, body, record_id).index_values()
        except Exception as error:  # noqa: BLE001  # see below
            # A plugin's code may raise anything, and must not keep the other records from being found.
            _LOG.debug("%s: %s %s: %r", self.driver.where, kind, record_id, error)
            return None


async def _migrate(filling: _Filling, migration: Migration) -> None:
    driver, kind = filling.driver, migration.kind
    # Nothing finds what wipes have left, so it is neither checked nor filled.
    try:
        await remove_wiped(driver, migration.types)
    except StatementError as error:
        _LOG.warning("records of a wiped namespace stay in the store: %s", error)
    unfilled = set(() if migration.begun else migration.changed)
    ready = [rule for rule in migration.rules if not unfilled.intersection(_fields(rule))]
    await _check(driver, migration, ready)
    if migration.changed:
        if not migration.begun:
            columns = await _rows(driver, migration.columns())
            await _run(driver, migration.begin(await _objects(driver), columns), kind)
        await filling.run(migration)
        await _check(driver, migration, [rule for rule in migration.rules if rule not in ready])
    await _run(driver, migration.finish(await _objects(driver)), kind)


async def _check(driver: Driver, migration: Migration, rules: Sequence[Rule]) -> None:
    """Check that no stored record breaks these rules.

    Raises:
        ConfigurationError: some do.
    """
    kind = migration.kind
    broken: list[str] = []
    for rule in rules:
        if isinstance(rule, Unique):
            for first, second in await _rows(driver, migration.duplicates(rule)):
                ids = f"{UUID(bytes=cast('bytes', first))} and {UUID(bytes=cast('bytes', second))}"
                broken.append(f"{kind}: {ids} have the same {', '.join(rule.fields)}")
        elif isinstance(rule, Reference):
            for record_id, target in await _rows(driver, migration.dangling(rule)):
                ids = [UUID(bytes=cast("bytes", each)) for each in (record_id, target)]
                broken.append(
                    f"{kind}: {ids[0]} has a {rule.field} that points at no {rule.kind}: {ids[1]}"
                )
        else:
            broken += await _cycles(driver, migration, rule)
    check_broken(driver.where, broken)


async def _cycles(driver: Driver, migration: Migration, rule: Acyclic) -> list[str]:
    names = rule.source, rule.target, rule.group

    def search(results: list[StatementResult]) -> list[str]:
        check = RuleCheck(migration.types, {migration.kind: [rule]})
        for ns, record_id, *values in results[0].rows:
            found = dict(zip(names, values, strict=True))
            check.add(ns, migration.kind, UUID(bytes=cast("bytes", record_id)), found)
        return check.broken()

    return await driver.read_then([migration.edges(rule)], search, primary=True)


def _fields(rule: Rule) -> tuple[str, ...]:
    if isinstance(rule, Unique):
        return rule.fields
    return (rule.field,) if isinstance(rule, Reference) else (rule.source, rule.target, rule.group)


async def _objects(driver: Driver) -> list[Row]:
    return await _rows(driver, OBJECTS)


async def _rows(driver: Driver, statement: Statement) -> list[Row]:
    return (await driver.read([statement], primary=True))[0].rows


async def _run(driver: Driver, statements: Iterable[Statement], kind: str = "") -> None:
    listed = list(statements)
    result = (await driver.write([listed])).results[0]
    if isinstance(result, StatementError):
        message = result.message
        if DECLARED_OTHERWISE in message or _OVERTAKEN.search(message):
            raise _OvertakenError(kind) from result
        if "constraint" in message.lower() or "memory_core:" in message:
            raise ConfigurationError(
                f"{driver.where}: records in the store break what their kind declares: {message}"
            ) from result
        raise StorageError(f"{driver.where}: the schema could not be made: {result}") from result
    if isinstance(result, StorageError):
        raise result
