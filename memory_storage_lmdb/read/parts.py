"""The parts of records, as they are stored: those of another kind that refer to them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeAlias

from memory_core.storage import Parts
from memory_storage_lmdb.engine.binding import Transaction
from memory_storage_lmdb.read.cursors import Meter
from memory_storage_lmdb.read.scan import missing_record
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.encoding import ID_BYTES

__all__ = ["NotAtOnceError", "StoredParts", "stored_parts"]

StoredParts: TypeAlias = tuple[list[bytes], list[bytes]]
"""Ids of parts, and their stored values."""

_ENTRIES = 64  # whose records are read by one call


class NotAtOnceError(Exception):
    """A record is long, or has so many parts that equal reads should share them. Never leaves the
    reader.
    """


def stored_parts(  # noqa: PLR0917  # it is a part of the reader's jobs
    txn: Transaction,
    catalog: Catalog,
    parts: Parts[Any, Any],
    targets: tuple[bytes, Iterable[bytes]],
    meter: Meter,
    most: int | None = None,
) -> StoredParts:
    """The parts of some records. The entries of references are never pending.

    Args:
        txn: the transaction to read in.
        catalog: the catalog, as it is in the transaction.
        parts: which records are parts.
        targets: the number of a namespace, and the ids of records in it.
        meter: is checked between reads.
        most: how many parts a record may have.

    Raises:
        NotAtOnceError: one has more.
        CodecError: a part is missing.
    """
    number, ids = targets
    layout = catalog.layouts[parts.kind.kind]
    index = layout.index(parts.field)
    cursor = txn.cursor(db=catalog.handles[index.database])
    records = txn.cursor(db=catalog.handles[layout.database])
    found: list[bytes] = []
    values: list[bytes] = []
    for target in ids:
        if not cursor.set_key(number + index.encode(target)):
            continue
        if most is not None and cursor.count() > most:
            raise NotAtOnceError
        entries = cursor.iternext_dup()
        while own := [entry[-ID_BYTES:] for entry in islice(entries, _ENTRIES)]:
            meter.check()
            pairs = records.getmulti([number + record_id for record_id in own])
            if len(pairs) < len(own):
                there = {key[-ID_BYTES:] for key, _ in pairs}
                raise missing_record(layout, next(each for each in own if each not in there))
            found += own
            values += [data for _, data in pairs]
    return found, values
