"""Declaring kinds, and filling the indexes of those that are declared differently than before."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TypeAlias

from attrs import evolve

from memory_core.codec import Codec
from memory_core.errors import MemoryCoreError
from memory_core.records import Record
from memory_storage_lmdb.engine.binding import Database, Transaction
from memory_storage_lmdb.store.catalog import (
    Catalog,
    KindRow,
    StaleCatalogError,
    announce,
    read_row,
    write_row,
)
from memory_storage_lmdb.store.journal import read_head, write_head
from memory_storage_lmdb.store.layout import (
    NAMESPACE_BYTES,
    Declaration,
    KindLayout,
    Values,
    pack_header,
    pack_nulled_header,
    pack_values,
)
from memory_storage_lmdb.write.indexing import enter_pending

__all__ = ["declare_kinds"]

_STEP = 500

Read: TypeAlias = Callable[[KindLayout, bytes, bytes], Record]
"""Decodes a stored value: layout, key and data."""

Item: TypeAlias = tuple[bytes, bytes]
"""Key and stored value."""


def declare_kinds(catalog: Catalog, codec: Codec, read: Read) -> int:
    """Prepare the store for the kinds of a codec; on the writer thread.

    Returns:
        How many records were indexed anew.

    Raises:
        ConfigurationError: they contradict what somebody else in this process declared.
        StorageUnavailableError: they contradict what another process declared just now.
    """
    given = {kind: Declaration.of(codec.types.cls(kind)) for kind in codec.types.kinds}
    catalog.check_declared(given)
    while True:
        catalog.reload()
        try:
            catalog.environment.write(lambda txn: _declare(txn, catalog, given))
        except StaleCatalogError:
            continue
        break
    catalog.declared |= given
    catalog.reload()
    filled = 0
    for kind in given:
        while (step := catalog.environment.write(_filler(catalog, kind, read))) is not None:
            filled += step
    catalog.reload()
    return filled


def _declare(txn: Transaction, catalog: Catalog, given: dict[str, Declaration]) -> None:
    head = read_head(txn, catalog.journal)
    catalog.check(head)
    changed = False
    for kind, declaration in given.items():
        row = read_row(txn, catalog, kind)
        if row is not None and row.declaration == declaration:
            continue
        if row is None:
            row = KindRow(declaration, catalog.next_number(txn, b"kind"), 1)
        else:
            if not changed:
                # What waits is laid out by the old declarations.
                write_head(txn, catalog.journal, enter_pending(txn, catalog, head, {}))
            _empty_indexes(txn, catalog, row)
            row = KindRow(declaration, row.number, row.revision + 1, filled=b"")
        write_row(txn, catalog, row)
        changed = True
    if changed:
        announce(txn, catalog)


def _empty_indexes(txn: Transaction, catalog: Catalog, row: KindRow) -> None:
    layout = row.layout()
    for name, _, _ in layout.databases():
        if name != layout.database:
            txn.drop(catalog.handles[name], delete=True)


def _filler(catalog: Catalog, kind: str, read: Read) -> Callable[[Transaction], int | None]:
    """A job that fills the indexes of a kind a step further; it gives ``None`` when they are full."""

    def job(txn: Transaction) -> int | None:
        row = read_row(txn, catalog, kind)
        if row is None or row.filled is None:
            return None
        layout = row.layout()
        records = catalog.handles[layout.database]
        step = _next_records(txn, records, row.filled)
        done = sum(_refill(txn, catalog, layout, item, read) for item in step)
        if len(step) < _STEP:
            write_row(txn, catalog, evolve(row, filled=None))
            announce(txn, catalog)
        else:
            write_row(txn, catalog, evolve(row, filled=step[-1][0]))
        return done

    return job


def _next_records(txn: Transaction, records: Database, after: bytes) -> list[Item]:
    cursor = txn.cursor(db=records)
    if not cursor.set_range(after + b"\0"):
        return []
    return list(islice(cursor.iternext(), _STEP))


def _refill(txn: Transaction, catalog: Catalog, layout: KindLayout, item: Item, read: Read) -> bool:
    """Give a record its new values and entries. One that cannot be read keeps what it has: whoever
    gets it hears of it, the others must not wait for that.
    """
    key, data = item
    try:
        header = layout.read(key, data)
        if header.values is not None:
            return False
        values = tuple(read(layout, key, data).index_values().values())
    except MemoryCoreError:
        return False
    packed = pack_values(values)
    if header.nulled:
        head = pack_nulled_header(
            header.flags, layout.revision, header.written, packed, header.nulled
        )
    else:
        head = pack_header(header.flags, layout.revision, header.written, packed)
    txn.put(key, head + data[header.size :], db=catalog.handles[layout.database])
    _enter(txn, catalog, layout, key, values)
    return True


def _enter(
    txn: Transaction, catalog: Catalog, layout: KindLayout, key: bytes, values: Values
) -> None:
    namespace, record_id = key[:NAMESPACE_BYTES], key[NAMESPACE_BYTES:]
    for number, entry, tail in layout.entries(layout.indexes, namespace, values, record_id):
        txn.put(entry, tail, db=catalog.handles[layout.indexes[number].database])
    for unique in layout.uniques:
        taken = unique.key(namespace, values)
        if taken is not None:
            txn.put(taken, record_id, db=catalog.handles[unique.database])
