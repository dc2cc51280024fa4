"""The LMDB backend: reads inline, writes in groups on one thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from attrs import define, field

from memory_core.codec import Codec
from memory_core.errors import ConfigurationError, StorageClosedError
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
    local_path,
)
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.engine.environment import write_backup
from memory_storage_lmdb.read.reading import Reader
from memory_storage_lmdb.shared_state import Shared, acquire, release
from memory_storage_lmdb.store.encoding import ID_BYTES
from memory_storage_lmdb.write.encoding import Stager
from memory_storage_lmdb.write.filling import declare_kinds
from memory_storage_lmdb.write.writing import GroupWriter, Writer

__all__ = ["LmdbStorage"]

R = TypeVar("R", bound=Record)

_CAPABILITIES = frozenset(
    {
        Capability.DURABLE,
        Capability.MULTI_PROCESS,
        Capability.CHEAP_POSITION,
        Capability.NAMESPACES,
        Capability.BACKUP,
    }
)


@define(eq=False)
class _Store:
    """What all handles of one ``open`` share."""

    shared: Shared
    codec: Codec
    reader: Reader
    writer: Writer
    pool: ThreadPoolExecutor
    compressing: ThreadPoolExecutor
    closed: bool = False
    closing: asyncio.Task[None] | None = None
    accepted: int = 0
    finished: asyncio.Event = field(factory=asyncio.Event)

    @contextmanager
    def accepting(self) -> Generator[None]:
        """What is done meanwhile is finished before the store is closed."""
        self.accepted += 1
        try:
            yield
        finally:
            self.accepted -= 1
            if not self.accepted:
                self.finished.set()

    async def close(self) -> None:
        """Finish what was accepted and give everything back."""
        if self.shared.environment.forked:
            # Threads and tasks have stayed with the parent.
            return
        while self.accepted:
            self.finished.clear()
            await self.finished.wait()
        await self.writer.aclose()
        await self.reader.aclose()
        self.pool.shutdown()
        self.compressing.shutdown()
        await release(self.shared)


class LmdbStorage:
    """A store in a directory; all of ``Storage``, ``SupportsNamespaces`` and ``SupportsBackup``.

    Made by ``open`` and ``scoped``.
    """

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
        config: LmdbConfig | None = None,
        context: StorageContext | None = None,
    ) -> LmdbStorage:
        """Open the store in a directory, which is made if it is not there.

        Handles of one process on one directory share an LMDB environment.

        Raises:
            ConfigurationError: the location cannot be a store, or is open with other options.
            SchemaVersionError: a newer version wrote it; it was left untouched.
        """
        config, context = config or LmdbConfig(), context or StorageContext()
        if not location:
            raise ConfigurationError("lmdb: needs a directory, such as lmdb:./memory")
        if location.startswith("~"):
            location = str(local_path(location))
        context.check_exists(Path(location) / "data.mdb", location)
        shared = acquire(location, config)
        pool = ThreadPoolExecutor(
            max_workers=min(4, (os.cpu_count() or 1) + 1), thread_name_prefix="memory-core lmdb"
        )
        try:
            store = await _open(shared, pool, config, context)
        except BaseException:
            pool.shutdown(wait=False)
            await asyncio.shield(release(shared))
            raise
        return cls(store, context.namespace, owner=True)

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All there are."""
        return _CAPABILITIES

    @property
    def namespace(self) -> str:
        """The namespace this handle is bound to."""
        return self._namespace

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        """Apply batches, in order; see ``Storage.commit``."""
        store = self._opened()
        if not batches:
            return []
        with store.accepting():
            return await store.writer.commit(self._namespace, batches)

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id; see ``Storage.get``."""
        return await self._opened().reader.get(self._namespace, kind, ids)

    async def query(self, query: Query[R]) -> Page[R]:
        """Fetch one page; see ``Storage.query``."""
        return await self._opened().reader.query(self._namespace, query)

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        return await self._opened().reader.count(self._namespace, query)

    def position(self) -> Position:
        """The newest position that any process has written."""
        return self._opened().reader.position()

    async def changes(self, since: Position, limit: int = 1_000) -> ChangePage:
        """Changes of this namespace after a position; see ``Storage.changes``."""
        return await self._opened().reader.changes(self._namespace, since, limit)

    def scoped(self, namespace: str) -> LmdbStorage:
        """A handle on the same store, bound to another namespace."""
        return LmdbStorage(self._opened(), check_namespace(namespace), owner=False)

    async def stats(self) -> StorageStats:
        """Figures of the store and of what this process has done with it."""
        store = self._opened()
        reader, writer = store.reader, store.writer
        counts, position = await reader.record_counts()
        kinds = dict.fromkeys(store.codec.types.kinds, 0)
        size = store.shared.environment.size()
        return StorageStats(
            backend="lmdb",
            location=store.shared.environment.path,
            store_id=store.shared.catalog.store_id,
            position=position,
            records=counts.get(self._namespace, kinds),
            size_bytes=size["used_bytes"],
            counters={**reader.counters, **writer.counters, **writer.figures()},
            sections={
                "map": size,
                "compression": store.codec.compressor.figures(),
                "upkeep": {"waiting": await reader.waiting(), **writer.upkeep},
            },
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
        """Delete every record of this handle's namespace, in one commit."""
        store = self._opened()
        with store.accepting():
            return await store.writer.wipe(self._namespace)

    async def backup(self, target: Path) -> None:
        """Write a consistent copy of the whole store to a new directory.

        Raises:
            ConfigurationError: the target exists, or cannot be written.
            StorageFullError: there is no room for it.
        """
        store = self._opened()
        loop = asyncio.get_running_loop()
        with store.accepting():
            await loop.run_in_executor(store.pool, write_backup, store.shared.environment, target)

    async def aclose(self) -> None:
        """Finish what was accepted, then close; the handle that was opened closes the store."""
        self._closed = True
        store = self._store
        if not self._owner:
            return
        store.closed = True
        if store.closing is None:
            store.closing = asyncio.create_task(store.close(), name="memory-core lmdb close")
        # Whoever is cancelled while waiting leaves it closing.
        await asyncio.shield(store.closing)

    def _opened(self) -> _Store:
        store = self._store
        if self._closed or store.closed or store.shared.environment.forked:
            raise StorageClosedError(
                "the storage was opened before a fork: open it again in this process"
                if store.shared.environment.forked
                else "the storage is closed"
            )
        return store


async def _open(
    shared: Shared, pool: ThreadPoolExecutor, config: LmdbConfig, context: StorageContext
) -> _Store:
    environment, catalog = shared.environment, shared.catalog
    codec = Codec(context.record_types, context.limits, config.compression)
    reader = Reader(environment, catalog, codec, shared.writer, pool, config.change_feed_limit)

    def prepare() -> None:
        reader.load_dictionaries()
        declare_kinds(
            catalog,
            codec,
            lambda layout, key, data: reader.decode(layout, UUID(bytes=key[-ID_BYTES:]), data),
        )

    await shared.writer.run(lambda: shared.open(prepare))
    groups = GroupWriter(environment, catalog, config.index_lag, config.change_feed_limit)
    compressing = ThreadPoolExecutor(1, thread_name_prefix="memory-core lmdb compressor")
    stager = Stager(codec, catalog, compressing)
    writer = Writer(environment, catalog, codec, shared.writer, pool, stager, groups)
    reader.crowded = writer.enter_soon
    return _Store(shared, codec, reader, writer, pool, compressing)
