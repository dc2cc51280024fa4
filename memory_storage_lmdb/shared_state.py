"""State that handles share: of one ``open``, and of all opens of a store in this process.

LMDB allows one environment a path and process. So all opens of one directory in this process share a
``ProcessStore``, which the last one closes; all handles of one ``open`` share a ``SharedState``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from memory_core import backend
from memory_core.codec import Codec
from memory_core.errors import ConfigurationError
from memory_core.storage import StorageContext
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.engine.environment import Environment
from memory_storage_lmdb.engine.thread import JobThread
from memory_storage_lmdb.read.reading import Reader
from memory_storage_lmdb.store.catalog import Catalog
from memory_storage_lmdb.write.encoding import Encoder
from memory_storage_lmdb.write.filling import Filled, check_kinds, declare_kinds
from memory_storage_lmdb.write.writing import GroupWriter, Writer

__all__ = ["ProcessStore", "SharedState", "acquire", "open_state", "release"]

_log = logging.getLogger(__name__)

# Seconds that a failed or cancelled opening takes for closing, if another process has locked the store.
_SHORT = 0.1
# Options that all opens of an environment must agree on.
_OF_ENVIRONMENT = ("durability", "max_map_size", "max_dbs", "busy_timeout")


@define(eq=False)
class ProcessStore:
    """An environment with its catalog and its writer thread, and the number of their users."""

    environment: Environment
    catalog: Catalog
    thread: JobThread
    users: int = 0
    opened: bool = False

    def open(self, context: StorageContext) -> None:
        """Open the environment, unless it is open as the context says; on the writer thread."""
        if self.opened and (context.read_only or not self.catalog.read_only):
            return
        if not self.opened:
            self.environment.open(context)
        try:
            if context.read_only:
                self.catalog.open_to_read()
            else:
                self.catalog.open()
        except BaseException:
            if not self.opened:
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
            name = f"memory-core lmdb writer {Path(path).name}"
            thread = JobThread(name, path, config.busy_timeout)
            environment = Environment(path, config, thread)
            found = _registry.stores[path] = ProcessStore(environment, Catalog(environment), thread)
        for name in _OF_ENVIRONMENT:
            known, given = getattr(found.environment.config, name), getattr(config, name)
            if known != given:
                raise ConfigurationError(
                    f"{path}: open in this process with {name}={known}, not {given}"
                )
        found.users += 1
        return found


async def release(store: ProcessStore, patience: float | None = None) -> None:
    """Release a store; the last user closes it. While another process keeps the writer thread waiting that is
    not waited for longer than ``busy_timeout``, or ``patience``; the thread closes it when it can.
    """
    closed = await store.thread.finish(_close_unused, store, patience=patience)
    _end(store, closed=closed)


def release_now(store: ProcessStore) -> None:
    """Release a store without an event loop; the last user closes it, as in ``release``."""
    _end(store, closed=store.thread.run_and_wait(_close_unused, store))


def _end(store: ProcessStore, *, closed: bool | None) -> None:
    if closed:
        store.thread.end_now()
    elif closed is None:
        _log.warning("%s: closed as soon as another process unlocks it", store.environment.path)


def _close_unused(store: ProcessStore) -> bool:
    # Under the lock, so that nobody opens it again before it is closed.
    with _registry.lock:
        store.users -= 1
        if store.users:
            return False
        _registry.stores.pop(store.environment.path, None)
        store.environment.close()
        store.thread.end_soon()
        return True


class SharedState(backend.SharedState):
    """The state that all handles of one ``open`` share."""

    def __init__(
        self,
        store: ProcessStore,
        codec: Codec,
        *,
        reader: Reader,
        writer: Writer,
        pool: ThreadPoolExecutor,
        compressing: ThreadPoolExecutor,
        read_only: bool,
    ) -> None:
        super().__init__(read_only=read_only)
        self.store = store
        self.codec = codec
        self.reader = reader
        self.writer = writer
        self.filled = Filled()
        self._pool = pool
        self._compressing = compressing
        self._in_flight = 0
        self._finished = asyncio.Event()
        self._patience: float | None = None
        self.metrics.add(self._sections)

    def _sections(self) -> dict[str, Mapping[str, Any]]:
        """Statistics by subject since the store was opened."""
        writer = self.writer
        return {
            "counters": {**self.reader.counters, **writer.stats()},
            "groups": writer.distributions(),
            "compression": self.codec.compressor.stats(),
            "opening": {"filled": self.filled.records, "unreadable": self.filled.unreadable},
            "upkeep": {"waiting": writer.backlog, **writer.upkeep},
        }

    @property
    def environment(self) -> Environment:
        """The environment."""
        return self.store.environment

    @contextmanager
    def accepting(self) -> Generator[None]:
        """Keep the store open until the block has ended."""
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._finished.set()

    async def close(self) -> None:
        """Finish what was accepted and release everything."""
        while self._in_flight:
            self._finished.clear()
            await self._finished.wait()
        await self.writer.aclose()
        await self.reader.aclose()
        self._shut_down()
        await release(self.store, self._patience)

    def abandon(self) -> None:
        """Stop the reads on threads, finish the transaction of the writer thread, and release everything."""
        self.reader.stop()
        self._shut_down()
        release_now(self.store)

    async def give_up(self) -> None:
        """Close a store that could not be opened; the caller has waited long enough."""
        self._patience = _SHORT
        await self.close()

    async def backup(self, target: Path) -> None:
        """Copy the store on a thread."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._pool, self.environment.backup, target)

    def _shut_down(self) -> None:
        self._pool.shutdown()
        self._compressing.shutdown()


