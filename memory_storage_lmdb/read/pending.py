"""The records that are not in the indexes yet, as a reader sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from attrs import define, field

from memory_storage_lmdb.engine.binding import Transaction
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.store.journal import EMPTY_HEAD, PUT, Head, read_changes, read_head
from memory_storage_lmdb.store.layout import KindLayout, Values

__all__ = ["Pending"]

_Place: TypeAlias = tuple[bytes, int]
"""Namespace and number of a kind."""


@define(eq=False)
class Pending:
    """Follows the journal from ``Head.indexed`` on; for one thread at a time."""

    catalog: Catalog
    _head: Head = EMPTY_HEAD
    _seen: int = -1
    _since: int = -1
    _until: int = -1
    _known: dict[_Place, dict[bytes, Values]] = field(factory=dict[_Place, dict[bytes, Values]])
    _unread: dict[_Place, set[bytes]] = field(factory=dict[_Place, set[bytes]])

    def head(self, txn: Transaction) -> Head:
        """The journal's head in a transaction."""
        seen = txn.id()
        if seen != self._seen:
            self._head, self._seen = read_head(txn, self.catalog.journal), seen
        return self._head

    def follow(self, txn: Transaction) -> Head:
        """Catch up with a transaction.

        Returns:
            The journal's head in it.
        """
        head = self.head(txn)
        if head.indexed != self._since:
            self._known.clear()
            self._unread.clear()
            self._since = self._until = head.indexed
        if self._until < head.sequence:
            self._collect(txn, self._until)
            self._until = head.sequence
        return head

    def records(
        self, txn: Transaction, layout: KindLayout, namespace: bytes
    ) -> Mapping[bytes, Values]:
        """The values of the waiting records of a kind by id, until ``follow`` is called again.

        Raises:
            CodecError: one of them is damaged.
        """
        place = namespace, layout.number
        known = self._known.setdefault(place, {})
        unread = self._unread.get(place)
        if unread:
            records = self.catalog.handles[layout.database]
            for record_id in tuple(unread):
                key = namespace + record_id
                known[record_id] = layout.values(key, txn.get(key, b"", db=records))
                unread.discard(record_id)
        return known

    def _collect(self, txn: Transaction, since: int) -> None:
        for _, namespace, kind, operation, record_id in read_changes(
            txn, self.catalog.journal, since
        ):
            place = namespace, kind
            unread = self._unread.setdefault(place, set())
            if operation == PUT:
                unread.add(record_id)
            else:
                unread.discard(record_id)
                self._known.get(place, {}).pop(record_id, None)
