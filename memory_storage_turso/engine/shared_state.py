"""What all handles of one open store share."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack, ExitStack
from typing import Any, cast
from uuid import UUID

from attrs import asdict

from memory_core import backend
from memory_core.codec import Codec
from memory_core.codec.compression import CompressionConfig
from memory_core.storage import StorageContext
from memory_storage_turso.engine.dictionaries import Dictionaries
from memory_storage_turso.engine.driver import Driver, StoreIdentity
from memory_storage_turso.engine.encoding import CodecThread
from memory_storage_turso.engine.namespaces import Namespaces
from memory_storage_turso.engine.opening import OpenedKinds, open_kinds, open_system
from memory_storage_turso.engine.pending import PendingEntries
from memory_storage_turso.engine.reading import Reader
from memory_storage_turso.engine.rejections import TranslatedErrors
from memory_storage_turso.engine.writing import Writer
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.system import POSITION, STORE_ID

__all__ = ["SharedState"]


class SharedState(backend.SharedState):
    """An open store. Make it with ``open``.

    Attributes:
        driver: the database.
        store_id: the store's id.
        kinds: how the store was prepared for its kinds.
        tables: the kinds.
        codec: how records are encoded.
        thread: encodes and decodes beside the event loop.
        reader: the reads.
        writer: the writes.
        namespaces: the namespaces and their numbers.
        feed_limit: how many changes the change feed keeps.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        store_id: UUID,
        kinds: OpenedKinds,
        thread: CodecThread,
        dictionaries: Dictionaries,
        feed_limit: int,
    ) -> None:
        super().__init__()
        self.driver = driver
        self.store_id = store_id
        self.kinds = kinds
        self.tables = tables = kinds.tables
        self.codec = thread.codec
        self.thread = thread
        self.dictionaries = dictionaries
        self.pending = pending = PendingEntries(driver, tables)
        self.reader = Reader(driver, tables, self.codec, dictionaries, pending)
        self.namespaces = namespaces = Namespaces(driver, tables, feed_limit=feed_limit)
        self.writer = Writer(
            driver,
            tables,
            thread,
            dictionaries,
            pending,
            namespaces=namespaces,
            feed_limit=feed_limit,
        )
        self.feed_limit = feed_limit
        self.metrics.add(self._sections)

    def _sections(self) -> dict[str, Mapping[str, Any]]:
        """Statistics by subject since the store was opened."""
        sections: dict[str, Mapping[str, Any]] = {
            "counters": {**self.writer.stats(), **self.reader.stats()},
            "groups": self.writer.distributions(),
            "compression": self.codec.compressor.stats(),
            "indexing": self.pending.stats(),
            "opening": {"filled": self.kinds.filled, "unreadable": self.kinds.unreadable},
        }
        prepared = self.driver.prepared_stats()
        if prepared is not None:
            hit_rate = round(prepared.hit_rate(), 4)
            sections["statements"] = {**asdict(prepared), "hit_rate": hit_rate}
        connections: dict[str, Any] = {}
        for name, value in self.driver.stats().items():
            if isinstance(value, Mapping):
                sections[name] = cast("Mapping[str, Any]", value)
            else:
                connections[name] = value
        if connections:
            sections["connections"] = connections
        return sections

    @classmethod
    async def open(
        cls,
        driver: Driver,
        context: StorageContext,
        *,
        compression: CompressionConfig,
        feed_limit: int,
    ) -> SharedState:
        """Open the store in a database, and create what is missing; closes the driver on an error.

        Args:
            driver: the database.
            context: kinds and limits.
            compression: how bodies are compressed.
            feed_limit: how many changes the change feed keeps.

        Raises:
            StorageError: the database holds no store of this version, or cannot be used.
        """
        try:
            with TranslatedErrors(driver.where, "opening"):
                codec = Codec(context.record_types, context.limits, compression)
                thread = CodecThread(codec)
                dictionaries = Dictionaries(driver, codec.compressor, thread)
                store_id = await open_system(driver, context)
                driver.use_position(POSITION, StoreIdentity(Statement(STORE_ID), store_id.bytes))
                await dictionaries.load()
                kinds = await open_kinds(
                    driver, context.record_types, codec, read_only=context.read_only
                )
                state = cls(
                    driver,
                    store_id=store_id,
                    kinds=kinds,
                    thread=thread,
                    dictionaries=dictionaries,
                    feed_limit=feed_limit,
                )
                state.read_only = context.read_only
                if not context.read_only:
                    await state.pending.load()
                    await state.namespaces.remove_wiped()
                driver.when_set_back(state.renew)
        except BaseException:
            await driver.aclose()
            raise
        return state

    async def renew(self) -> None:
        """Look again at a store that was set back: learn its namespaces, and restore what it lacks."""
        self.namespaces.forget()
        with TranslatedErrors(self.driver.where, "looking again"):
            self.kinds = await open_kinds(
                self.driver, self.tables.types, self.codec, read_only=self.read_only
            )
            self.tables.adopt(self.kinds.tables)
            if not self.read_only:
                await self.dictionaries.restore()
                await self.namespaces.remove_wiped()

    async def close(self) -> None:
        """Finish what was accepted, then release everything."""
        self.drain()
        # An error in one part does not keep the others open.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.driver.aclose)
            stack.callback(self.thread.close)
            stack.push_async_callback(self.dictionaries.aclose)
            stack.push_async_callback(self.reader.aclose)
            stack.push_async_callback(self.pending.aclose)
            stack.push_async_callback(self.namespaces.aclose)
            await self.writer.aclose()

    def abandon(self) -> None:
        """Release everything; what the driver's threads have begun is finished."""
        with ExitStack() as stack:
            stack.callback(self.thread.close)
            self.driver.abandon()

    def drain(self) -> None:
        """Closing begins; see `Driver.drain`.

        Raises:
            WrongEventLoopError: the owner's loop still runs, and is not this one.
        """
        if not self.forked and not self.owner_has_ended():
            self.driver.drain()
