"""Pending index entries: entries of records that were put one at a time, written later.

A record has an index entry for every value it is found by, each on a page of its own. A batch shares
those pages among its records; a single put would write them all for itself, and a commit costs what
it writes. So records of small groups are put without their entries: they are in the table, under its
unique constraints and references, and queries look through them one by one. Their entries are written
together: when writing pauses, when a query meets many of them, or when there are very many.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import cast

from memory_core.coalesce import join
from memory_core.errors import MemoryCoreError
from memory_storage_turso.engine.driver import Driver, StatementError
from memory_storage_turso.engine.opening import changed_since
from memory_storage_turso.sql.tables import KindTable, Tables

__all__ = ["PendingEntries"]

_LOG = logging.getLogger("memory_storage_turso")
_MANY = 512
"""This many pending records are worth a run when a query meets them: checking them takes it a millisecond."""
_MOST = 8192
_AT_ONCE = 1024
"""A run is cut into transactions of this many records, so that commits can come between them."""
_PAUSE = 0.25


class PendingEntries:
    """Writes pending index entries in time.

    Args:
        driver: the database.
        tables: the kinds whose records may have pending entries.
    """

    def __init__(self, driver: Driver, tables: Tables) -> None:
        self._driver = driver
        self._tables = tables
        self._records = 0
        self._kinds: set[str] = set()
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.runs = self.indexed = 0

    async def load(self) -> None:
        """Count what an earlier process has left."""
        results = await self._driver.read([table.count_pending() for table in self._tables])
        for table, result in zip(self._tables, results, strict=True):
            left = cast("int", result.rows[0][0])
            if left:
                self.add([table.kind] * left)

    def add(self, kinds: Sequence[str]) -> None:
        """Count records that were put without their index entries; the kind of each."""
        if not kinds:
            return
        self._records += len(kinds)
        self._kinds.update(kinds)
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        if self._records >= _MOST:
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_later(_PAUSE, self._on_pause)

    def on_query(self) -> None:
        """A query is about to look through the records with pending entries."""
        if self._records >= _MANY:
            self._begin()

    async def index_pending(self) -> None:
        """Write the pending entries now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            await join(self._task)
        if self._records:
            await self._run()

    async def aclose(self) -> None:
        """Write what is still pending, and no more."""
        self._closed = True
        await self.index_pending()

    def stats(self) -> dict[str, int]:
        """Runs, records that they indexed, records with pending entries."""
        return {"runs": self.runs, "indexed_later": self.indexed, "waiting": self._records}

    def _on_pause(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        left = self._last + _PAUSE - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._on_pause)
        else:
            self._begin()

    def _begin(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name="memory-core indexing")
            self._task.add_done_callback(self._done)

    def _done(self, _: object) -> None:
        self._task = None

    async def _run(self) -> None:
        records, self._records = self._records, 0
        kinds, self._kinds = self._kinds, set()
        try:
            for kind in kinds:
                while await self._index(self._tables[kind]) == _AT_ONCE:
                    pass
        except (MemoryCoreError, StatementError) as error:
            if isinstance(error, StatementError) and await changed_since(
                self._driver, self._tables, error
            ):
                # The process that has declared a kind otherwise has written its entries; those of other
                # kinds are written by the next process that opens the store.
                return
            # Queries look through these records as well; the next put leads to another run.
            _LOG.warning("index entries stay pending: %s", error)
            self._records += records
            self._kinds |= kinds
            return
        self.runs += 1

    async def _index(self, table: KindTable) -> int:
        """Index some records of a kind; how many."""
        outcome = await self._driver.write([[table.index_pending(_AT_ONCE)]])
        result = outcome.results[0]
        if not isinstance(result, list):
            raise result
        count = result[0].rows_affected
        self.indexed += count
        return count
