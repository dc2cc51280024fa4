"""The changes of a write transaction: records put and deleted, with their entries; and expectations about
records.

``WriteTransaction`` makes the single changes. Before a put the rules of its kind are checked; ``delete``
finds what cascades from a record, what forbids its deletion and what is set to null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

from attrs import define, field

from memory_core.codec import Codec
from memory_core.errors import (
    CodecError,
    ConflictError,
    CycleError,
    DuplicateError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
    StorageUnavailableError,
)
from memory_core.records import OnDelete
from memory_storage_lmdb.engine.binding import Database, Transaction
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.decoding import add_dictionaries, check_not_hidden, decode
from memory_storage_lmdb.store.encoding import ID_BYTES
from memory_storage_lmdb.store.journal import DELETE, PUT, Head, pack_change, read_count
from memory_storage_lmdb.store.layout import (
    COMPLETE,
    INDEXED,
    NAMESPACE_BYTES,
    AcyclicRule,
    KindLayout,
    Place,
    ReferenceRule,
    UniqueLayout,
    Values,
    pack_header,
    pack_values,
)
from memory_storage_lmdb.write.acyclic import EdgeOrder, reaches
from memory_storage_lmdb.write.encoding import EncodedExpectation, EncodedPut

__all__ = ["WriteTransaction", "check_expected", "check_filled", "delete"]

_Deletions: TypeAlias = dict[tuple[KindLayout, bytes], None]
_Graph: TypeAlias = tuple[int, AcyclicRule, bytes, Any]


@define(eq=False)
class WriteTransaction:
    """A write transaction, and what changes in the journal with it.

    Attributes:
        head: the journal's head when the transaction began.
        sequence: the number of the newest change.
        changes: the changes since the head, packed.
        counts: the number of records by namespace and kind number, where it was changed.
        fresh: the index values of the records put, by kind number and key; ``None`` for those that have
            all their entries.
        orders: the edges that cycle checks have read, by kind number, rule, namespace and group.
    """

    txn: Transaction
    catalog: Catalog
    head: Head
    sequence: int
    changes: list[bytes] = field(factory=list[bytes])
    counts: dict[tuple[bytes, int], int] = field(factory=dict[tuple[bytes, int], int])
    fresh: dict[Place, Values | None] = field(factory=dict[Place, "Values | None"])
    orders: dict[_Graph, EdgeOrder] = field(factory=dict[_Graph, EdgeOrder])

    def records(self, layout: KindLayout) -> Database:
        """The database of a kind's records."""
        return self.catalog.handles[layout.database]

    def exists(self, layout: KindLayout, key: bytes) -> bool:
        """Whether a record exists."""
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

    def has_edge_to(
        self, layout: KindLayout, rule: AcyclicRule, namespace: bytes, node: bytes
    ) -> bool:
        """Whether an edge of any group may lead to a node."""
        index = layout.index(rule.target)
        cursor = self.txn.cursor(db=self.catalog.handles[index.database])
        return not index.eager or cursor.set_key(namespace + index.encode(node))

    def targets(
        self, layout: KindLayout, rule: AcyclicRule, namespace: bytes, group: Any
    ) -> Callable[[bytes, bytes | None], Iterator[bytes]]:
        """What finds the targets of the edges of a group that leave a node, but for one edge."""
        unique = layout.unique_edges(rule)
        if unique is not None:
            return partial(self._targets_in_keys, unique, namespace, group)
        at = layout.positions

        def find(node: bytes, replaced: bytes | None) -> Iterator[bytes]:
            for edge_id in self.holders(layout, rule.source, namespace, node):
                if edge_id != replaced:
                    values = self.values(layout, namespace + edge_id)
                    if values[at[rule.group]] == group and values[at[rule.target]] is not None:
                        yield values[at[rule.target]]

        return find

    def _targets_in_keys(
        self,
        unique: UniqueLayout,
        namespace: bytes,
        group: Any,
        node: bytes,
        replaced: bytes | None,
    ) -> Iterator[bytes]:
        """The same from the keys of a unique constraint over source, target and group, without a look at the
        edges' records.
        """
        start, end = unique.around_second(namespace, node, group)
        cursor = self.txn.cursor(db=self.catalog.handles[unique.database])
        if not cursor.set_range(start):
            return
        first = len(start) + 1
        last = first + ID_BYTES
        for key, edge_id in cursor.iternext():
            if not key.startswith(start):
                return
            if key[last:] == end and edge_id != replaced:
                yield key[first:last]

    def holder(self, unique: UniqueLayout, key: bytes) -> bytes | None:
        """The id of the record with these unique values."""
        return self.txn.get(key, db=self.catalog.handles[unique.database])

    def put(self, put: EncodedPut) -> None:
        """Write a record, in place of the one with its id.

        Raises:
            ReferenceNotFoundError, DuplicateError, CycleError: a rule of its kind forbids it.
            StorageUnavailableError: the indexes of its kind are being filled.
        """
        layout, key = put.layout, put.key
        if layout.filling:
            check_filled(layout)
        if layout.has_rules:
            _check_rules(self, put)
        self.note(put.namespace, layout, PUT, put.id)
        records = self.records(layout)
        head = pack_header(0, layout.revision, self.sequence, put.packed, checksum=put.checksum)
        if self.txn.put(key, head + put.body, overwrite=False, db=records):
            self.count(put.namespace, layout, 1)
            self._add_entries(layout, key, put.values)
            flags = 0
        else:
            flags = self._replace_entries(layout, key, put.values)
            self._add_entries(layout, key, put.values)
            head = pack_header(
                flags, layout.revision, self.sequence, put.packed, checksum=put.checksum
            )
            self.txn.put(key, head + put.body, db=records)
        self.fresh[layout.number, key] = None if flags & COMPLETE else put.values

    def set_null(self, layout: KindLayout, key: bytes, name: str) -> None:
        """Make a reference of a record ``None`` without touching its body, which perhaps only another
        plugin can decode.

        Raises:
            CodecError: when the record is damaged.
        """
        data = self._data(layout, key)
        header, values = layout.read(key, data), list(layout.values(key, data))
        values[layout.positions[name]] = None
        self.note(key[:NAMESPACE_BYTES], layout, PUT, key[NAMESPACE_BYTES:])
        flags = self._replace_entries(layout, key, tuple(values))
        self._add_entries(layout, key, tuple(values))
        nulled = dict.fromkeys((*header.nulled, name))
        packed = pack_values(values)
        head = pack_header(flags, layout.revision, self.sequence, packed, nulled=nulled)
        self.txn.put(key, head + data[header.size :], db=self.records(layout))
        self.fresh.pop((layout.number, key), None)

    def remove(self, layout: KindLayout, key: bytes) -> None:
        """Delete a record that exists, with all its entries."""
        self._replace_entries(layout, key, None)
        self.txn.delete(key, db=self.records(layout))
        self.count(key[:NAMESPACE_BYTES], layout, -1)
        self.note(key[:NAMESPACE_BYTES], layout, DELETE, key[NAMESPACE_BYTES:])
        self.fresh.pop((layout.number, key), None)

    def note(self, namespace: bytes, layout: KindLayout, operation: int, record_id: bytes) -> None:
        """Number a change."""
        self.sequence += 1
        self.changes.append(pack_change(namespace, layout.number, operation, record_id))

    def count(self, namespace: bytes, layout: KindLayout, by: int) -> None:
        """Count records of a kind that are added or removed."""
        place = namespace, layout.number
        known = self.counts.get(place)
        if known is None:
            known = read_count(self.txn, self.catalog.journal, *place)
        self.counts[place] = known + by

    def _data(self, layout: KindLayout, key: bytes) -> bytes:
        return self.txn.get(key, b"", db=self.records(layout))

    def _add_entries(self, layout: KindLayout, key: bytes, values: Values) -> None:
        """Add the entries that writes need; all others are pending from now on."""
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

    def _replace_entries(self, layout: KindLayout, key: bytes, values: Values | None) -> int:
        """Remove the entries of a stored record, except those that it shares with these values.

        Returns:
            The flags of the record that replaces it.
        """
        self.orders.clear()
        try:
            header = layout.read(key, self._data(layout, key))
        except CodecError:
            self._search_entries(layout, key)
            return 0
        if header.values is None:
            return 0
        namespace, record_id = key[:NAMESPACE_BYTES], key[NAMESPACE_BYTES:]
        indexed = header.written <= self.head.indexed or header.flags & INDEXED
        complete = header.written <= self.head.indexed or header.flags & COMPLETE
        indexes = layout.indexes if indexed else layout.eager
        before = set(layout.entries(indexes, namespace, header.values, record_id))
        after = [] if values is None else layout.entries(indexes, namespace, values, record_id)
        for number, entry, tail in before.difference(after):
            self.txn.delete(entry, tail, db=self.catalog.handles[layout.indexes[number].database])
        for unique in layout.uniques:
            taken = unique.key(namespace, header.values)
            if taken is not None and self.holder(unique, taken) == record_id:
                self.txn.delete(taken, db=self.catalog.handles[unique.database])
        if complete and before.issuperset(after):
            return INDEXED | COMPLETE
        return INDEXED if indexed else 0

    def _search_entries(self, layout: KindLayout, key: bytes) -> None:
        """Remove every entry of a record whose values can no longer be read. Slow, and rare."""
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


