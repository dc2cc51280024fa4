"""Work that is put off: index entries of records that were put one at a time.

A record has an index entry for every value it is found by, each on a page of its own. A batch shares
those pages among its records; a single put would write them all for itself, and a commit costs what
it writes. So records of small groups are put as *waiting*: they are in the table, under its unique
constraints and references, and queries look them through one by one. They get their entries together:
when writing pauses, when a query meets many of them, or when there are very many.
"""

# ruff: noqa: S608  # names come from the kinds' declarations, quoted; values are parameters

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from memory_core.errors import MemoryCoreError
from memory_storage_turso.engine.driver import Driver, StatementError
from memory_storage_turso.sql.statement import Statement
from memory_storage_turso.sql.tables import KindTable

__all__ = ["IndexUpkeep"]

_LOG = logging.getLogger("memory_storage_turso")
_MANY = 512
"""So many are worth a run when a query meets them: looking them through takes it a millisecond."""
_MOST = 8192
_AT_ONCE = 1024
"""A run is cut into transactions of this many, so that commits can come between."""
_PAUSE = 0.25


class IndexUpkeep:
    """Indexes waiting records in time.

    Args:
        driver: the database.
        tables: the kinds whose records may wait.
    """

    def __init__(self, driver: Driver, tables: Iterable[KindTable]) -> None:
        self._driver = driver
        self._tables = list(tables)
        self._waiting = 0
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.runs = self.indexed = 0

    async def start(self) -> None:
        """See what an earlier process has left."""
        counts = " + ".join(
            f"(SELECT count(*) FROM {table.name} INDEXED BY {table.waiting} WHERE indexed = 0)"
            for table in self._tables
        )
        [result] = await self._driver.read([Statement(f"SELECT {counts}")])
        left = result.rows[0][0]
        if isinstance(left, int) and left:
            self.added(left)

    def added(self, count: int) -> None:
        """So many records were put as waiting."""
        self._waiting += count
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        if self._waiting >= _MOST:
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_later(_PAUSE, self._paused)

    def met(self) -> None:
        """A query is about to look them through."""
        if self._waiting >= _MANY:
            self._begin()

    async def run_now(self) -> None:
        """Index what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            await asyncio.shield(self._task)
        if self._waiting:
            await self._run()

    async def aclose(self) -> None:
        """Index what still waits, for whoever opens the store next."""
        self._closed = True
        await self.run_now()

    def figures(self) -> dict[str, int]:
        """Runs, records they indexed, records that wait."""
        return {"runs": self.runs, "indexed_later": self.indexed, "waiting": self._waiting}

    def _paused(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        left = self._last + _PAUSE - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._paused)
        else:
            self._begin()

    def _begin(self) -> None:
        if self._task is None and not self._closed:
            self._task = asyncio.create_task(self._run(), name="memory-core index upkeep")
            self._task.add_done_callback(self._done)

    def _done(self, _: object) -> None:
        self._task = None

    async def _run(self) -> None:
        waiting, self._waiting = self._waiting, 0
        try:
            for table in self._tables:
                while await self._indexed(table) == _AT_ONCE:
                    pass
        except (MemoryCoreError, StatementError) as error:
            # Queries look waiting records through as well; it is tried again after the next put.
            _LOG.warning("records still wait to be indexed: %s", error)
            self._waiting += waiting
            return
        self.runs += 1

    async def _indexed(self, table: KindTable) -> int:
        """Index some records of a kind; how many."""
        some = (
            f"UPDATE {table.name} SET indexed = 1 WHERE rid IN (SELECT rid FROM {table.name} "
            f"INDEXED BY {table.waiting} WHERE indexed = 0 LIMIT {_AT_ONCE})"
        )
        outcome = await self._driver.write([[Statement(some)]])
        result = outcome.results[0]
        if not isinstance(result, list):
            raise result
        count = result[0].rows_affected
        self.indexed += count
        return count
