"""The primitive changes to a store: a record written, replaced or removed with all that belongs to it."""

from __future__ import annotations

from attrs import define, field

from memory_core.errors import CodecError
from memory_storage_lmdb.engine.binding import Database, Transaction
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.journal import DELETE, PUT, Head, pack_change, read_count
from memory_storage_lmdb.store.keys import ID_BYTES
from memory_storage_lmdb.store.layout import (
    ENTERED,
    NAMESPACE_BYTES,
    KindLayout,
    UniqueLayout,
    Values,
    pack_header,
    pack_nulled_header,
    pack_values,
)
from memory_storage_lmdb.write.indexing import Place
from memory_storage_lmdb.write.staging import StagedPut

__all__ = ["WriteTransaction"]


@define(eq=False)
class WriteTransaction:
    """A write transaction, and what changes in the journal with it.

    Attributes:
        head: the journal's head when the transaction began.
        sequence: the number of the newest change.
        changes: the changes since the head, packed.
        counts: the number of records by namespace and kind number, where it was changed.
        fresh: the records put, as they were staged.
    """

    txn: Transaction
    catalog: Catalog
    head: Head
    sequence: int
    changes: list[bytes] = field(factory=list[bytes])
    counts: dict[tuple[bytes, int], int] = field(factory=dict[tuple[bytes, int], int])
    fresh: dict[Place, StagedPut] = field(factory=dict[Place, StagedPut])

    def records(self, layout: KindLayout) -> Database:
        """The database of a kind's records."""
        return self.catalog.handles[layout.database]

    def exists(self, layout: KindLayout, key: bytes) -> bool:
        """Whether there is such a record."""
        return self.txn.cursor(db=self.records(layout)).set_key(key)

    def values(self, layout: KindLayout, key: bytes) -> Values:
        """The index values of a record that exists.

        Raises:
            CodecError: when they are damaged.
        """
        return layout.values(key, self._data(layout, key))

    def holders(self, layout: KindLayout, name: str, namespace: bytes, value: bytes) -> list[bytes]:
        """The ids of the records with a value in an eager index."""
        index = layout.index(name)
        cursor = self.txn.cursor(db=self.catalog.handles[index.database])
        if not cursor.set_key(namespace + index.encode(value)):
            return []
        return [found[-ID_BYTES:] for found in cursor.iternext_dup()]

    def holder(self, unique: UniqueLayout, key: bytes) -> bytes | None:
        """The id of the record with these unique values."""
        return self.txn.get(key, db=self.catalog.handles[unique.database])

    def put(self, staged: StagedPut) -> None:
        """Write a record, in place of the one with its id."""
        layout, key = staged.layout, staged.key
        self.note(staged.namespace, layout, PUT, staged.id)
        records = self.records(layout)
        head = pack_header(0, layout.revision, self.sequence, staged.packed, staged.checksum)
        if self.txn.put(key, head + staged.body, overwrite=False, db=records):
            self.count(staged.namespace, layout, 1)
            self._insert(layout, key, staged.values)
        else:
            flags = self._release(layout, key, staged.values)
            self._insert(layout, key, staged.values)
            head = pack_header(
                flags, layout.revision, self.sequence, staged.packed, staged.checksum
            )
            self.txn.put(key, head + staged.body, db=records)
        self.fresh[layout.number, key] = staged

    def set_null(self, layout: KindLayout, key: bytes, name: str) -> None:
        """Make a reference of a record ``None`` without touching its body, which may be another
        plugin's to decode.

        Raises:
            CodecError: when the record is damaged.
        """
        data = self._data(layout, key)
        header, values = layout.read(key, data), list(layout.values(key, data))
        values[layout.positions[name]] = None
        self.note(key[:NAMESPACE_BYTES], layout, PUT, key[NAMESPACE_BYTES:])
        flags = self._release(layout, key, tuple(values))
        self._insert(layout, key, tuple(values))
        nulled = dict.fromkeys((*header.nulled, name))
        head = pack_nulled_header(
            flags, layout.revision, self.sequence, pack_values(values), nulled
        )
        self.txn.put(key, head + data[header.size :], db=self.records(layout))
        self.fresh.pop((layout.number, key), None)

    def remove(self, layout: KindLayout, key: bytes) -> None:
        """Delete a record that exists, with all its entries."""
        self._release(layout, key, None)
        self.txn.delete(key, db=self.records(layout))
        self.count(key[:NAMESPACE_BYTES], layout, -1)
        self.note(key[:NAMESPACE_BYTES], layout, DELETE, key[NAMESPACE_BYTES:])
        self.fresh.pop((layout.number, key), None)

    def note(self, namespace: bytes, layout: KindLayout, operation: int, record_id: bytes) -> None:
        """Number a change."""
        self.sequence += 1
        self.changes.append(pack_change(namespace, layout.number, operation, record_id))

    def count(self, namespace: bytes, layout: KindLayout, by: int) -> None:
        """Take note that there are more or fewer records of a kind."""
        place = namespace, layout.number
        known = self.counts.get(place)
        if known is None:
            known = read_count(self.txn, self.catalog.journal, *place)
        self.counts[place] = known + by

    def _data(self, layout: KindLayout, key: bytes) -> bytes:
        data = self.txn.get(key, db=self.records(layout))
        return b"" if data is None else data

    def _insert(self, layout: KindLayout, key: bytes, values: Values) -> None:
        """Make the entries that writes go by."""
        if not layout.has_rules:
            return
        namespace, record_id = key[:NAMESPACE_BYTES], key[NAMESPACE_BYTES:]
        handles = self.catalog.handles
        for number, entry, tail in layout.entries(layout.eager, namespace, values, record_id):
            self.txn.put(entry, tail, db=handles[layout.indexes[number].database])
        for unique in layout.uniques:
            taken = unique.key(namespace, values)
            if taken is not None:
                self.txn.put(taken, record_id, db=handles[unique.database])

    def _release(self, layout: KindLayout, key: bytes, values: Values | None) -> int:
        """Remove the entries of a stored record which one with these values does not have.

        Returns:
            The flags of the record that replaces it.
        """
        try:
            header = layout.read(key, self._data(layout, key))
        except CodecError:
            self._sweep(layout, key)
            return 0
        if header.values is None:
            return 0
        namespace, record_id = key[:NAMESPACE_BYTES], key[NAMESPACE_BYTES:]
        entered = header.written <= self.head.indexed or header.flags & ENTERED
        indexes = layout.indexes if entered else layout.eager
        gone = layout.entries(indexes, namespace, header.values, record_id)
        if values is not None:
            kept = set(layout.entries(indexes, namespace, values, record_id))
            gone = [entry for entry in gone if entry not in kept]
        for number, entry, tail in gone:
            self.txn.delete(entry, tail, db=self.catalog.handles[layout.indexes[number].database])
        for unique in layout.uniques:
            taken = unique.key(namespace, header.values)
            if taken is not None and self.holder(unique, taken) == record_id:
                self.txn.delete(taken, db=self.catalog.handles[unique.database])
        return ENTERED if entered else 0

    def _sweep(self, layout: KindLayout, key: bytes) -> None:
        """Remove every entry of a record whose values cannot be read any more. Slow, and rare."""
        namespace, record_id = key[:NAMESPACE_BYTES], key[NAMESPACE_BYTES:]
        for name, _, _ in layout.databases():
            if name == layout.database:
                continue
            database = self.catalog.handles[name]
            cursor = self.txn.cursor(db=database)
            found: list[tuple[bytes, bytes]] = []
            if cursor.set_range(namespace):
                for entry, tail in cursor.iternext():
                    if not entry.startswith(namespace):
                        break
                    if tail.endswith(record_id):
                        found.append((entry, tail))
            for entry, tail in found:
                self.txn.delete(entry, tail, db=database)
