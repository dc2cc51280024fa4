"""State that handles share: of one ``open``, and of all opens of a store in this process.

LMDB allows one environment a path and process. So all opens of one directory in this process share a
``ProcessStore``, which the last one closes; all handles of one ``open`` share a ``SharedState``.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from attrs import define, field

from memory_core.codec import Codec
from memory_core.errors import ConfigurationError
from memory_core.storage import StorageContext
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.engine.environment import Environment
from memory_storage_lmdb.engine.thread import JobThread
from memory_storage_lmdb.read.reading import Reader
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.write.encoding import Encoder
from memory_storage_lmdb.write.filling import declare_kinds
from memory_storage_lmdb.write.writing import GroupWriter, Writer

__all__ = ["ProcessStore", "SharedState", "acquire", "open_state", "release"]

# Options that all opens of an environment must agree on.
_OF_ENVIRONMENT = ("durability", "max_map_size", "max_dbs")


@define(eq=False)
class ProcessStore:
    """An environment with its catalog and its writer thread, and the number of their users."""

    environment: Environment
    catalog: Catalog
    thread: JobThread
    users: int = 0
    opened: bool = False

    def open(self) -> None:
        """Open the environment, unless it is open; on the writer thread."""
        if self.opened:
            return
        self.environment.open()
        try:
            self.catalog.open()
        except BaseException:
            self.environment.close()
            raise
        self.opened = True


@define(eq=False)
class _Registry:
    """The stores that this process has open, by real path."""

    stores: dict[str, ProcessStore] = field(factory=dict[str, ProcessStore])
    lock: threading.Lock = field(factory=threading.Lock)


_registry = _Registry()


def acquire(location: str, config: LmdbConfig) -> ProcessStore:
    """Acquire the store of a path, which may not be open yet; the caller releases it.

    Raises:
        ConfigurationError: this process has it open with other options.
    """
    path = os.path.realpath(location)
    with _registry.lock:
        found = _registry.stores.get(path)
        if found is None:
            environment = Environment(path, config)
            thread = JobThread(f"memory-core lmdb writer {Path(path).name}")
            found = _registry.stores[path] = ProcessStore(environment, Catalog(environment), thread)
        for name in _OF_ENVIRONMENT:
            known, given = getattr(found.environment.config, name), getattr(config, name)
            if known != given:
                raise ConfigurationError(
                    f"{path}: open in this process with {name}={known}, not {given}"
                )
        found.users += 1
        return found


async def release(store: ProcessStore) -> None:
    """Release a store; the last user closes it."""
    if store.environment.forked:
        # After a fork there is no thread, and every resource belongs to the parent.
        return
    if await store.thread.run(_close_unused, store):
        await store.thread.end()


def _close_unused(store: ProcessStore) -> bool:
    # Under the lock, so that nobody opens it again before it is closed.
    with _registry.lock:
        store.users -= 1
        if store.users:
            return False
        _registry.stores.pop(store.environment.path, None)
        store.environment.close()
        return True


@define(eq=False)
class SharedState:
    """The state that all handles of one ``open`` share."""

    store: ProcessStore
    codec: Codec
    reader: Reader
    writer: Writer
    pool: ThreadPoolExecutor
    compressing: ThreadPoolExecutor
    closed: bool = False
    closing: asyncio.Task[None] | None = None
    in_flight: int = 0
    finished: asyncio.Event = field(factory=asyncio.Event)

    @property
    def environment(self) -> Environment:
        """The environment."""
        return self.store.environment

    @contextmanager
    def accepting(self) -> Generator[None]:
        """Keep the store open until the block has ended."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self.finished.set()

    async def close(self) -> None:
        """Finish what was accepted and release everything."""
        if self.environment.forked:
            # Threads and tasks belong to the parent.
            return
        while self.in_flight:
            self.finished.clear()
            await self.finished.wait()
        await self.writer.aclose()
        await self.reader.aclose()
        self.pool.shutdown()
        self.compressing.shutdown()
        await release(self.store)


async def open_state(location: str, config: LmdbConfig, context: StorageContext) -> SharedState:
    """Open a store, which is created if it is missing.

    Raises:
        ConfigurationError: the location cannot be a store, or is open with other options.
        SchemaVersionError: a newer version wrote it; it was left untouched.
    """
    codec = Codec(context.record_types, context.limits, config.compression)
    state = _state(acquire(location, config), codec, config)
    try:
        await state.store.thread.run(_prepare, state)
    except BaseException:
        await asyncio.shield(state.close())
        raise
    return state


def _state(store: ProcessStore, codec: Codec, config: LmdbConfig) -> SharedState:
    environment, catalog, thread = store.environment, store.catalog, store.thread
    pool = ThreadPoolExecutor(
        max_workers=min(4, (os.cpu_count() or 1) + 1), thread_name_prefix="memory-core lmdb"
    )
    compressing = ThreadPoolExecutor(1, thread_name_prefix="memory-core lmdb compressor")
    encoder = Encoder(codec, catalog, compressing)
    groups = GroupWriter(environment, catalog, encoder, config.index_lag, config.change_feed_limit)
    writer = Writer(groups, thread, pool)
    reader = Reader(
        environment, catalog, codec, thread, pool, config.change_feed_limit, writer.index_soon
    )
    return SharedState(store, codec, reader, writer, pool, compressing)


def _prepare(state: SharedState) -> None:
    """Open the store, unless it is open, and prepare it for the codec's kinds; on the writer thread."""
    state.store.open()
    state.reader.load_dictionaries()
    declare_kinds(state.store.catalog, state.codec, state.reader.decode)


def _before_fork() -> None:
    # While the process forks, no environment is opened or closed, and none has a transaction.
    _registry.lock.acquire()
    for store in _registry.stores.values():
        store.environment.before_fork()


def _after_fork_in_parent() -> None:
    for store in _registry.stores.values():
        store.environment.after_fork(in_child=False)
    _registry.lock.release()


def _after_fork_in_child() -> None:
    """In the child: abandon the map, locks and thread of the parent."""
    for store in _registry.stores.values():
        store.environment.after_fork(in_child=True)
    _registry.stores = {}
    _registry.lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
