"""The reads of a store that holds all its records in memory, as a ``Model``, with a ``ChangeFeed``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from memory_core.backend.feed import ChangeFeed
from memory_core.backend.handle import Handle, SharedState
from memory_core.backend.model import Model
from memory_core.query import Page, Query
from memory_core.records import Record
from memory_core.storage import ChangePage, NamespaceInfo, Position, StorageContext, check_bound

__all__ = ["ModelHandle", "ModelStore"]

R = TypeVar("R", bound=Record)
_READS = ("gets", "ids_asked", "queries", "counts", "feed_reads")


class ModelStore(SharedState):
    """An open store whose records are held in memory; a backend derives its own.

    Args:
        context: kinds, limits, and whether writes are rejected.
        change_feed_limit: how many changes the change feed keeps.
        counters: names of what is counted besides reads.

    Attributes:
        model: the records.
        feed: the newest changes.
    """

    def __init__(
        self, context: StorageContext, change_feed_limit: int, counters: Iterable[str]
    ) -> None:
        super().__init__((*counters, *_READS), read_only=context.read_only)
        self.model = Model(context.record_types, context.limits)
        self.feed = ChangeFeed(change_feed_limit)


S = TypeVar("S", bound=ModelStore)


class ModelHandle(Handle[S]):
    """The reads of ``Storage`` and of ``SupportsNamespaces``; none of them waits."""

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id."""
        shared = self._opened()
        shared.model.types.cls(kind.kind)
        shared.counters["gets"] += 1
        shared.counters["ids_asked"] += len(ids)
        found = (shared.model.get(self._namespace, kind.kind, record_id) for record_id in ids)
        records = [None if stored is None else cast("R", stored.record) for stored in found]
        self._turn = turn = self._turn - 1
        if turn <= 0:
            await self._give_way()
        return records

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page."""
        shared = self._opened()
        shared.counters["queries"] += 1
        page = shared.model.page(self._namespace, query)
        await self._give_way()
        return page

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        return await self._count(query)

    async def count_up_to(self, query: Query[Any], up_to: int) -> int:
        """How many records fulfil the query's conditions, at most ``up_to``."""
        check_bound(up_to)
        return await self._count(query, up_to)

    async def _count(self, query: Query[Any], up_to: int | None = None) -> int:
        shared = self._opened()
        shared.counters["counts"] += 1
        count = shared.model.count(self._namespace, query, up_to)
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return count

    def position(self) -> Position:
        """The newest position."""
        return self._opened().feed.position

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """Changes of this namespace after a position."""
        shared = self._opened()
        shared.counters["feed_reads"] += 1
        page = shared.feed.page(self._namespace, since, limit)
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return page

    async def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        return self._opened().model.namespaces()
