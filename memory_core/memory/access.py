"""``RecordAccess``: records of any kind in one namespace of a store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

from memory_core.memory.arguments import a_batch, a_kind, a_limit, a_position, a_query
from memory_core.memory.arguments import ids as as_ids
from memory_core.memory.running import is_sealed, with_logged_steps
from memory_core.query import Page, Query
from memory_core.records import Episode, Record
from memory_core.storage import ChangePage, Position, Receipt, Storage, StorageStats, WriteBatch

__all__ = ["RecordAccess"]

R = TypeVar("R", bound=Record)


class RecordAccess:
    """Reads and writes records of any kind; ``Memory`` adds the domain's words.

    Args:
        storage: where they are; closed with this.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def storage(self) -> Storage:
        """The storage below, caches included."""
        return self._storage

    @property
    def namespace(self) -> str:
        """The namespace this memory is bound to."""
        return self._storage.namespace

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Finish what was accepted, then close. Idempotent."""
        await self._storage.aclose()

    # Any kind

    async def write(self, batch: WriteBatch) -> Receipt:
        """Apply a batch: all of it or nothing.

        Raises:
            StorageError: why it was refused.
        """
        (result,) = await self._storage.commit((a_batch(batch),))
        if isinstance(result, Receipt):
            return result
        raise result

    async def put(self, *records: Record) -> Receipt:
        """Store records of any kinds, in order, all or none."""
        return await self.write(WriteBatch().put(*records))

    async def get(self, kind: type[R], record_id: UUID) -> R | None:
        """A record, or ``None``."""
        return (await self.get_many(kind, (record_id,)))[0]

    async def get_many(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Records in the order asked, ``None`` where there is none."""
        return await with_logged_steps(
            self._storage, await self._storage.get(a_kind(kind), as_ids(ids))
        )

    async def delete(self, kind: type[Record], *ids: UUID) -> Receipt:
        """Delete records and what cascades from them, all or none; those not there are no error."""
        return await self.write(WriteBatch().delete(kind, *as_ids(ids)))

    async def query(self, query: Query[R]) -> Page[R]:
        """One page of a query."""
        page = await self._storage.query(a_query(query))
        if query.cls is Episode and not all(map(is_sealed, page.records)):
            records = await with_logged_steps(self._storage, page.records)
            return Page(tuple(records), page.next_cursor)
        return page

    async def iterate(self, query: Query[R]) -> AsyncIterator[R]:
        """Every record that a query finds, page by page; its limit is the page's size."""
        while True:
            page = await self.query(query)
            for record in page.records:
                yield record
            if page.next_cursor is None:
                return
            query = query.after(page.next_cursor)

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil a query's conditions, exactly; its limit does not matter."""
        return await self._storage.count(a_query(query))

    # The store

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """At most ``limit`` changes after a position, oldest first."""
        return await self._storage.changes(a_position(since), a_limit(limit))

    def position(self) -> Position | None:
        """The store's newest position; ``None`` where the backend cannot tell cheaply."""
        return self._storage.position()

    async def stats(self) -> StorageStats:
        """Figures of the store, its caches included."""
        return await self._storage.stats()
