"""Reads that go on past records that cannot be read: derived data must be usable without them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from memory_core.errors import CodecError, InvalidValueError, SchemaVersionError
from memory_core.query import Query
from memory_core.storage import Storage

__all__ = ["readable", "readable_pages"]

T = TypeVar("T")
R = TypeVar("R")

_RECORDS_AT_ONCE = 64
_UNREADABLE = (CodecError, SchemaVersionError, InvalidValueError)


async def readable(
    read: Callable[[Sequence[T]], Awaitable[Sequence[R | None]]],
    items: Sequence[T],
    unreadable: Callable[[T], None] = lambda _: None,
) -> list[R | None]:
    """What a read of many items returns, with ``None`` for each that cannot be read.

    Args:
        read: reads items, all or none; it returns as many as it gets, in order.
        items: what is read: ids, for example.
        unreadable: called with each item that cannot be read.
    """
    try:
        return list(await read(items))
    except _UNREADABLE:
        if len(items) > 1:
            half = len(items) // 2
            return [
                *await readable(read, items[:half], unreadable),
                *await readable(read, items[half:], unreadable),
            ]
    # A read of the record raises the error.
    unreadable(items[0])
    return [None]


async def readable_pages(
    storage: Storage, query: Query[Any], unreadable: Callable[[], None] = lambda: None
) -> AsyncIterator[list[Any]]:
    """Every record that fulfils a query and can be read, by ascending id.

    Args:
        storage: the namespace.
        query: the conditions; its order and limit are replaced.
        unreadable: called for each record that cannot be read.

    Raises:
        CodecError: the damaged record is not known, so that it cannot be passed.
    """
    query = query.order_by("id").limit(_RECORDS_AT_ONCE)
    while True:
        try:
            page = await storage.query(query)
        except CodecError as error:
            alone = query.page_size == 1
            query = _past(query, error)
            if alone:
                unreadable()
            continue
        if page.records:
            yield list(page.records)
        if page.next_cursor is None:
            return
        query = query.limit(_RECORDS_AT_ONCE).after(page.next_cursor)


def _past(query: Query[Any], error: CodecError) -> Query[Any]:
    """The query whose next page is not spoilt by a damaged record: first a page of that record alone, then
    the page after it.
    """
    if query.page_size > 1:
        return query.limit(1)
    damaged = error.record_id
    if damaged is None or (query.start is not None and damaged.bytes <= query.start.id.bytes):
        # The same page would come again.
        raise error
    return query.limit(_RECORDS_AT_ONCE).after(query.cursor(None, damaged))
