"""The LMDB backend: reads inline, writes in groups on one thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from memory_core.backend import Handle
from memory_core.errors import ConfigurationError
from memory_core.query import Page, Query
from memory_core.records import Record
from memory_core.storage import (
    Capability,
    ChangePage,
    CommitResult,
    NamespaceInfo,
    Parts,
    Position,
    StorageContext,
    StorageStats,
    WithParts,
    WriteBatch,
    check_bound,
    local_path,
)
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.shared_state import SharedState, open_state

__all__ = ["LmdbStorage"]

R = TypeVar("R", bound=Record)
S = TypeVar("S", bound=Record)

_CAPABILITIES = frozenset(
    {
        Capability.DURABLE,
        Capability.MULTI_PROCESS,
        Capability.CHEAP_POSITION,
        Capability.NAMESPACES,
        Capability.BACKUP,
        Capability.BOUNDED_COUNTS,
        Capability.PARTS,
    }
)


class LmdbStorage(Handle[SharedState]):
    """A store in a directory; all of ``Storage``, ``SupportsNamespaces`` and ``SupportsBackup``.

    Made by ``open`` and ``scoped``.
    """

    @classmethod
    async def open(
        cls,
        location: str,
        *,
        config: LmdbConfig | None = None,
        context: StorageContext | None = None,
    ) -> LmdbStorage:
        """Open the store in a directory, which is created if it is missing.

        Handles of one process on one directory share an LMDB environment.

        Raises:
            ConfigurationError: the location cannot be a store, or is open with other options.
            StoreNotFoundError: there is none, and none may be created.
            NotAStoreError: there is something else; it was not changed.
            MigrationNeededError: opened to be read, but its indexes are not as the kinds declare.
            SchemaVersionError: a newer version wrote it; it was left untouched.
        """
        context = context or StorageContext()
        if not location:
            raise ConfigurationError("lmdb: needs a directory, such as lmdb:./memory")
        shared = await open_state(str(local_path(location)), config or LmdbConfig(), context)
        return cls(shared, context.namespace)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Every capability."""
        return _CAPABILITIES

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order; see ``Storage.commit``."""
        shared = self._writable()
        if not batches:
            return []
        with shared.accepting():
            return await shared.writer.commit(self._namespace, batches)

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id; see ``Storage.get``."""
        found = await self._opened().reader.get(self._namespace, kind, ids)
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return found

    async def get_with_parts(
        self, kind: type[R], ids: Sequence[UUID], parts: Parts[R, S]
    ) -> list[WithParts[R, S] | None]:
        """Fetch records by id, each with its parts; see ``SupportsParts``."""
        found = await self._opened().reader.get_with_parts(self._namespace, kind, ids, parts)
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return found

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page; see ``Storage.query``."""
        return await self._opened().reader.query(self._namespace, query, self._give_way)

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        return await self._count(query)

    async def count_up_to(self, query: Query[Any], up_to: int) -> int:
        """How many records fulfil the query's conditions, at most ``up_to``."""
        check_bound(up_to)
        return await self._count(query, up_to)

    async def _count(self, query: Query[Any], up_to: int | None = None) -> int:
        found = await self._opened().reader.count(self._namespace, query, up_to)
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return found

    def position(self) -> Position:
        """The newest position that any process has written."""
        return self._opened().reader.position()

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """Changes of this namespace after a position; see ``Storage.changes``."""
        page = await self._opened().reader.changes(self._namespace, since, limit)
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return page

    async def stats(self) -> StorageStats:
        """Statistics of the store and of this process's use of it."""
        shared = self._opened()
        counts, head = await shared.reader.record_counts()
        kinds = dict.fromkeys(shared.codec.types.kinds, 0)
        sections = shared.metrics.sections()
        # All opens of this process share the map; other processes have pending entries as well.
        size = sections["map"] = shared.environment.stats()
        sections["upkeep"]["waiting"] = head.sequence - head.indexed
        return StorageStats(
            backend="lmdb",
            location=shared.environment.path,
            store_id=shared.store.catalog.store_id,
            position=head.sequence,
            records=counts.get(self._namespace, kinds),
            size_bytes=size["used_bytes"],
            counters=sections.pop("counters"),
            sections=sections,
        )

    async def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        counts, _ = await self._opened().reader.record_counts()
        return [
            NamespaceInfo(name, records)
            for name, records in sorted(counts.items())
            if any(records.values())
        ]

    async def wipe(self) -> Position:
        """Delete every record of this handle's namespace, in one commit.

        The space of the records is free when it returns, or some time after it was cancelled.
        """
        shared = self._writable()
        with shared.accepting():
            while (listing := await shared.reader.everything(self._namespace)) is not None:
                position = await shared.writer.wipe(self._namespace, listing)
                if position is not None:
                    return position
            return shared.reader.position()

    async def backup(self, target: Path) -> None:
        """Write a consistent copy of the whole store to a new directory.

        Raises:
            ConfigurationError: the target exists, or cannot be written.
            StorageFullError: there is no room for it.
        """
        shared = self._opened()
        with shared.accepting():
            await shared.backup(target)