async def open_state(location: str, config: LmdbConfig, context: StorageContext) -> SharedState:
    """Open a store, which is created if it is missing.

    Raises:
        ConfigurationError: the location cannot be a store, or is open with other options.
        SchemaVersionError: a newer version wrote it; it was left untouched.
    """
    codec = Codec(context.record_types, context.limits, config.compression)
    state = _state(acquire(location, config), codec, config, read_only=context.read_only)
    try:
        await state.store.thread.run(_prepare, state, context)
    except BaseException:
        await asyncio.shield(state.give_up())
        raise
    wiped = state.store.catalog.wiped.values()
    if not context.read_only and not all(each.emptied for each in wiped):
        state.writer.empty_soon()
    return state


def _state(
    store: ProcessStore, codec: Codec, config: LmdbConfig, *, read_only: bool
) -> SharedState:
    environment, catalog, thread = store.environment, store.catalog, store.thread
    pool = ThreadPoolExecutor(
        max_workers=min(4, (os.cpu_count() or 1) + 1), thread_name_prefix="memory-core lmdb"
    )
    compressing = ThreadPoolExecutor(1, thread_name_prefix="memory-core lmdb compressor")
    encoder = Encoder(codec, catalog, compressing)
    groups = GroupWriter(environment, catalog, encoder, config.index_lag, config.change_feed_limit)
    writer = Writer(groups, thread, pool)
    reader = Reader(
        environment,
        catalog,
        codec,
        thread,
        pool,
        config.change_feed_limit,
        index_soon=None if read_only else writer.index_soon,
    )
    return SharedState(
        store,
        codec,
        reader=reader,
        writer=writer,
        pool=pool,
        compressing=compressing,
        read_only=read_only,
    )


def _prepare(state: SharedState, context: StorageContext) -> None:
    """Open the store, unless it is open, and prepare it for the codec's kinds; on the writer thread."""
    state.store.open(context)
    state.reader.load_dictionaries()
    if context.read_only:
        check_kinds(state.store.catalog, state.codec)
    else:
        state.filled = declare_kinds(state.store.catalog, state.codec, state.reader.decode)


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
