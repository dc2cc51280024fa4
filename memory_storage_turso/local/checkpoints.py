"""Copies the write-ahead log into the database without blocking the writer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from memory_core.errors import MemoryCoreError
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.local.connections import ThreadedConnection

__all__ = ["Checkpoints"]

_LOG = logging.getLogger("memory_storage_turso")
_DUE_PAGES = 4000
_PAGES_OF_COMMIT = 5
_ROWS_OF_PAGE = 2


class Checkpoints:
    """Copies the log on a reader's thread, before it is so long that SQLite does so within a commit.

    A page is copied once however often it was written since the last time: the ends of tables and indexes,
    with each commit. So a longer log costs less. Nothing tells how long it is, so that is estimated.

    Args:
        readers: one of them is used.
    """

    def __init__(self, readers: Sequence[ThreadedConnection]) -> None:
        self._readers = readers
        self._task: asyncio.Task[None] | None = None
        self._pages = self._rows = 0
        self.done = 0

    def committed(self, rows: int) -> None:
        """A transaction was committed; runs on the event loop.

        Args:
            rows: how many rows the connection has written since it was opened.
        """
        self._pages += _PAGES_OF_COMMIT + (rows - self._rows) // _ROWS_OF_PAGE
        self._rows = rows
        if self._pages >= _DUE_PAGES and self._task is None:
            self._pages = 0
            self._task = asyncio.create_task(self._run(), name="memory-core checkpoint")

    async def aclose(self) -> None:
        """Wait for the checkpoint in progress."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        reader = min(self._readers, key=lambda connection: connection.waiting)
        reader.waiting += 1
        try:
            await reader.run(reader.session.execute, "PRAGMA wal_checkpoint(PASSIVE)")
            self.done += 1
        except (MemoryCoreError, StatementError) as error:
            # The log only grows; the next commit leads to another try.
            _LOG.warning("no checkpoint: %s", error)
        finally:
            reader.waiting -= 1
            self._task = None
