"""The records that queries look at one by one, as their index entries are still to be written."""

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
    """The records whose index entries are pending, as a reader sees them; for one thread at a time.

    It follows the journal from ``Head.indexed`` on. What it has read stays known while the record is pending:
    a query would otherwise read thousands of records again whenever some of them have been indexed.
    """

    catalog: Catalog
    _head: Head = EMPTY_HEAD
    _seen: int = -1
    _since: int = -1
    _until: int = -1
    _generation: int = -1
    _positions: dict[_Place, dict[bytes, int]] = field(factory=dict[_Place, dict[bytes, int]])
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
        if head.generation != self._generation:
            # The values of another declaration are others.
            for known in (self._positions, self._known, self._unread):
                known.clear()
            self._generation, self._since, self._until = head.generation, -1, -1
        if head.indexed != self._since:
            self._forget(head.indexed)
            self._since, self._until = head.indexed, max(self._until, head.indexed)
        if self._until < head.sequence:
            self._collect(txn, self._until)
            self._until = head.sequence
        return head

    def records(
        self, txn: Transaction, layout: KindLayout, namespace: bytes
    ) -> Mapping[bytes, Values]:
        """The values of the pending records of a kind by id, valid until ``follow`` is called again.

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
        for position, namespace, kind, operation, record_id in read_changes(
            txn, self.catalog.journal, since
        ):
            place = namespace, kind
            if operation == PUT:
                self._positions.setdefault(place, {})[record_id] = position
                self._unread.setdefault(place, set()).add(record_id)
            elif record_id in self._positions.get(place, ()):
                self._remove(place, record_id)

    def _forget(self, indexed: int) -> None:
        """Forget the records that were put up to a position."""
        for place, positions in self._positions.items():
            for record_id in [own for own, position in positions.items() if position <= indexed]:
                self._remove(place, record_id)

    def _remove(self, place: _Place, record_id: bytes) -> None:
        del self._positions[place][record_id]
        self._unread[place].discard(record_id)
        self._known.get(place, {}).pop(record_id, None)
