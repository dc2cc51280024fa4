"""Deleting: what goes along, what forbids it, what is set to null; and emptying a namespace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias
from uuid import UUID

from memory_core.errors import ReferenceRestrictedError, StorageUnavailableError
from memory_core.records import OnDelete
from memory_storage_lmdb.engine.binding import Database
from memory_storage_lmdb.store.declaration import ReferenceRule
from memory_storage_lmdb.store.journal import DELETE
from memory_storage_lmdb.store.keys import ID_BYTES
from memory_storage_lmdb.store.layout import NAMESPACE_BYTES, KindLayout
from memory_storage_lmdb.write.transaction import WriteTransaction

__all__ = ["check_ready", "delete", "wipe"]

_Doomed: TypeAlias = dict[tuple[KindLayout, bytes], None]


def delete(write: WriteTransaction, layout: KindLayout, key: bytes) -> None:
    """Delete a record and what cascades from it; nothing happens when it is not there.

    Raises:
        ReferenceRestrictedError: something still refers to it.
    """
    if not write.exists(layout, key):
        return
    if layout.kind not in write.catalog.referrers:
        write.remove(layout, key)
        return
    doomed = _doomed(write, layout, key)
    for target, target_key in doomed:
        for referrer, rule, holder in _referring(write, target, target_key):
            if (referrer, holder) in doomed or rule.on_delete is OnDelete.CASCADE:
                continue
            if rule.on_delete is OnDelete.RESTRICT:
                record_id = UUID(bytes=target_key[NAMESPACE_BYTES:])
                raise ReferenceRestrictedError(target.kind, record_id, referrer.kind, rule.field)
            write.set_null(referrer, holder, rule.field)
    for target, target_key in reversed(doomed):
        write.remove(target, target_key)


def wipe(write: WriteTransaction, namespace: bytes, kinds: Sequence[str]) -> None:
    """Delete every record of a namespace, given the kinds this process knows, referred-to ones first."""
    layouts = write.catalog.layouts
    strangers = [kind for kind in layouts if kind not in kinds]
    for kind in (*strangers, *reversed(kinds)):
        layout = layouts[kind]
        check_ready(layout)
        for record_id in _emptied(write, write.records(layout), namespace):
            write.count(namespace, layout, -1)
            write.note(namespace, layout, DELETE, record_id)
        for name, _, _ in layout.databases():
            for _ in _emptied(write, write.catalog.handles[name], namespace):
                pass
    for place in [place for place in write.fresh if place[1].startswith(namespace)]:
        del write.fresh[place]


def check_ready(layout: KindLayout) -> None:
    """Check that a kind can be written.

    Raises:
        StorageUnavailableError: its indexes are being filled.
    """
    if layout.filling:
        raise StorageUnavailableError(f"the indexes of {layout.kind!r} are being filled; try again")


def _doomed(write: WriteTransaction, layout: KindLayout, key: bytes) -> _Doomed:
    """A record and all that cascades from it."""
    doomed: _Doomed = {}
    waiting = [(layout, key)]
    while waiting:
        place = waiting.pop()
        if place in doomed:
            continue
        check_ready(place[0])
        doomed[place] = None
        waiting += [
            (referrer, holder)
            for referrer, rule, holder in _referring(write, *place)
            if rule.on_delete is OnDelete.CASCADE
        ]
    return doomed


def _referring(
    write: WriteTransaction, layout: KindLayout, key: bytes
) -> Iterator[tuple[KindLayout, ReferenceRule, bytes]]:
    namespace, record_id = key[:NAMESPACE_BYTES], key[NAMESPACE_BYTES:]
    for referrer, rule in write.catalog.referrers.get(layout.kind, ()):
        for holder in write.holders(referrer, rule.field, namespace, record_id):
            yield referrer, rule, namespace + holder


def _emptied(write: WriteTransaction, database: Database, namespace: bytes) -> Iterator[bytes]:
    """Delete all keys of a namespace; gives the last bytes of each."""
    cursor = write.txn.cursor(db=database)
    found = cursor.set_range(namespace)
    while found and cursor.key().startswith(namespace):
        yield cursor.key()[-ID_BYTES:]
        # Moves on to the next key; gone are all duplicates of this one.
        cursor.delete(dupdata=True)
        found = bool(cursor.key())
