"""``TursoStorage``: records in a libSQL or SQLite database, a local file or a server's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import aiosqlite

from memory_core.backend import Handle
from memory_core.errors import UnsupportedCapabilityError
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
    require,
)
from memory_storage_turso.backends import open_backend
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.engine.driver import (
    Driver,
    Namespace,
    NamespaceMovedError,
    PreparedCacheStats,
)
from memory_storage_turso.engine.shared_state import SharedState
from memory_storage_turso.local.borrowed import BorrowedDriver

__all__ = ["TursoStorage"]

R = TypeVar("R", bound=Record)
S = TypeVar("S", bound=Record)
T = TypeVar("T")


class TursoStorage(Handle[SharedState]):
    """A store in a database. Make it with ``open``."""

    @classmethod
    async def open(
        cls,
        location: str,
        *,
        config: TursoConfig | None = None,
        context: StorageContext | None = None,
    ) -> TursoStorage:
        """Open a store, and create what is missing.

        Args:
            location: path of a local file, or a server's URL (``turso+http://…``, ``libsql://…``).
            config: options.
            context: namespace, kinds and limits.

        Raises:
            ConfigurationError: the location cannot be a store, or a driver is missing.
            StoreNotFoundError: there is none, and none may be created.
            NotAStoreError: another program's database; it was not changed.
            MigrationNeededError: opened to be read, but its tables are not as the kinds declare.
            SchemaVersionError: a newer version wrote it; it was not touched.
            StorageError: it is not a database, or is damaged.
            StorageUnavailableError: it cannot be reached, or stays locked.
        """
        config = config or TursoConfig()
        return await cls._over(await open_backend(location, config, context), config, context)

    @classmethod
    async def wrap(
        cls,
        connection: aiosqlite.Connection,
        *,
        config: TursoConfig | None = None,
        context: StorageContext | None = None,
    ) -> TursoStorage:
        """Keep records in a database that the caller opens, and closes after the store.

        The store creates its own tables in it, and enables foreign keys. It needs exclusive use of the
        connection while a call runs; between calls the caller may use it, but must leave no transaction
        open.

        Args:
            connection: an open connection, in sqlite3's own transaction mode.
            config: options; those of files and servers have no effect.
            context: namespace, kinds and limits.

        Raises:
            ConfigurationError: the connection's settings do not let the store work.
            SchemaVersionError: a newer version wrote the store; it was not touched.
        """
        return await cls._over(
            await BorrowedDriver.open(connection), config or TursoConfig(), context
        )

    @classmethod
    async def _over(
        cls, driver: Driver, config: TursoConfig, context: StorageContext | None
    ) -> TursoStorage:
        context = context or StorageContext()
        shared = await SharedState.open(
            driver,
            context,
            compression=config.compression,
            feed_limit=config.change_feed_limit,
        )
        return cls(shared, context.namespace, owner=True)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """The capabilities; a file has more than a server."""
        return self._shared.driver.capabilities

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order."""
        shared = self._writable()
        ns = shared.namespaces.numbers.get(self._namespace)
        if ns is None:
            ns = await shared.namespaces.find_or_add(self._namespace)
        return await shared.writer.commit(ns, batches)

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id."""
        shared = self._opened()
        shared.tables.types.cls(kind.kind)
        found = await self._numbered(
            lambda ns: shared.reader.get(ns, kind.kind, ids), [None] * len(ids)
        )
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return cast("list[R | None]", found)

    async def get_with_parts(
        self, kind: type[R], ids: Sequence[UUID], parts: Parts[R, S]
    ) -> list[WithParts[R, S] | None]:
        """Fetch records by id, each with its parts."""
        shared = self._opened()
        for cls in (kind, parts.kind):
            shared.tables.types.cls(cls.kind)
        found = await self._numbered(
            lambda ns: shared.reader.get_with_parts(ns, kind.kind, ids, parts), [None] * len(ids)
        )
        self._turn = turn = self._turn - 16
        if turn <= 0:
            await self._give_way()
        return cast("list[WithParts[R, S] | None]", found)

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page."""
        shared = self._opened()
        shared.tables.types.cls(query.kind)
        return await self._numbered(lambda ns: shared.reader.query(ns, query), Page(()))

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        return await self._count(query)

    async def count_up_to(self, query: Query[Any], up_to: int) -> int:
        """How many records fulfil the query's conditions, at most ``up_to``."""
        check_bound(up_to)
        return await self._count(query, up_to)

    async def _count(self, query: Query[Any], up_to: int | None = None) -> int:
        shared = self._opened()
        shared.tables.types.cls(query.kind)
        return await self._numbered(lambda ns: shared.reader.count(ns, query, up_to), 0)

    async def _numbered(self, read: Callable[[Namespace], Awaitable[T]], nothing: T) -> T:
        """What a read makes of the namespace's number, again if a wipe has changed it; or nothing."""
        namespaces = self._shared.namespaces
        while True:
            ns = namespaces.numbers.get(self._namespace)
            if ns is None:
                ns = await namespaces.find(self._namespace)
                if ns is None:
                    return nothing
            try:
                return await read(ns)
            except NamespaceMovedError:
                namespaces.forget_number(ns)

    def position(self) -> Position | None:
        """The newest position of a file; ``None`` for a server."""
        return self._opened().driver.position()

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """Changes of this namespace after a position."""
        shared = self._opened()
        read = shared.reader.changes
        changes = await self._numbered(lambda ns: read(ns, since, limit, shared.feed_limit), None)
        return changes or await read(None, since, limit, shared.feed_limit)

    async def stats(self) -> StorageStats:
        """Counters, sizes, and statistics of the connections, statements and compression."""
        shared = self._opened()
        counts = await self._numbered(shared.namespaces.counts, None)
        counts = counts or await shared.namespaces.counts(None)
        size = shared.driver.size_bytes()
        sections = shared.metrics.sections()
        return StorageStats(
            backend="turso",
            location=shared.driver.where,
            store_id=shared.store_id,
            position=counts.position,
            records=counts.records,
            size_bytes=counts.size if size is None else size,
            counters=sections.pop("counters"),
            sections=sections,
        )

    def prepared_cache_stats(self) -> PreparedCacheStats:
        """Statistics of the cache of prepared statements.

        Raises:
            UnsupportedCapabilityError: the connection is the caller's, whose statements are not observed.
        """
        prepared = self._opened().driver.prepared_stats()
        if prepared is None:
            raise UnsupportedCapabilityError("statistics of statements", type(self).__name__)
        return prepared

    def drain(self) -> None:
        """Begin closing: on a server, in-flight calls have ``pool.drain_timeout`` from now on to end.

        ``aclose`` begins with it. Call it first where other things are closed as well.
        """
        self._shared.drain()

    async def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        return await self._opened().namespaces.infos()

    async def wipe(self) -> Position:
        """Delete every record of this handle's namespace, in one commit.

        What many records leave is removed after it, in short steps.
        """
        return await self._writable().namespaces.wipe(self._namespace)

    async def backup(self, target: Path) -> None:
        """Write a consistent copy of the whole store, which opens like the original.

        Raises:
            ConfigurationError: the target exists, or cannot be written.
            StorageFullError: there is no room for it.
            UnsupportedCapabilityError: on a server, which has backups of its own.
        """
        require(self, Capability.BACKUP)
        await self._opened().driver.backup(target)
