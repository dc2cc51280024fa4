"""Copies the write-ahead log into the database without blocking the writer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from memory_core.errors import MemoryCoreError
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.local.connections import ThreadedConnection
from memory_storage_turso.local.session import Session

__all__ = ["Checkpoints"]

_LOG = logging.getLogger("memory_storage_turso")
_LARGE = 128
_LOG_PAGES = 1000
_MOST_LOG_PAGES = 8000


class Checkpoints:
    """Copies the log of large transactions on a reader's thread.

    SQLite copies the log within the commit that fills it. A large transaction fills it every time, so
    that each commit would take twice as long: its log is copied while the next transaction is encoded.
    After small transactions SQLite copies it, as the disk would have to do both at the same time.

    Args:
        readers: one of them is used, if there is another to answer meanwhile.
    """

    def __init__(self, readers: Sequence[ThreadedConnection]) -> None:
        self._readers = readers
        self._task: asyncio.Task[None] | None = None
        self._most = _LOG_PAGES
        self._large = False
        self.done = 0

    def before_commit(self, session: Session, statements: int) -> None:
        """A transaction is about to be committed; runs on the writer's thread."""
        self._large = statements >= _LARGE and len(self._readers) > 1
        most = _MOST_LOG_PAGES if self._large else _LOG_PAGES
        if most != self._most:
            session.execute(f"PRAGMA wal_autocheckpoint = {most}")
            self._most = most

    def committed(self) -> None:
        """The transaction was committed; runs on the event loop."""
        if self._large and self._task is None:
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