def delete(write: WriteTransaction, layout: KindLayout, key: bytes) -> None:
    """Delete a record and what cascades from it; nothing happens when it does not exist.

    Raises:
        ReferenceRestrictedError: a record still refers to it.
        StorageUnavailableError: the indexes of a kind that cascades are being filled.
    """
    if not write.exists(layout, key):
        return
    if layout.kind not in write.catalog.referrers:
        write.remove(layout, key)
        return
    deletions = _cascade(write, layout, key)
    for target, target_key in deletions:
        for referrer, rule, holder in _referring(write, target, target_key):
            if (referrer, holder) in deletions or rule.on_delete is OnDelete.CASCADE:
                continue
            if rule.on_delete is OnDelete.RESTRICT:
                record_id = UUID(bytes=target_key[NAMESPACE_BYTES:])
                raise ReferenceRestrictedError(target.kind, record_id, referrer.kind, rule.field)
            write.set_null(referrer, holder, rule.field)
    for target, target_key in reversed(deletions):
        write.remove(target, target_key)


def check_expected(write: WriteTransaction, expected: EncodedExpectation, codec: Codec) -> None:
    """Compare a record with the one that is expected, as decoded records are equal.

    Raises:
        ConflictError: it is another one, or there is one where none is expected, or none where one is.
        CodecError: the stored one is damaged.
    """
    layout, records = expected.layout, write.records(expected.layout)

    def load() -> None:
        add_dictionaries(codec, write.catalog.read_dictionaries(write.txn))

    data = write.txn.get(expected.key, db=records)
    if data is None:
        cursors = partial(write.txn.cursor, db=records)
        check_not_hidden(codec, layout, cursors, expected.key, load)
    elif expected.record is not None:
        body, nulled = layout.body(expected.id.bytes, data)
        if not nulled and codec.holds(body, expected.record):
            return
    stored = None if data is None else decode(codec, layout, expected.id, data, load)
    if stored != expected.record:
        raise ConflictError(layout.kind, expected.id, stored)


