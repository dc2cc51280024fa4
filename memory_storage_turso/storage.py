"""``TursoStorage``: records in a libSQL or SQLite database, a local file or a server's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import aiosqlite
from attrs import asdict, define, field

from memory_core.codec import Codec
from memory_core.errors import StorageClosedError, StorageError, UnsupportedCapabilityError
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
    check_namespace,
)
from memory_storage_turso.backends import borrow_backend, open_backend
from memory_storage_turso.config import TursoConfig
from memory_storage_turso.engine.backend import Backend
from memory_storage_turso.engine.census import Census
from memory_storage_turso.engine.dictionaries import Dictionaries
from memory_storage_turso.engine.driver import PreparedCacheStats, StatementError, StoreIdentity
from memory_storage_turso.engine.encoding import CodecThread
from memory_storage_turso.engine.opening import open_kinds, open_system
from memory_storage_turso.engine.reading import Reader
from memory_storage_turso.engine.writing import POSITION, Writer
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.tables import Tables

__all__ = ["TursoStorage"]

R = TypeVar("R", bound=Record)

_NAME = "INSERT INTO _namespaces (name) VALUES (?) ON CONFLICT (name) DO NOTHING"
_NUMBER = "SELECT ns FROM _namespaces WHERE name = ?"
_STORE_ID = Statement("SELECT value FROM _meta WHERE key = 'store_id'")


@define(eq=False)
class _Store:
    """What all handles on one store share."""

    backend: Backend
    config: TursoConfig
    store_id: UUID
    tables: Tables
    codec: Codec
    thread: CodecThread
    dictionaries: Dictionaries
    writer: Writer
    reader: Reader
    census: Census
    numbers: dict[str, int] = field(factory=dict[str, int])
    closing: asyncio.Task[None] | None = None

    def drain(self) -> None:
        if self.backend.drain is not None:
            self.backend.drain()

    async def close(self) -> None:
        self.drain()
        # Whatever goes wrong in one part, the others are let go of.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.backend.driver.aclose)
            stack.callback(self.thread.close)
            stack.push_async_callback(self.dictionaries.aclose)
            stack.push_async_callback(self.reader.aclose)
            await self.writer.aclose()


class TursoStorage:
    """A store in a database. Make it with ``open``."""

    def __init__(self, store: _Store, namespace: str, *, owner: bool) -> None:
        self._store = store
        self._namespace = namespace
        self._owner = owner
        self._closed = False

    @classmethod
    async def open(
        cls,
        location: str,
        *,
        config: TursoConfig | None = None,
        context: StorageContext | None = None,
    ) -> TursoStorage:
        """Open a store, making what is missing.

        Args:
            location: path of a local file, or a server's URL (``turso+http://…``, ``libsql://…``).
            config: options.
            context: namespace, kinds and limits.

        Raises:
            ConfigurationError: the location cannot be a store to write, or a driver is missing.
            SchemaVersionError: a newer version wrote it; it was left untouched.
            StorageError: it is no database, or is damaged.
            StorageUnavailableError: it cannot be reached, or stays locked.
        """
        config = config or TursoConfig()
        if context is not None and "://" not in location:
            context.check_exists(Path(location))
        return await cls._over(await open_backend(location, config), config, context)

    @classmethod
    async def wrap(
        cls,
        connection: aiosqlite.Connection,
        *,
        config: TursoConfig | None = None,
        context: StorageContext | None = None,
    ) -> TursoStorage:
        """Keep records in a database that the caller has opened, and closes after the store.

        The store has tables of its own in it, and turns foreign keys on. It uses the connection for
        itself alone while a call runs; between calls the caller may use it, but must leave no
        transaction open.

        Args:
            connection: an open connection, in sqlite3's own transaction mode.
            config: options; those of files and servers have no effect.
            context: namespace, kinds and limits.

        Raises:
            ConfigurationError: the connection's settings do not let the store work.
            SchemaVersionError: a newer version wrote the store; it was left untouched.
        """
        return await cls._over(await borrow_backend(connection), config or TursoConfig(), context)

    @classmethod
    async def _over(
        cls, backend: Backend, config: TursoConfig, context: StorageContext | None
    ) -> TursoStorage:
        context = context or StorageContext()
        try:
            store = await _prepared(backend, config, context)
        except StatementError as error:
            await backend.driver.aclose()
            raise StorageError(f"{backend.where}: {error}") from error
        except BaseException:
            await backend.driver.aclose()
            raise
        return cls(store, context.namespace, owner=True)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Of a file more than of a server."""
        return self._store.backend.capabilities

    @property
    def namespace(self) -> str:
        """The namespace this handle is bound to."""
        return self._namespace

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order."""
        store = self._opened()
        ns = store.numbers.get(self._namespace)
        if ns is None:
            ns = await self._new_number()
        return await store.writer.commit(ns, batches)

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id."""
        store = self._opened()
        store.tables.types.cls(kind.kind)
        ns = await self._number()
        if ns is None:
            return [None] * len(ids)
        return cast("list[R | None]", await store.reader.get(ns, kind.kind, ids))

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page."""
        store = self._opened()
        store.tables.types.cls(query.kind)
        ns = await self._number()
        return Page(()) if ns is None else await store.reader.query(ns, query)

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        store = self._opened()
        store.tables.types.cls(query.kind)
        ns = await self._number()
        return 0 if ns is None else await store.reader.count(ns, query)

    def position(self) -> Position | None:
        """The newest position of a file; ``None`` for a server."""
        local = self._opened().backend.local
        return None if local is None else local.position()

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """Changes of this namespace after a position."""
        store = self._opened()
        ns = await self._number()
        return await store.reader.changes(ns, since, limit, store.config.change_feed_limit)

    def scoped(self, namespace: str) -> TursoStorage:
        """A handle on the same store, bound to another namespace."""
        return TursoStorage(self._opened(), check_namespace(namespace), owner=False)

    async def stats(self) -> StorageStats:
        """Counters, sizes, and figures of the connections, statements and compression."""
        store = self._opened()
        ns = await self._number()
        counts = await store.census.counts(ns or 0)
        local = store.backend.local
        return StorageStats(
            backend="turso",
            location=store.backend.where,
            store_id=store.store_id,
            position=counts.position,
            records=counts.records,
            size_bytes=local.size_bytes() if local is not None else counts.size,
            counters={**store.writer.figures(), **store.reader.figures()},
            sections=self._sections(),
        )

    def prepared_cache_stats(self) -> PreparedCacheStats:
        """Figures of the cache of prepared statements.

        Raises:
            UnsupportedCapabilityError: the connection is the caller's, whose statements are not watched.
        """
        prepared = self._opened().backend.prepared
        if prepared is None:
            raise UnsupportedCapabilityError("figures of statements", type(self).__name__)
        return prepared()

    def drain(self) -> None:
        """Closing begins: on a server, calls under way have ``pool.drain_timeout`` from now to end.

        ``aclose`` begins with it. It is for who has other things to close as well.
        """
        self._store.drain()

    async def aclose(self) -> None:
        """Close this handle; the one that was opened closes the store. Idempotent."""
        self._closed = True
        if not self._owner:
            return
        store = self._store
        if store.closing is None:
            store.closing = asyncio.create_task(store.close(), name="memory-core close")
        await asyncio.shield(store.closing)

    async def namespaces(self) -> list[NamespaceInfo]:
        """The namespaces that hold records, by name."""
        return await self._opened().census.namespaces()

    async def wipe(self) -> Position:
        """Delete every record of this handle's namespace, in one commit.

        Records of a kind that another process has added since this one last looked go in a second one.
        """
        store = self._opened()
        ns = await self._new_number()
        position = await store.census.wipe(ns)
        store.writer.newest = max(store.writer.newest, position)
        return position

    async def backup(self, target: Path) -> None:
        """Write a consistent copy of the whole store, which opens like the original.

        Raises:
            ConfigurationError: when the target exists, or cannot be written.
            StorageFullError: when there is no room for it.
            UnsupportedCapabilityError: on a server, which has backups of its own.
        """
        local = self._opened().backend.local
        if local is None:
            raise UnsupportedCapabilityError(Capability.BACKUP.value, type(self).__name__)
        await local.backup(target)

    def _opened(self) -> _Store:
        if self._closed or self._store.closing is not None:
            raise StorageClosedError("the storage is closed")
        return self._store

    async def _number(self) -> int | None:
        """The namespace's number; ``None`` when nothing was ever written to it."""
        store = self._store
        ns = store.numbers.get(self._namespace)
        if ns is not None:
            return ns
        asked = Statement(_NUMBER, (self._namespace,))
        [result] = await store.backend.driver.read([asked], primary=True)
        if not result.rows:
            return None
        return store.numbers.setdefault(self._namespace, cast("int", result.rows[0][0]))

    async def _new_number(self) -> int:
        ns = await self._number()
        if ns is not None:
            return ns
        store, name = self._store, self._namespace
        statements = [Statement(_NAME, (name,)), Statement(_NUMBER, (name,))]
        outcome = await store.backend.driver.write([statements])
        result = outcome.results[0]
        if not isinstance(result, list):
            raise StorageError(f"{store.backend.where}: no namespace {name}: {result}") from result
        if not outcome.recovered:
            return store.numbers.setdefault(name, cast("int", result[-1].rows[0][0]))
        # The name is there, and what its number is was lost with the answer.
        ns = await self._number()
        if ns is None:
            raise StorageError(f"{store.backend.where}: the namespace {name} is gone")
        return ns

    def _sections(self) -> Mapping[str, Mapping[str, Any]]:
        store = self._store
        sections: dict[str, Mapping[str, Any]] = {
            "compression": store.codec.compressor.figures(),
            "indexing": store.writer.upkeep.figures(),
        }
        if store.backend.prepared is not None:
            prepared = store.backend.prepared()
            hit_rate = round(prepared.hit_rate(), 4)
            sections["statements"] = {**asdict(prepared), "hit_rate": hit_rate}
        connections: dict[str, Any] = {}
        for name, value in store.backend.driver.stats().items():
            if isinstance(value, Mapping):
                sections[name] = cast("Mapping[str, Any]", value)
            else:
                connections[name] = value
        if connections:
            sections["connections"] = connections
        return sections


async def _prepared(backend: Backend, config: TursoConfig, context: StorageContext) -> _Store:
    driver = backend.driver
    tables = Tables(context.record_types)
    codec = Codec(context.record_types, context.limits, config.compression)
    thread = CodecThread(codec)
    dictionaries = Dictionaries(driver, codec.compressor, thread)
    store_id = await open_system(driver, backend.where)
    await dictionaries.load()
    foreign = await open_kinds(driver, tables, codec, backend.where)
    if backend.ready is not None:
        backend.ready(POSITION, StoreIdentity(_STORE_ID, store_id.bytes))
    writer = Writer(backend, tables, thread, dictionaries, config.change_feed_limit)
    await writer.upkeep.start()
    reader = Reader(backend, tables, thread, dictionaries, writer)
    return _Store(
        backend=backend,
        config=config,
        store_id=store_id,
        tables=tables,
        codec=codec,
        thread=thread,
        dictionaries=dictionaries,
        writer=writer,
        reader=reader,
        census=Census(backend, reader, tables, foreign),
    )
