"""Statistics of the prepared statements of one sqlite3 connection, as SQLite reports them.

sqlite3 keeps the statements of a connection in an LRU cache of its own, by their text, and reports
nothing about it. But SQLite asks its authorizer whenever it prepares a statement, and never when it
runs one: so each use of a statement shows whether it was prepared for this use. That also counts the
statements that SQLite prepares again by itself after a change of the schema.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable

from memory_storage_turso.engine.driver import PreparedCacheStats

__all__ = ["PreparedCache", "joined"]


class PreparedCache:
    """Observes the statement cache of one connection.

    Args:
        size: how many statements the connection keeps.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, _StatementTimes] = OrderedDict()
        self._preparing = False
        self._hits = self._misses = self._evictions = self._refreshes = 0
        self._saved = 0.0

    def observe(self, connection: sqlite3.Connection) -> None:
        """Learn from this connection when it prepares a statement."""
        connection.set_authorizer(self._authorize)

    def begin_use(self) -> None:
        """A statement is about to be used."""
        self._preparing = False

    def end_use(self, sql: str, seconds: float) -> None:
        """A statement was used, which took so long."""
        times = self._kept.get(sql)
        if not self._preparing:
            self._hits += 1
        else:
            self._misses += 1
            self._refreshes += times is not None
        if times is None:
            times = _StatementTimes()
            self._keep(sql, times)
        else:
            self._kept.move_to_end(sql)
        if self._preparing:
            times.prepared = seconds
        else:
            # Preparing takes what a use with it takes more than the fastest use without.
            times.fastest = min(times.fastest, seconds)
            self._saved += max(0.0, times.prepared - times.fastest)

    def stats(self) -> PreparedCacheStats:
        """Hits, misses and what they cost."""
        return PreparedCacheStats(
            hits=self._hits,
            misses=self._misses,
            evictions=self._evictions,
            refreshes=self._refreshes,
            current_size=len(self._kept),
            prepare_time_saved=self._saved,
        )

    def _keep(self, sql: str, times: _StatementTimes) -> None:
        if not self._size:
            return
        self._kept[sql] = times
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
            self._evictions += 1

    def _authorize(self, *_: object) -> int:
        self._preparing = True
        return sqlite3.SQLITE_OK


class _StatementTimes:
    """Seconds that a statement took: when it was last prepared, and at its fastest without."""

    __slots__ = ("fastest", "prepared")

    def __init__(self) -> None:
        self.prepared = 0.0
        self.fastest = float("inf")


def joined(caches: Iterable[PreparedCache]) -> PreparedCacheStats:
    """The statistics of several connections together."""
    stats = [cache.stats() for cache in caches]
    return PreparedCacheStats(
        hits=sum(each.hits for each in stats),
        misses=sum(each.misses for each in stats),
        evictions=sum(each.evictions for each in stats),
        current_size=sum(each.current_size for each in stats),
        refreshes=sum(each.refreshes for each in stats),
        prepare_time_saved=sum(each.prepare_time_saved for each in stats),
    )
