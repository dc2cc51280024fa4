"""Wiping a namespace.

A large one gets another number, in one short transaction, which also writes the deletions of the feed. From
then on nothing finds the old records. They and their entries are removed in steps, between which other
processes write. What a killed process leaves is removed after the next wipe, or when the store is opened for
writing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from time import perf_counter

from attrs import evolve

from memory_core.storage import Position
from memory_storage_lmdb.engine.binding import Database, Transaction
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.journal import (
    DELETE,
    PUT,
    Head,
    Listing,
    append_changes,
    forget_counts,
    pack_change,
    read_changes,
    read_head,
    trim,
    write_head,
)
from memory_storage_lmdb.store.layout import Place
from memory_storage_lmdb.write.indexing import index_pending
from memory_storage_lmdb.write.transaction import check_filled

__all__ = ["empty_some", "wipe"]

# So few records are removed sooner than every process has read the catalog again.
_FEW = 1_000
_STEP_SECONDS = 0.01


def wipe(
    txn: Transaction, catalog: Catalog, namespace: str, listing: Listing, feed_limit: int
) -> Position | None:
    """Wipe a namespace.

    Args:
        txn: the transaction.
        catalog: the store's.
        namespace: the name.
        listing: its records, as they were a moment ago.
        feed_limit: how many changes the feed keeps.

    Returns:
        The position after it; ``None`` if the records have to be listed again.

    Raises:
        StaleCatalogError: the kinds, or the number of a namespace, have changed.
        StorageUnavailableError: the indexes of a kind are being filled.
    """
    journal, number = catalog.journal, listing.number
    head = read_head(txn, journal)
    catalog.check(head)
    if catalog.namespace(txn, namespace) != number or listing.position < head.trimmed:
        return None
    for layout in catalog.layouts.values():
        check_filled(layout)
    changes = _deletions(txn, catalog, listing)
    if not changes:
        return head.sequence
    # Afterwards no change with this number is pending.
    head = index_pending(txn, catalog, head, _without_entries(txn, catalog, head, number))
    # What the feed would not keep is not written.
    skipped = max(0, len(changes) - feed_limit)
    start, end = head.sequence + skipped, head.sequence + len(changes)
    append_changes(txn, journal, start, changes[skipped:])
    forget_counts(txn, journal, number)
    head = evolve(head, sequence=end, indexed=end)
    if len(changes) < _FEW:
        _empty(txn, catalog, number, math.inf)
    else:
        catalog.renumber(txn, namespace, number, end)
        head = evolve(head, generation=head.generation + 1)
    head = trim(txn, journal, head, feed_limit)
    if skipped:
        head = evolve(head, trimmed=max(head.trimmed, start))
    write_head(txn, journal, head)
    return end


def empty_some(txn: Transaction, catalog: Catalog) -> bool:
    """Remove some of what has the earlier numbers of wiped namespaces; whether more remains.

    Raises:
        StaleCatalogError: the kinds, or the number of a namespace, have changed.
    """
    head = read_head(txn, catalog.journal)
    catalog.check(head)
    until = perf_counter() + _STEP_SECONDS
    for number, wiped in catalog.read_wiped(txn).items():
        if not wiped.emptied:
            if not _empty(txn, catalog, number, until):
                return True
            catalog.write_wiped(txn, number, evolve(wiped, emptied=True))
        elif wiped.position <= head.trimmed:
            # The feed has no changes with it any more.
            catalog.forget_wiped(txn, number)
    return False


def _deletions(txn: Transaction, catalog: Catalog, listing: Listing) -> list[bytes]:
    """The packed deletions of all records that a namespace has now."""
    since: dict[bytes, bool] = {}
    for _, number, kind, operation, record_id in read_changes(
        txn, catalog.journal, listing.position
    ):
        if number == listing.number:
            since[pack_change(number, kind, DELETE, record_id)] = operation == PUT
    if not since:
        return listing.deletions
    # What refers was put after what it refers to.
    put = [deletion for deletion, exists in reversed(since.items()) if exists]
    return [*put, *(deletion for deletion in listing.deletions if deletion not in since)]


def _without_entries(
    txn: Transaction, catalog: Catalog, head: Head, number: bytes
) -> dict[Place, None]:
    """The pending records with a number, whose entries need not be written any more."""
    changes = read_changes(txn, catalog.journal, head.indexed)
    return {
        (kind, own + record_id): None for _, own, kind, _, record_id in changes if own == number
    }


def _empty(txn: Transaction, catalog: Catalog, number: bytes, until: float) -> bool:
    """Remove the records and entries with a number until a time; whether none are left."""
    return all(_remove(txn, database, number, until) for database in _databases(catalog))


def _databases(catalog: Catalog) -> Iterator[Database]:
    for layout in catalog.layouts.values():
        for name, _, _ in layout.databases():
            yield catalog.handles[name]


def _remove(txn: Transaction, database: Database, number: bytes, until: float) -> bool:
    cursor = txn.cursor(db=database)
    found = cursor.set_range(number)
    while found and cursor.key().startswith(number):
        # Deletes all duplicates, and moves on to the next key.
        cursor.delete(dupdata=True)
        if perf_counter() > until:
            return False
        found = bool(cursor.key())
    return True
