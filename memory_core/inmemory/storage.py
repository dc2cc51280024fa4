"""The reference backend: it keeps everything in this process's memory, and loses it at exit.

Its answers are correct by definition: the conformance kit compares every other backend with it.
No operation awaits anything, so no other can run between its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

from attrs import field, frozen
from attrs.validators import ge

from memory_core.backend import ChangeFeed, Effect, Handle, Model, SharedState
from memory_core.errors import ConfigurationError, MemoryCoreError
from memory_core.query import Page, Query
from memory_core.records import Record
from memory_core.storage import (
    Capability,
    ChangePage,
    CommitResult,
    NamespaceInfo,
    Position,
    Receipt,
    StorageContext,
    StorageStats,
    WriteBatch,
    check_bound,
)

__all__ = ["InMemoryConfig", "InMemoryStorage"]

R = TypeVar("R", bound=Record)

_CAPABILITIES = frozenset(
    {Capability.BOUNDED_COUNTS, Capability.CHEAP_POSITION, Capability.NAMESPACES}
)


@frozen(kw_only=True)
class InMemoryConfig:
    """Options of ``inmemory:``.

    Attributes:
        change_feed_limit: how many changes the change feed keeps.
    """

    change_feed_limit: int = field(default=100_000, validator=ge(1))


class _SharedState(SharedState):
    """The state that all handles on one store share."""

    def __init__(self, context: StorageContext, config: InMemoryConfig) -> None:
        super().__init__(_COUNTERS, read_only=context.read_only)
        self.model = Model(context.record_types, context.limits)
        self.feed = ChangeFeed(config.change_feed_limit)
        self.store_id = uuid4()
        self.metrics.add(self._sections)

    def _sections(self) -> dict[str, dict[str, int]]:
        return {"counters": self.counters}


_COUNTERS = (
    "commits", "batches", "batches_refused", "changes",
    "gets", "ids_asked", "queries", "counts", "feed_reads",
)  # fmt: skip


class InMemoryStorage(Handle[_SharedState]):
    """A store in memory; all of ``Storage``, and ``SupportsNamespaces``.

    Args:
        context: namespace, kinds and limits.
        config: options.
    """

    def __init__(
        self, context: StorageContext | None = None, config: InMemoryConfig | None = None
    ) -> None:
        context = context or StorageContext()
        super().__init__(_SharedState(context, config or InMemoryConfig()), context.namespace)

    @classmethod
    async def open(
        cls,
        location: str = "",
        *,
        config: InMemoryConfig | None = None,
        context: StorageContext | None = None,
    ) -> InMemoryStorage:
        """A new, empty store.

        Raises:
            ConfigurationError: when a location is given: two stores with the same name would still be
            separate.
        """
        if location:
            raise ConfigurationError(f"inmemory: takes no location, got {location!r}")
        return cls(context, config)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """``CHEAP_POSITION`` and ``NAMESPACES``."""
        return _CAPABILITIES

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order."""
        shared = self._writable()
        shared.counters["commits"] += 1
        results = [self._commit(batch) for batch in batches]
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return results

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

    async def stats(self) -> StorageStats:
        """Counters and sizes."""
        shared = self._opened()
        return StorageStats(
            backend="inmemory",
            location="inmemory:",
            store_id=shared.store_id,
            position=shared.feed.position,
            records=shared.model.counts(self._namespace),
            size_bytes=shared.model.size_bytes,
            counters=shared.metrics.sections()["counters"],
        )

    async def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        return self._opened().model.namespaces()

    async def wipe(self) -> Position:
        """Delete every record of this handle's namespace."""
        shared = self._writable()
        return self._record(shared.model.wipe(self._namespace))

    def _commit(self, batch: WriteBatch) -> CommitResult:
        shared = self._shared
        shared.counters["batches"] += 1
        try:
            effects = shared.model.apply(self._namespace, shared.model.prepare(batch))
        except MemoryCoreError as error:
            shared.counters["batches_refused"] += 1
            return error
        return Receipt(self._record(effects), batch.ids)

    def _record(self, effects: Sequence[Effect]) -> Position:
        self._shared.counters["changes"] += len(effects)
        return self._shared.feed.extend(effects)
