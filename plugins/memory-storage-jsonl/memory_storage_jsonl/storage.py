"""``JsonlStorage``: the handles that users of the backend hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from memory_core.backend import Handle, open_on_thread
from memory_core.disk import disk_failure
from memory_core.errors import ConfigurationError
from memory_core.query import Page, Query
from memory_core.records import Record
from memory_core.storage import (
    Capability,
    ChangePage,
    CommitResult,
    NamespaceInfo,
    Position,
    StorageContext,
    StorageStats,
    WriteBatch,
    check_bound,
)
from memory_storage_jsonl.config import JsonlConfig
from memory_storage_jsonl.engine import Engine

__all__ = ["JsonlStorage"]

R = TypeVar("R", bound=Record)

_CAPABILITIES = frozenset(
    {
        Capability.BOUNDED_COUNTS,
        Capability.CHEAP_POSITION,
        Capability.DURABLE,
        Capability.NAMESPACES,
    }
)


class JsonlStorage(Handle[Engine]):
    """A store in an append-only file of JSON lines, held in memory while it is open.

    Implements ``Storage`` and ``SupportsNamespaces``; made by ``open``.
    """

    @classmethod
    async def open(
        cls,
        location: str,
        *,
        config: JsonlConfig | None = None,
        context: StorageContext | None = None,
    ) -> JsonlStorage:
        """Open the file at a path, creating it if it is missing.

        Raises:
            ConfigurationError: the path is empty or a directory or cannot be written, or a stored
                kind is unknown.
            StoreNotFoundError: it is missing, and may not be created.
            NotAStoreError: the file is not a log; it was not changed.
            CodecError: it is damaged; names line and offset.
            SchemaVersionError: a newer version wrote it.
            StorageUnavailableError: another process has it open; the message names it.
            StorageError: the disk failed.
        """
        if not location:
            raise ConfigurationError(
                "jsonl: needs the path of a file, such as jsonl:./memory.jsonl"
            )
        context = context or StorageContext()
        try:
            engine = await open_on_thread(
                lambda: Engine(location, config or JsonlConfig(), context)
            )
        except OSError as error:
            raise disk_failure(error, location) from error
        return cls(engine, context.namespace)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """``DURABLE``, ``NAMESPACES`` and ``CHEAP_POSITION``."""
        return _CAPABILITIES

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order."""
        return await self._writable().commit(self._namespace, batches)

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id."""
        engine = self._opened()
        engine.model.types.cls(kind.kind)
        engine.counters["gets"] += 1
        found = (engine.model.get(self._namespace, kind.kind, record_id) for record_id in ids)
        records = [None if stored is None else cast("R", stored.record) for stored in found]
        self._turn = turn = self._turn - 1
        if turn <= 0:
            await self._give_way()
        return records

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page."""
        engine = self._opened()
        engine.counters["queries"] += 1
        page = engine.model.page(self._namespace, query)
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
        engine = self._opened()
        engine.counters["counts"] += 1
        count = engine.model.count(self._namespace, query, up_to)
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return count

    def position(self) -> Position:
        """The newest position that is in the log."""
        return self._opened().feed.position

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """Changes of this namespace after a position."""
        engine = self._opened()
        engine.counters["feed_reads"] += 1
        page = engine.feed.page(self._namespace, since, limit)
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return page

    async def stats(self) -> StorageStats:
        """Counters and sizes."""
        engine = self._opened()
        sections = engine.metrics.sections()
        return StorageStats(
            backend="jsonl",
            location=f"jsonl:{engine.log.path}",
            store_id=engine.log.store_id,
            position=engine.feed.position,
            records=engine.model.counts(self._namespace),
            size_bytes=engine.log.size,
            counters=sections.pop("counters"),
            sections=sections,
        )

    async def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        return self._opened().model.namespaces()

    async def wipe(self) -> Position:
        """Delete every record of this handle's namespace, in one commit."""
        return await self._writable().wipe(self._namespace)
