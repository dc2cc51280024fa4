"""Compression dictionaries: trained on the store's records, kept in it, shared by its processes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from typing import cast

from memory_core.codec.compression import Compressor
from memory_core.errors import MemoryCoreError
from memory_storage_turso.engine.driver import Driver, StatementError
from memory_storage_turso.engine.encoding import CodecThread
from memory_storage_turso.sql.statement import Row, Statement
from memory_storage_turso.sql.system import ADD_DICTIONARY, DICTIONARIES

__all__ = ["Dictionaries"]

_LOG = logging.getLogger("memory_storage_turso")


class Dictionaries:
    """Loads and trains the dictionaries of a store.

    Args:
        driver: the database.
        compressor: what uses them.
        thread: to train on.
    """

    def __init__(self, driver: Driver, compressor: Compressor, thread: CodecThread) -> None:
        self._driver = driver
        self._thread = thread
        self._compressor = compressor
        self._rows: dict[int, Row] = {}
        self._training: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    @property
    def known(self) -> Collection[int]:
        """The ids of those with which bodies may be compressed."""
        return self._rows.keys()

    async def load(self) -> set[str]:
        """Load the dictionaries that the store has and this process has not.

        Returns:
            The kinds that got one.
        """
        [result] = await self._driver.read([Statement(DICTIONARIES)], primary=True)
        return self.add(result.rows)

    async def has(self, dictionary: int) -> bool:
        """Whether the store has a dictionary that a body needs; loads it if another process trained it.

        A reader asks this for each body that it cannot decode, and then reads again: meanwhile the record
        may have been replaced by one that needs a still newer dictionary.
        """
        if dictionary not in self._rows:
            await self.load()
        return dictionary in self._rows

    def add(self, rows: Iterable[Row]) -> set[str]:
        """Add dictionaries from the rows of `DICTIONARIES`, on any thread.

        Returns:
            The kinds that got one.
        """
        fresh: set[str] = set()
        for row in rows:
            number, kind, dictionary = row
            if number not in self._rows:
                self._rows[cast("int", number)] = row
                self._compressor.add(str(kind), cast("bytes", dictionary))
                fresh.add(str(kind))
        return fresh

    async def restore(self) -> None:
        """Store those again that a store lacks since it was set back: bodies are compressed with them."""
        if self._rows:
            made = time.time_ns() // 1_000_000
            rows = [(number, kind, made, data) for number, kind, data in self._rows.values()]
            statements = [Statement(ADD_DICTIONARY, row) for row in rows]
            [result] = (await self._driver.write([statements])).results
            if not isinstance(result, list):
                raise result
        await self.load()

    def train(self) -> None:
        """Begin to train dictionaries for the kinds of which enough records were seen."""
        if self._closed:
            return
        for kind in self._compressor.trainable():
            if kind not in self._training:
                task = asyncio.create_task(self._train(kind), name="memory-core dictionary")
                self._training[kind] = task

    async def settled(self) -> None:
        """Wait for the dictionaries in training, so that the next records are compressed with them."""
        running = [task for task in self._training.values() if not task.done()]
        if running:
            await asyncio.wait(running)

    async def aclose(self) -> None:
        """Wait for the dictionaries in training, and train no more."""
        self._closed = True
        await self.settled()

    async def _train(self, kind: str) -> None:
        try:
            if kind in await self.load():
                return
            dictionary = await self._thread.run(lambda: self._compressor.train(kind))
            if dictionary is None:
                return
            # Durable first: what is compressed with it must be readable whatever happens next.
            number = int.from_bytes(dictionary[4:8], "little")
            args = (number, kind, time.time_ns() // 1_000_000, dictionary)
            outcome = await self._driver.write([[Statement(ADD_DICTIONARY, args)]])
            if isinstance(outcome.results[0], list):
                # What the store has: another process may have been first with this id.
                await self.load()
        except (MemoryCoreError, StatementError) as error:
            # Records are stored without one as well; the next process to open the store tries again.
            _LOG.warning("no compression dictionary for %s: %s", kind, error)
