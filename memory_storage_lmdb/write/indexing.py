"""Writing pending index entries, many at a time.

A commit of a few records writes these and the journal, some ten pages. Their index entries would dirty
another page each, which at least doubles the time that the disk takes for it. So the entries are pending,
listed by the journal, until they come with a large batch, until writing pauses, until queries need them, or
until there are too many: a log-structured merge (O'Neil et al. 1996) in its simplest form. Queries look at
the records of pending entries one by one (``reading.py``).

The following holds for every index but the eager ones. A record is *pending* while it is put after
``Head.indexed``:

- a record that is not pending has all its entries;
- a pending record has none, or some of those of its newest values, never others; and it has some only
  if it is flagged ``INDEXED``, and all if it is flagged ``COMPLETE`` as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, TypeAlias

from attrs import evolve

from memory_core.errors import CodecError
from memory_storage_lmdb.engine.binding import Transaction
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.journal import PUT, Head, RawChange, read_changes
from memory_storage_lmdb.store.layout import (
    COMPLETE,
    INDEXED,
    NAMESPACE_BYTES,
    IndexLayout,
    KindLayout,
    Place,
    Values,
)

__all__ = ["index_pending"]

# The entries of so many records are written together; those of more would take too much memory.
_PORTION = 2_000

_Column: TypeAlias = defaultdict[Any, list[bytes]]
"""New entries of an index: what they end with, by value."""


def index_pending(
    txn: Transaction,
    catalog: Catalog,
    head: Head,
    fresh: Mapping[Place, Values | None],
    limit: int | None = None,
) -> Head:
    """Write the pending index entries.

    Args:
        txn: the transaction.
        catalog: the store's.
        head: the journal's head, without the changes of this transaction.
        fresh: the index values of the records put in this transaction, which need not be read; ``None`` for
            those that have all their entries.
        limit: index only this many changes, the oldest.

    Returns:
        The head, which is to be stored.
    """
    changes = islice(read_changes(txn, catalog.journal, head.indexed), limit)
    places, bound = _places(changes, head.indexed)
    records = iter(places)
    while portion := list(islice(records, _PORTION)):
        _index(txn, catalog, portion, fresh, bound)
    return evolve(head, indexed=bound)


def _places(changes: Iterable[RawChange], start: int) -> tuple[Iterable[Place], int]:
    """The records that were put last, and the position of the newest change."""
    places: dict[Place, None] = {}
    position = start
    for position, namespace, kind, operation, record_id in changes:  # noqa: B007  # the last one counts
        place = kind, namespace + record_id
        if operation == PUT:
            places[place] = None
        else:
            places.pop(place, None)
    return places, position


def _index(
    txn: Transaction,
    catalog: Catalog,
    places: Iterable[Place],
    fresh: Mapping[Place, Values | None],
    bound: int,
) -> None:
    # By kind and namespace: what the entries of each value of each index end with.
    tables: dict[tuple[int, bytes], list[_Column]] = {}
    for place in places:
        kind, key = place
        layout, flags = catalog.by_number[kind], 0
        if place in fresh:
            values = fresh[place]
        else:
            values, flags = _values(txn, catalog, layout, key, bound)
        if values is None:
            continue
        if flags & INDEXED:
            _add_missing(txn, catalog, layout, key, values)
            continue
        namespace = key[:NAMESPACE_BYTES]
        columns = tables.get((kind, namespace))
        if columns is None:
            columns = tables[kind, namespace] = [defaultdict(list) for _ in layout.indexes]
        _add_all(columns, layout, key, values)
    for (kind, namespace), columns in tables.items():
        for index, column in zip(catalog.by_number[kind].indexes, columns, strict=True):
            if column:
                cursor = txn.cursor(db=catalog.handles[index.database])
                cursor.putmulti(_pairs(index, namespace, column))


def _add_missing(
    txn: Transaction, catalog: Catalog, layout: KindLayout, key: bytes, values: Values
) -> None:
    """Write the entries that an update has added. It shares most with what was there before: to write these
    again would dirty their pages, and updated records are anywhere in the store.
    """
    namespace, record_id = key[:NAMESPACE_BYTES], key[NAMESPACE_BYTES:]
    for number, entry, tail in layout.entries(layout.deferred, namespace, values, record_id):
        database = catalog.handles[layout.indexes[number].database]
        if not txn.cursor(db=database).set_key_dup(entry, tail):
            txn.put(entry, tail, db=database)


def _add_all(columns: Sequence[_Column], layout: KindLayout, key: bytes, values: Values) -> None:
    """Add the entries of a record to those that are written together."""
    record_id = key[NAMESPACE_BYTES:]
    tail = layout.tail(values, record_id)
    for index in layout.deferred:
        column, value = columns[index.number], values[index.number]
        if index.multi:
            for item in value:
                column[item].append(tail)
        else:
            column[value].append(record_id if index.is_order else tail)


def _pairs(index: IndexLayout, namespace: bytes, column: _Column) -> Iterator[tuple[bytes, bytes]]:
    """The entries of an index in order, so that neighbours share the page that the cursor is on."""
    entries = ((namespace + index.encode(value), tails) for value, tails in column.items())
    for key, tails in sorted(entries, key=itemgetter(0)):
        tails.sort()
        for tail in tails:
            yield key, tail


def _values(
    txn: Transaction, catalog: Catalog, layout: KindLayout, key: bytes, bound: int
) -> tuple[Values | None, int]:
    """The values and flags of a pending record as it is stored; ``None`` when it is not to be indexed now."""
    if not layout.deferred:
        return None, 0
    data = txn.get(key, db=catalog.handles[layout.database])
    try:
        header = None if data is None else layout.read(key, data)
    except CodecError:
        # A get of this record raises the error; the other records must not wait for it.
        return None, 0
    # A record that was put again later stays pending.
    if header is None or header.written > bound or header.flags & COMPLETE:
        return None, 0
    return header.values, header.flags
