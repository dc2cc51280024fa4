"""What the cache of prepared statements of one sqlite3 connection does, as SQLite tells it.

sqlite3 keeps the statements of a connection in an LRU cache of its own, by their text, and says
nothing about it. But SQLite asks its authorizer whenever it prepares a statement, and never when it
runs one: so each use of a statement shows whether it was prepared for it. That counts hits and misses
as they are, and also what SQLite prepares anew by itself after a change of the schema.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable
from time import perf_counter
from types import TracebackType

from memory_storage_turso.engine.driver import PreparedCacheStats

__all__ = ["PreparedCache", "joined"]


class PreparedCache:
    """Watches the statement cache of one connection.

    Args:
        size: how many statements the connection keeps.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._preparing = False
        self._stats = {"hits": 0, "misses": 0, "evictions": 0, "refreshes": 0}
        self._saved = 0.0

    def watch(self, connection: sqlite3.Connection) -> None:
        """Be told what this connection prepares."""
        connection.set_authorizer(self._authorize)

    def use(self, sql: str) -> _Use:
        """A statement is about to be used: enter the result around it."""
        self._preparing = False
        return _Use(self, sql)

    def used(self, sql: str, seconds: float) -> None:
        """A statement was used."""
        kept = self._kept.get(sql)
        if not self._preparing:
            self._stats["hits"] += 1
        else:
            self._stats["misses"] += 1
            self._stats["refreshes"] += kept is not None
        if kept is None:
            kept = _Kept()
            self._keep(sql, kept)
        else:
            self._kept.move_to_end(sql)
        self._saved += kept.saved(seconds, prepared=self._preparing)

    def stats(self) -> PreparedCacheStats:
        """The figures."""
        return PreparedCacheStats(
            **self._stats, current_size=len(self._kept), prepare_time_saved=self._saved
        )

    def _keep(self, sql: str, kept: _Kept) -> None:
        if not self._size:
            return
        self._kept[sql] = kept
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
            self._stats["evictions"] += 1

    def _authorize(self, *_: object) -> int:
        self._preparing = True
        return sqlite3.SQLITE_OK


class _Kept:
    """How long a statement took: with being prepared, and without at its fastest."""

    __slots__ = ("_best", "_prepared")

    def __init__(self) -> None:
        self._prepared = 0.0
        self._best = float("inf")

    def saved(self, seconds: float, *, prepared: bool) -> float:
        """What this use saved: preparing is what it took more than the fastest use without."""
        if prepared:
            self._prepared = seconds
            return 0.0
        self._best = min(self._best, seconds)
        return max(0.0, self._prepared - self._best)


class _Use:
    """Times one use."""

    __slots__ = ("_cache", "_sql", "_started")

    def __init__(self, cache: PreparedCache, sql: str) -> None:
        self._cache = cache
        self._sql = sql
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cache.used(self._sql, perf_counter() - self._started)


def joined(caches: Iterable[PreparedCache]) -> PreparedCacheStats:
    """The figures of several connections."""
    every = [cache.stats() for cache in caches]
    return PreparedCacheStats(
        hits=sum(stats.hits for stats in every),
        misses=sum(stats.misses for stats in every),
        evictions=sum(stats.evictions for stats in every),
        current_size=sum(stats.current_size for stats in every),
        refreshes=sum(stats.refreshes for stats in every),
        prepare_time_saved=sum(stats.prepare_time_saved for stats in every),
    )
