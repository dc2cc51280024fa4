"""Plain caches of cachetools under the same contract: ``lru``, ``lfu`` and ``ttl``.

They keep to a budget of entries and bytes and to the times to live that entries are given, and do
nothing else: expired entries stay until they are asked for or evicted (``ttl`` also removes them as
others come in), and memory pressure is not looked at.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Literal, NamedTuple

import attrs
from cachetools import Cache as Store
from cachetools import LFUCache, LRUCache, TLRUCache

from memory_core.cache import CacheEntry, CacheKey, CacheStats
from memory_storage_lmdb.adaptive.bounds import between
from memory_storage_lmdb.adaptive.entry import key_size

__all__ = ["LFU", "LRU", "TTL", "PlainConfig", "TTLConfig"]

_OVERHEAD = 500  # bytes for the item, its size and its place in the order, besides the key


@attrs.frozen(kw_only=True)
class PlainConfig:
    """Options of a plain cache.

    Attributes:
        max_entries: entries it holds at most.
        max_bytes: bytes they take at most.
    """

    max_entries: int = attrs.field(default=10_000, validator=between(1, whole=True))
    max_bytes: int = attrs.field(default=64 * 2**20, validator=between(1, whole=True))


@attrs.frozen(kw_only=True)
class TTLConfig(PlainConfig):
    """Options of the ``ttl`` cache.

    Attributes:
        ttl: seconds an entry lives that was given no time of its own.
    """

    ttl: float = attrs.field(default=600.0, validator=between(0, above=True))


class _Item(NamedTuple):
    value: Any
    size: int
    deadline: float


class _Plain:
    """What the plain caches share. Its coroutines never suspend.

    Args:
        name: its name in the statistics.
        config: its options.
        store: what holds the items; its size is counted in bytes.
        clock: monotonic seconds.
        ttl: seconds an entry lives that was given no time of its own.
    """

    def __init__(
        self,
        name: str,
        config: PlainConfig,
        store: Store[CacheKey, _Item],
        clock: Callable[[], float],
        ttl: float = inf,
    ) -> None:
        self._name = name
        self._config = config
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._lookups = 0
        self._misses = 0
        self._counters: Counter[str] = Counter(
            dict.fromkeys(("insertions", "evictions", "expirations", "admissions_refused"), 0)
        )

    @property
    def holds(self) -> Literal["objects"]:
        """It keeps the objects it is given."""
        return "objects"

    async def get_many(self, keys: Sequence[CacheKey]) -> list[Any | None]:
        """The values in the order of the keys, ``None`` for a miss."""
        now = self._clock()
        return [self._get(key, now) for key in keys]

    def _get(self, key: CacheKey, now: float) -> Any | None:
        self._lookups += 1
        item = self._store.get(key)
        if item is not None and now < item.deadline:
            return item.value
        self._misses += 1
        if item is not None:
            del self._store[key]
            self._counters["expirations"] += 1
        return None

    async def set_many(self, entries: Sequence[CacheEntry]) -> None:
        """Keep entries. One that is too large, or has no time to live, is declined; what was kept
        under its key before is forgotten all the same.
        """
        now = self._clock()
        for entry in entries:
            self._store.pop(entry.key, None)
            deadline = now + (self._ttl if entry.ttl is None else entry.ttl)
            item = _Item(entry.value, entry.size + key_size(entry.key) + _OVERHEAD, deadline)
            if deadline <= now or item.size > self._config.max_bytes:
                self._counters["admissions_refused"] += 1
                continue
            before = len(self._store)
            while len(self._store) >= self._config.max_entries:
                self._store.popitem()
            self._store[entry.key] = item
            self._counters["evictions"] += before + 1 - len(self._store)
            self._counters["insertions"] += 1

    async def delete_many(self, keys: Sequence[CacheKey], cause: str = "invalidated") -> None:
        """Forget keys; those that were there are counted under ``cause``."""
        for key in keys:
            if self._store.pop(key, None) is not None:
                self._counters[f"invalidations_{cause}"] += 1

    async def clear(self, namespace: str | None = None) -> None:
        """Forget everything, or everything of a namespace."""
        keys = [key for key in self._store if namespace is None or key[0] == namespace]
        await self.delete_many(keys, "cleared")

    def stats(self) -> CacheStats:
        """Figures since the cache was made."""
        return CacheStats(
            name=self._name,
            entries=len(self._store),
            bytes=int(self._store.currsize),
            hits=self._lookups - self._misses,
            misses=self._misses,
            counters=dict(self._counters),
        )

    async def aclose(self) -> None:
        """Forget everything. Idempotent."""
        self._store.clear()


def _size(item: _Item) -> int:
    return item.size


class _Expiring(TLRUCache[CacheKey, _Item]):
    """Counts what it removed because its time was over."""

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        self.expirations = 0
        super().__init__(max_bytes, _deadline, timer=clock, getsizeof=_size)

    def expire(self, time: float | None = None) -> list[tuple[CacheKey, _Item]]:
        """Remove what has expired."""
        expired = list(super().expire(time))
        self.expirations += len(expired)
        return expired


def _deadline(key: CacheKey, item: _Item, now: float) -> float:
    del key, now
    return item.deadline


class LRU(_Plain):
    """Evicts the entry that was not used for the longest time."""

    def __init__(
        self, config: PlainConfig | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        config = config or PlainConfig()
        super().__init__("lru", config, LRUCache(config.max_bytes, getsizeof=_size), clock)

    @classmethod
    def create(cls, location: str, *, config: PlainConfig) -> LRU:
        """Make a cache as the factory of caches does; ``location`` has no meaning."""
        del location
        return cls(config)


class LFU(_Plain):
    """Evicts the entry that was used least often."""

    def __init__(
        self, config: PlainConfig | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        config = config or PlainConfig()
        super().__init__("lfu", config, LFUCache(config.max_bytes, getsizeof=_size), clock)

    @classmethod
    def create(cls, location: str, *, config: PlainConfig) -> LFU:
        """Make a cache as the factory of caches does; ``location`` has no meaning."""
        del location
        return cls(config)


class TTL(_Plain):
    """Gives every entry a time to live; evicts the least recently used when full."""

    def __init__(
        self, config: TTLConfig | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        config = config or TTLConfig()
        self._expiring = _Expiring(config.max_bytes, clock)
        super().__init__("ttl", config, self._expiring, clock, config.ttl)

    @classmethod
    def create(cls, location: str, *, config: TTLConfig) -> TTL:
        """Make a cache as the factory of caches does; ``location`` has no meaning."""
        del location
        return cls(config)

    def stats(self) -> CacheStats:
        """Figures since the cache was made."""
        stats = super().stats()
        expirations = {"expirations": self._expiring.expirations}
        return attrs.evolve(stats, counters={**stats.counters, **expirations})
