"""Walks over LMDB databases, in both directions.

Every walk yields *page keys*: an encoded order value followed by the id, or the id alone, so that bytes
compare as the query orders. A ``Span`` bounds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Protocol, TypeVar

from attrs import frozen

from memory_storage_lmdb.engine.binding import Cursor
from memory_storage_lmdb.store.encoding import AFTER_ID, ID_BYTES, ScalarType, scalar_length
from memory_storage_lmdb.store.layout import NAMESPACE_BYTES

__all__ = [
    "EVERYTHING",
    "Meter",
    "Span",
    "by_value",
    "duplicates",
    "ids",
    "in_order",
    "in_span",
    "metered",
    "sizes",
]

T = TypeVar("T")

_OFTEN = 127


class Meter(Protocol):
    """Checks from time to time whether a walk may continue."""

    def check(self) -> None:
        """Raise if the walk may not continue."""
        ...


@frozen
class Span:
    """Keys from ``lower``, included, to ``upper``, excluded."""

    lower: bytes = b"\0"
    upper: bytes = AFTER_ID

    def __contains__(self, key: bytes) -> bool:
        return self.lower <= key < self.upper

    def within(self, other: Span) -> Span:
        """The intersection of both spans."""
        return Span(max(self.lower, other.lower), min(self.upper, other.upper))

    def beyond(self, key: bytes, *, reverse: bool) -> Span:
        """The part of the span after a key, in a direction."""
        return self.within(Span(upper=key) if reverse else Span(lower=key + b"\0"))


EVERYTHING = Span()


def metered(items: Iterable[T], meter: Meter) -> Iterator[T]:
    """Yield the same items, checking from time to time whether to continue."""
    for number, item in enumerate(items):
        if not number & _OFTEN:
            meter.check()
        yield item


def duplicates(cursor: Cursor, key: bytes, span: Span, *, reverse: bool) -> Iterator[bytes]:
    """The duplicates of a key."""
    if span.lower >= span.upper or not cursor.set_key(key):
        return
    if reverse:
        if not cursor.set_range_dup(key, span.upper):
            cursor.set_key(key)
            cursor.last_dup()
        elif not cursor.prev_dup():
            return
        for found in cursor.iterprev_dup():
            if found < span.lower:
                return
            yield found
    elif cursor.set_range_dup(key, span.lower):
        for found in cursor.iternext_dup():
            if found >= span.upper:
                return
            yield found


def in_order(
    cursor: Cursor, namespace: bytes, scalar: ScalarType, span: Span, *, reverse: bool
) -> Iterator[bytes]:
    """The records of a namespace by their default order."""
    edge = span.upper if reverse else span.lower
    split = scalar_length(scalar, edge)
    key, record_id = namespace + edge[:split], edge[split:]
    if not _seek(cursor, key, record_id, reverse=reverse):
        return
    for found, last in cursor.iterprev() if reverse else cursor.iternext():
        page_key = found[NAMESPACE_BYTES:] + last
        if not found.startswith(namespace) or page_key not in span:
            return
        yield page_key


def ids(cursor: Cursor, namespace: bytes, span: Span, *, reverse: bool) -> Iterator[bytes]:
    """The ids of a namespace's records."""
    edge = span.upper if reverse else span.lower
    if not _seek(cursor, namespace + edge, b"", reverse=reverse):
        return
    walk = cursor.iterprev(values=False) if reverse else cursor.iternext(values=False)
    for found in walk:
        if not found.startswith(namespace) or found[NAMESPACE_BYTES:] not in span:
            return
        yield found[NAMESPACE_BYTES:]


def sizes(cursor: Cursor, namespace: bytes, span: Span) -> Iterator[int]:
    """How many records have each of the values in a span of an index."""
    if not cursor.set_range(namespace + span.lower):
        return
    for found in cursor.iternext_nodup():
        if not found.startswith(namespace) or found[NAMESPACE_BYTES:] not in span:
            return
        yield cursor.count()


def by_value(
    cursor: Cursor,
    namespace: bytes,
    span: Span,
    after: bytes,
    meter: Meter,
    *,
    reverse: bool,
) -> Iterator[bytes]:
    """The records of a namespace by an index other than the default order, ties by id. The span is of
    the index's values; ``after`` is the page key to begin after, or empty.
    """
    edge = span.upper if reverse else span.lower
    if not _seek(cursor, namespace + edge, b"", reverse=reverse):
        return
    walk = metered(cursor.iterprev() if reverse else cursor.iternext(), meter)
    for found, pairs in groupby(walk, key=itemgetter(0)):
        value = found[NAMESPACE_BYTES:]
        if not found.startswith(namespace) or value not in span:
            return
        for record_id in sorted((pair[1][-ID_BYTES:] for pair in pairs), reverse=reverse):
            page_key = value + record_id
            if not after or (page_key < after if reverse else page_key > after):
                yield page_key


def in_span(cursor: Cursor, namespace: bytes, span: Span) -> Iterator[bytes]:
    """The duplicates of all values in a span of an index."""
    if not cursor.set_range(namespace + span.lower):
        return
    for found, duplicate in cursor.iternext():
        if not found.startswith(namespace) or found[NAMESPACE_BYTES:] not in span:
            return
        yield duplicate


def _seek(cursor: Cursor, key: bytes, duplicate: bytes, *, reverse: bool) -> bool:
    """Go to the first item at or after a key and duplicate; in reverse, to the last one before them."""
    if duplicate and cursor.set_range_dup(key, duplicate):
        found = True
    elif duplicate and cursor.set_key(key):
        found = cursor.next_nodup()
    else:
        found = cursor.set_range(key)
    if not reverse:
        return found
    return cursor.prev() if found else cursor.last()
