"""Declaring kinds, and filling the indexes of those that were declared differently before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
from typing import TypeAlias
from uuid import UUID

from attrs import define, evolve

from memory_core.backend import RuleCheck, check_versions
from memory_core.codec import Codec
from memory_core.errors import MigrationNeededError
from memory_core.records import Record, RecordTypes
from memory_storage_lmdb.engine.binding import Database, Transaction
from memory_storage_lmdb.store.catalog import Catalog, KindRow, StaleCatalogError
from memory_storage_lmdb.store.journal import read_head, write_head
from memory_storage_lmdb.store.layout import (
    NAMESPACE_BYTES,
    Declaration,
    KindLayout,
    new_rules,
    pack_header,
    pack_values,
)
from memory_storage_lmdb.write.indexing import index_pending
from memory_storage_lmdb.write.wiping import empty_some

__all__ = ["Filled", "check_kinds", "declare_kinds"]

_log = logging.getLogger(__name__)
_STEP = 500

Decode: TypeAlias = Callable[[KindLayout, UUID, bytes], Record]
"""Decodes a stored value."""

Item: TypeAlias = tuple[bytes, bytes]
"""Key and stored value."""


@define
class Filled:
    """What it took to prepare a store for its kinds.

    Attributes:
        records: how many records were looked at to index them again.
        unreadable: how many of these are damaged: queries by indexes do not find them.
    """

    records: int = 0
    unreadable: int = 0


def declare_kinds(catalog: Catalog, codec: Codec, decode: Decode) -> Filled:
    """Prepare the store for the kinds of a codec; on the writer thread.

    Raises:
        ConfigurationError: this process has declared one of them differently, or records break a rule that
            is new.
        SchemaVersionError: a newer version of a plugin wrote the store; the kind was not touched.
        DeclarationChangedError: another process has declared one of them differently just now.
    """
    declarations = {kind: Declaration.of(codec.types.cls(kind)) for kind in codec.types.kinds}
    environment = catalog.environment
    catalog.check_declared(declarations)
    while True:
        catalog.reload()
        try:
            if any(
                catalog.rows[kind].declaration != declarations[kind]
                for kind in declarations.keys() & catalog.rows
            ):
                # Records of wiped namespaces are neither checked nor indexed.
                while environment.write(empty_some, catalog, frees=True):
                    pass
            environment.write(_declare, catalog, codec.types, declarations, decode)
        except StaleCatalogError:
            continue
        break
    catalog.declared |= declarations
    catalog.reload()
    filled = Filled()
    for kind in declarations:
        before = filled.unreadable
        while environment.write(_fill_some, catalog, kind, decode, filled):
            pass
        if filled.unreadable > before:
            _log.warning(
                "%s: %d records of kind %r cannot be decoded; queries by its indexes do not find them",
                environment.path,
                filled.unreadable - before,
                kind,
            )
    catalog.reload()
    return filled


def check_kinds(catalog: Catalog, codec: Codec) -> None:
    """Check that the store can be read as a codec's kinds declare, without changing it. Of a kind that it has
    never had, it has no records.

    Raises:
        MigrationNeededError: a kind was declared differently when it was last written.
        ConfigurationError: this process has declared one of them differently.
    """
    declarations = {kind: Declaration.of(codec.types.cls(kind)) for kind in codec.types.kinds}
    catalog.check_declared(declarations)
    catalog.reload()
    for kind, declaration in declarations.items():
        row = catalog.rows.get(kind)
        if row is not None and (row.declaration != declaration or row.filled is not None):
            reason = f"the store lacks indexes of {kind!r}"
            raise MigrationNeededError(catalog.environment.path, reason)
    catalog.declared |= {kind: d for kind, d in declarations.items() if kind in catalog.rows}


def _declare(
    txn: Transaction,
    catalog: Catalog,
    types: RecordTypes,
    declarations: dict[str, Declaration],
    decode: Decode,
) -> None:
    head = read_head(txn, catalog.journal)
    catalog.check(head)
    changed = False
    rows = {kind: catalog.read_row(txn, kind) for kind in declarations}
    for row in rows.values():
        if row is not None:
            _check_change(txn, catalog, row, types, decode)
    for kind, declaration in declarations.items():
        row = rows[kind]
        if row is not None and row.declaration == declaration:
            continue
        if row is None:
            row = KindRow(declaration, catalog.next_number(txn, b"kind"), 1)
        else:
            if not changed:
                # Pending entries are laid out by the old declarations.
                write_head(txn, catalog.journal, index_pending(txn, catalog, head, {}))
            _empty_indexes(txn, catalog, row)
            row = KindRow(declaration, row.number, row.revision + 1, filled=b"")
        catalog.write_row(txn, row)
        changed = True
    if changed:
        catalog.announce(txn)


def _check_change(
    txn: Transaction, catalog: Catalog, row: KindRow, types: RecordTypes, decode: Decode
) -> None:
    """Check that a kind may be declared as its class says now.

    Raises:
        SchemaVersionError: its records may be of a newer version.
        ConfigurationError: records break a rule that is new.
    """
    path, kind = catalog.environment.path, row.declaration.kind
    check_versions(path, types, {kind: row.declaration.schema_version})
    rules = new_rules(row.declaration, types.cls(kind))
    if not rules:
        return

    def exists(namespace: bytes, target: str, target_id: UUID) -> bool:
        at = catalog.layouts.get(target)
        key = namespace + target_id.bytes
        return at is not None and txn.get(key, db=catalog.handles[at.database]) is not None

    check = RuleCheck(types, {kind: rules}, exists)
    layout = row.layout()
    for key, data in txn.cursor(db=catalog.handles[layout.database]).iternext():
        namespace, record_id = key[:NAMESPACE_BYTES], UUID(bytes=key[NAMESPACE_BYTES:])
        try:
            values = decode(layout, record_id, data).index_values()
        except Exception as error:  # noqa: BLE001  # a plugin's code may raise anything
            _log.debug("%s: %s", path, error)
        else:
            check.add(namespace, kind, record_id, values)
    check.check(path)


def _empty_indexes(txn: Transaction, catalog: Catalog, row: KindRow) -> None:
    layout = row.layout()
    for name, _, _ in layout.databases():
        if name != layout.database:
            txn.drop(catalog.handles[name], delete=True)


def _fill_some(
    txn: Transaction, catalog: Catalog, kind: str, decode: Decode, filled: Filled
) -> bool:
    """Fill the indexes of a kind a step further; whether more remains to be done."""
    row = catalog.read_row(txn, kind)
    if row is None or row.filled is None:
        return False
    layout = row.layout()
    step = _next_records(txn, catalog.handles[layout.database], row.filled)
    unreadable = sum(not _refill(txn, catalog, layout, item, decode) for item in step)
    if len(step) < _STEP:
        catalog.write_row(txn, evolve(row, filled=None))
        catalog.announce(txn)
    else:
        catalog.write_row(txn, evolve(row, filled=step[-1][0]))
    filled.records += len(step)
    filled.unreadable += unreadable
    return True


def _next_records(txn: Transaction, records: Database, after: bytes) -> list[Item]:
    cursor = txn.cursor(db=records)
    if not cursor.set_range(after + b"\0"):
        return []
    return list(islice(cursor.iternext(), _STEP))


def _refill(
    txn: Transaction, catalog: Catalog, layout: KindLayout, item: Item, decode: Decode
) -> bool:
    """Give a record its new values and entries; whether it can be read. One that cannot stays as it is: a
    get of it raises the error, and the other records must not wait for it.
    """
    key, data = item
    namespace, record_id = key[:NAMESPACE_BYTES], key[NAMESPACE_BYTES:]
    try:
        header = layout.read(key, data)
        if header.values is not None:
            return True
        values = tuple(decode(layout, UUID(bytes=record_id), data).index_values().values())
    except Exception as error:  # noqa: BLE001  # a plugin's code may raise anything
        _log.debug("%s: %s", catalog.environment.path, error)
        return False
    head = pack_header(
        header.flags, layout.revision, header.written, pack_values(values), nulled=header.nulled
    )
    txn.put(key, head + data[header.size :], db=catalog.handles[layout.database])
    for number, entry, tail in layout.entries(layout.indexes, namespace, values, record_id):
        txn.put(entry, tail, db=catalog.handles[layout.indexes[number].database])
    for unique in layout.uniques:
        taken = unique.key(namespace, values)
        if taken is not None:
            txn.put(taken, record_id, db=catalog.handles[unique.database])
    return True
