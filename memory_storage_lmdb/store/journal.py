"""The journal: the newest position, the change feed, and the number of records.

One database, laid out so that everything a commit changes lies on one page::

    1 | position of the segment's first change  ->  changes: namespace, kind, operation, id
    2                                           ->  head
    3 | namespace | kind                        ->  number of records

The feed is also the list of the pending index entries: those of every change after ``Head.indexed``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

from attrs import evolve, frozen

from memory_storage_lmdb.engine.binding import DamagedEntryError, Database, Transaction
from memory_storage_lmdb.store.encoding import checked, with_checksum

__all__ = [
    "DELETE",
    "EMPTY_HEAD",
    "PUT",
    "Head",
    "Listing",
    "RawChange",
    "append_changes",
    "counts_of",
    "forget_counts",
    "pack_change",
    "read_changes",
    "read_count",
    "read_head",
    "trim",
    "write_count",
    "write_head",
]

PUT, DELETE = 1, 2

RawChange: TypeAlias = tuple[int, bytes, int, int, bytes]
"""Position, namespace, kind number, operation, id."""

_CHANGE = struct.Struct(">4sHB16s")
_POSITION = struct.Struct(">BQ")
_HEAD = struct.Struct(">QQQI")
_COUNT = struct.Struct(">Q")
_COUNT_KEY = struct.Struct(">B4sH")
_SEGMENTS, _HEAD_TAG, _COUNTS = 1, 2, 3
_HEAD_KEY = bytes([_HEAD_TAG])
_LAST_POSITION = 2**64 - 1
# As many as fit on one overflow page.
_SEGMENT_CHANGES = 160


@frozen
class Head:
    """The head of the journal.

    Attributes:
        sequence: the number of the newest change.
        trimmed: the feed holds the changes after this one.
        indexed: the indexes hold the changes up to this one.
        generation: grows whenever the declaration of a kind changes.
    """

    sequence: int
    trimmed: int
    indexed: int
    generation: int


EMPTY_HEAD = Head(0, 0, 0, 0)

pack_change = _CHANGE.pack
"""Namespace (4 bytes), kind number, operation, id (16 bytes) as stored in a segment."""


@frozen
class Listing:
    """The records of a namespace in a snapshot.

    Attributes:
        number: the namespace's number.
        position: the snapshot's position.
        deletions: the packed deletion of each record; what refers comes before what it refers to.
    """

    number: bytes
    position: int
    deletions: list[bytes]


def read_head(txn: Transaction, journal: Database) -> Head:
    """The head.

    Raises:
        DamagedEntryError: it is missing or damaged.
    """
    stored = txn.get(_HEAD_KEY, db=journal)
    if stored is None:
        raise DamagedEntryError("journal", _HEAD_KEY, "there is no head")
    return Head(*_unpacked(_HEAD, _HEAD_KEY, checked("journal", _HEAD_KEY, stored)))


def write_head(txn: Transaction, journal: Database, head: Head) -> None:
    """Store the head."""
    packed = _HEAD.pack(head.sequence, head.trimmed, head.indexed, head.generation)
    txn.put(_HEAD_KEY, with_checksum(_HEAD_KEY, packed), db=journal)


def append_changes(txn: Transaction, journal: Database, start: int, changes: list[bytes]) -> None:
    """Store packed changes; the first of them has the position after ``start``."""
    for offset in range(0, len(changes), _SEGMENT_CHANGES):
        key = _POSITION.pack(_SEGMENTS, start + offset + 1)
        segment = b"".join(changes[offset : offset + _SEGMENT_CHANGES])
        txn.put(key, with_checksum(key, segment), db=journal)


def read_changes(txn: Transaction, journal: Database, since: int) -> Iterator[RawChange]:
    """The stored changes after a position, oldest first."""
    cursor = txn.cursor(db=journal)
    key = _POSITION.pack(_SEGMENTS, min(since + 1, _LAST_POSITION))
    # Unless one begins exactly there, the segment before may reach beyond the position. Segments come
    # first in the database and the head after them, so a cursor finds nothing else.
    if cursor.set_range(key) and cursor.key() != key and not cursor.prev():
        cursor.first()
    for found, stored in cursor.iternext():
        if found[0] != _SEGMENTS:
            return
        _, position = _unpacked(_POSITION, found, found)
        segment = checked("journal", found, stored)
        for namespace, kind, operation, record_id in _CHANGE.iter_unpack(segment):
            if position > since:
                yield position, namespace, kind, operation, record_id
            position += 1


def trim(txn: Transaction, journal: Database, head: Head, limit: int) -> Head:
    """Forget changes older than the newest ``limit``, except those whose index entries are pending.

    Trims rarely, and then many changes at once.

    Returns:
        The new head, which the caller must store.
    """
    slack = max(1_000, limit // 8)
    if head.sequence - head.trimmed <= limit + slack:
        return head
    bound = min(head.sequence - limit, head.indexed)
    trimmed = head.trimmed
    cursor = txn.cursor(db=journal)
    while cursor.first():
        key, segment = cursor.item()
        if key[0] != _SEGMENTS:
            break
        _, first = _unpacked(_POSITION, key, key)
        last = first + len(segment) // _CHANGE.size - 1
        if last > bound:
            break
        trimmed = last
        cursor.delete()
    return evolve(head, trimmed=trimmed)


def read_count(txn: Transaction, journal: Database, namespace: bytes, kind: int) -> int:
    """How many records of a kind a namespace has."""
    key = _COUNT_KEY.pack(_COUNTS, namespace, kind)
    stored = txn.get(key, db=journal)
    return 0 if stored is None else _unpacked(_COUNT, key, checked("journal", key, stored))[0]


def write_count(
    txn: Transaction, journal: Database, namespace: bytes, kind: int, count: int
) -> None:
    """Store how many records of a kind a namespace has."""
    key = _COUNT_KEY.pack(_COUNTS, namespace, kind)
    txn.put(key, with_checksum(key, _COUNT.pack(count)), db=journal)


def forget_counts(txn: Transaction, journal: Database, namespace: bytes) -> None:
    """Remove what was stored of a namespace's numbers of records."""
    cursor, start = txn.cursor(db=journal), bytes([_COUNTS]) + namespace
    found = cursor.set_range(start)
    while found and cursor.key().startswith(start):
        cursor.delete()
        found = bool(cursor.key())


def counts_of(txn: Transaction, journal: Database) -> Iterator[tuple[bytes, int, int]]:
    """Namespace, kind number and number of records, of each kind that a namespace has ever held."""
    cursor = txn.cursor(db=journal)
    if not cursor.set_range(bytes([_COUNTS])):
        return
    for key, stored in cursor.iternext():
        _, namespace, kind = _unpacked(_COUNT_KEY, key, key)
        yield namespace, kind, _unpacked(_COUNT, key, checked("journal", key, stored))[0]


def _unpacked(form: struct.Struct, key: bytes, data: bytes) -> tuple[Any, ...]:
    try:
        return form.unpack(data)
    except struct.error as error:
        raise DamagedEntryError("journal", key, error) from error