def check_filled(layout: KindLayout) -> None:
    """Check that the indexes of a kind are complete, so that it can be written.

    Raises:
        StorageUnavailableError: otherwise.
    """
    if layout.filling:
        raise StorageUnavailableError(f"the indexes of {layout.kind!r} are being filled; try again")


def _check_rules(write: WriteTransaction, put: EncodedPut) -> None:
    _check_references(write, put)
    _check_uniques(write, put)
    for rule in put.layout.declaration.acyclic:
        _check_acyclic(write, put, rule)


def _check_references(write: WriteTransaction, put: EncodedPut) -> None:
    layout = put.layout
    for rule in layout.declaration.references:
        target = put.values[layout.positions[rule.field]]
        if target is None or (rule.kind == layout.kind and target == put.id):
            continue
        if not write.exists(write.catalog.layouts[rule.kind], put.namespace + target):
            raise ReferenceNotFoundError(layout.kind, rule.field, rule.kind, UUID(bytes=target))


def _check_uniques(write: WriteTransaction, put: EncodedPut) -> None:
    for unique in put.layout.uniques:
        key = unique.key(put.namespace, put.values)
        if key is None:
            continue
        holder = write.holder(unique, key)
        if holder is not None and holder != put.id:
            raise DuplicateError(put.layout.kind, unique.fields)


def _check_acyclic(write: WriteTransaction, put: EncodedPut, rule: AcyclicRule) -> None:
    """Reject an edge when its source can be reached from its target over edges of the same group."""
    layout, namespace = put.layout, put.namespace
    at = layout.positions
    source, target, group = (
        put.values[at[name]] for name in (rule.source, rule.target, rule.group)
    )
    if group not in rule.groups or source is None or target is None:
        return
    if write.orders and write.exists(layout, put.key):
        # The edge that is being replaced no longer counts.
        write.orders.clear()

    targets = write.targets(layout, rule, namespace, group)
    place = layout.number, rule, namespace, group
    order = write.orders.get(place)
    if order is not None:
        closes = not order.add(source, target)
    elif source != target and not write.has_edge_to(layout, rule, namespace, source):
        return
    else:
        # This search ends where it finds the source. An order is worth its reading from the second edge on.
        closes = reaches(target, source, lambda node: targets(node, put.id))
        write.orders[place] = EdgeOrder(lambda node: targets(node, None))
    if closes:
        ends = UUID(bytes=source), UUID(bytes=target)
        raise CycleError(layout.kind, *ends, group=str(group))


def _cascade(write: WriteTransaction, layout: KindLayout, key: bytes) -> _Deletions:
    """A record and all that cascades from it."""
    deletions: _Deletions = {}
    backlog = [(layout, key)]
    while backlog:
        place = backlog.pop()
        if place in deletions:
            continue
        check_filled(place[0])
        deletions[place] = None
        backlog += [
            (referrer, holder)
            for referrer, rule, holder in _referring(write, *place)
            if rule.on_delete is OnDelete.CASCADE
        ]
    return deletions


def _referring(
    write: WriteTransaction, layout: KindLayout, key: bytes
) -> Iterator[tuple[KindLayout, ReferenceRule, bytes]]:
    namespace, record_id = key[:NAMESPACE_BYTES], key[NAMESPACE_BYTES:]
    for referrer, rule in write.catalog.referrers.get(layout.kind, ()):
        for holder in write.holders(referrer, rule.field, namespace, record_id):
            yield referrer, rule, namespace + holder
