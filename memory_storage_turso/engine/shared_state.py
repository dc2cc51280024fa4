"""What all handles of one open store share."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import UUID

from attrs import define

from memory_core.coalesce import join
from memory_core.codec import Codec
from memory_core.codec.compression import CompressionConfig
from memory_core.errors import StorageError
from memory_core.storage import StorageContext
from memory_storage_turso.engine.dictionaries import Dictionaries
from memory_storage_turso.engine.driver import Driver, StatementError, StoreIdentity
from memory_storage_turso.engine.encoding import CodecThread
from memory_storage_turso.engine.namespaces import Namespaces
from memory_storage_turso.engine.opening import open_kinds, open_system
from memory_storage_turso.engine.pending import PendingEntries
from memory_storage_turso.engine.reading import Reader
from memory_storage_turso.engine.writing import Writer
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.system import POSITION, STORE_ID
from memory_storage_turso.sql.tables import Tables

__all__ = ["SharedState"]


@define(eq=False, kw_only=True)
class SharedState:
    """An open store. Make it with ``open``."""

    driver: Driver
    store_id: UUID
    tables: Tables
    codec: Codec
    thread: CodecThread
    dictionaries: Dictionaries
    pending: PendingEntries
    writer: Writer
    reader: Reader
    namespaces: Namespaces
    feed_limit: int
    closing: asyncio.Task[None] | None = None

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
            tables = Tables(context.record_types)
            codec = Codec(context.record_types, context.limits, compression)
            thread = CodecThread(codec)
            dictionaries = Dictionaries(driver, codec.compressor, thread)
            pending = PendingEntries(driver, tables)
            store_id = await open_system(driver)
            await dictionaries.load()
            foreign = await open_kinds(driver, tables, codec)
            driver.use_position(POSITION, StoreIdentity(Statement(STORE_ID), store_id.bytes))
            await pending.load()
        except StatementError as error:
            await driver.aclose()
            raise StorageError(f"{driver.where}: {error}") from error
        except BaseException:
            await driver.aclose()
            raise
        return cls(
            driver=driver,
            store_id=store_id,
            tables=tables,
            codec=codec,
            thread=thread,
            dictionaries=dictionaries,
            pending=pending,
            writer=Writer(driver, tables, thread, dictionaries, pending, feed_limit=feed_limit),
            reader=Reader(driver, tables, codec, dictionaries, pending),
            namespaces=Namespaces(driver, tables, foreign),
            feed_limit=feed_limit,
        )

    async def aclose(self) -> None:
        """Finish what was accepted, then release everything. Idempotent."""
        if self.closing is None:
            self.closing = asyncio.create_task(self._close(), name="memory-core close")
        await join(self.closing)

    async def _close(self) -> None:
        self.driver.drain()
        # An error in one part does not keep the others open.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.driver.aclose)
            stack.callback(self.thread.close)
            stack.push_async_callback(self.dictionaries.aclose)
            stack.push_async_callback(self.reader.aclose)
            stack.push_async_callback(self.pending.aclose)
            await self.writer.aclose()
