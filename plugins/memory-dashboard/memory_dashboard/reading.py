"""Reading what can be read: one damaged record does not keep a page from showing the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar
from uuid import UUID

from attrs import field, frozen

from memory_core.errors import CodecError
from memory_core.memory import Memory
from memory_core.query import Query
from memory_core.records import Record

__all__ = ["Readable", "by_ids", "itself", "readable"]

R = TypeVar("R", bound=Record)
T = TypeVar("T")

_AT_ONCE = 50
"""Records in memory at once: they may be large, and what a page says of each is short."""
_MOST_DAMAGED = 100
"""Damaged records that are passed over before a page ends: a read is lost on each."""


@frozen(kw_only=True)
class Readable(Generic[T]):
    """What a page of records says.

    Attributes:
        found: what was taken of each record.
        following: the cursor of the next page.
        damaged: the ids of records that cannot be read.
        order: the order in which the records came, which is "id" where one is damaged.
    """

    found: Sequence[T]
    following: str | None
    damaged: Sequence[UUID] = field(default=())
    order: str


def itself(record: R) -> R:
    """What is kept of a record that is needed whole."""
    return record


async def readable(memory: Memory, query: Query[R], take: Callable[[R], T]) -> Readable[T]:
    """Read a page of records, without those that are damaged.

    Args:
        memory: where.
        query: which, and how many at most.
        take: what is kept of each record.

    Raises:
        StorageError: the store cannot be read.
    """
    try:
        return await _read(memory, query, take)
    except CodecError:
        # Where a damaged record stands in another order is not known, so no page could go on after it.
        if query.order != "id":
            query = query.after(None).order_by("id", descending=query.descending)
        return await _read_past_damaged(memory, query, take)


async def _read(memory: Memory, query: Query[R], take: Callable[[R], T]) -> Readable[T]:
    found: list[T] = []
    asked, wanted = query, query.page_size
    while True:
        page = await memory.query(asked.limit(min(_AT_ONCE, wanted - len(found))))
        found += map(take, page.records)
        if page.next_cursor is None or len(found) >= wanted:
            return Readable(found=found, following=page.next_cursor, order=query.order)
        asked = asked.after(page.next_cursor)


async def _read_past_damaged(
    memory: Memory, query: Query[R], take: Callable[[R], T]
) -> Readable[T]:
    found: list[T] = []
    damaged: list[UUID] = []
    asked, wanted, size = query, query.page_size, 1
    following: str | None = None
    while len(found) < wanted and len(damaged) < _MOST_DAMAGED:
        try:
            page = await memory.query(asked.limit(min(size, wanted - len(found))))
        except CodecError as error:
            if size > 1:
                size = 1
                continue
            if error.record_id is None or error.record_id in damaged:
                # The same page would come again.
                raise
            damaged.append(error.record_id)
            following = query.cursor(None, error.record_id)
        else:
            found += map(take, page.records)
            following = page.next_cursor
            if following is None:
                break
            size = min(2 * size, _AT_ONCE)
        asked = asked.after(following)
    return Readable(found=found, following=following, damaged=damaged, order="id")


async def by_ids(
    memory: Memory, kind: type[R], ids: Sequence[UUID], take: Callable[[R], T]
) -> dict[UUID, T]:
    """What is kept of the records with these ids that are stored and can be read, by id."""
    found: dict[UUID, T] = {}
    for start in range(0, len(ids), _AT_ONCE):
        for record in await _readable_of(memory, kind, ids[start : start + _AT_ONCE]):
            if record is not None:
                found[record.id] = take(record)
    return found


async def _readable_of(memory: Memory, kind: type[R], ids: Sequence[UUID]) -> Sequence[R | None]:
    try:
        return await memory.storage.get(kind, ids)
    except CodecError:
        if len(ids) == 1:
            return ()
        half = len(ids) // 2
        first = await _readable_of(memory, kind, ids[:half])
        return [*first, *await _readable_of(memory, kind, ids[half:])]
