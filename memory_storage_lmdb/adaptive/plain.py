"""Plain caches of cachetools under the same contract: ``lru``, ``lfu`` and ``ttl``.

They keep to a budget of entries and bytes and to the times to live that entries are given, and do
nothing else: expired entries stay until they are asked for or evicted (``ttl`` also removes them as
others come in), and memory pressure is ignored.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, ClassVar, Literal, NamedTuple, Self

import attrs
from cachetools import Cache as Store
from cachetools import LFUCache, LRUCache, TLRUCache

from memory_core.cache import CacheEntry, CacheKey, CacheStats
from memory_core.config.validators import above, at_least
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

    max_entries: int = attrs.field(default=10_000, validator=at_least(1, whole=True))
    max_bytes: int = attrs.field(default=64 * 2**20, validator=at_least(1, whole=True))


@attrs.frozen(kw_only=True)
class TTLConfig(PlainConfig):
    """Options of the ``ttl`` cache.

    Attributes:
        ttl: seconds to live of an entry without a time to live of its own.
    """

    ttl: float = attrs.field(default=600.0, validator=above(0, inf))


class _Item(NamedTuple):
    value: Any
    size: int
    deadline: float


def _size(item: _Item) -> int:
    return item.size


class _PlainCache(ABC):
    """The common base of the plain caches. Its coroutines never suspend.

    Args:
        config: its options.
        clock: monotonic seconds.

    Attributes:
        name: its name in the statistics.
    """

    name: ClassVar[str]

    def __init__(
        self, config: PlainConfig | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config = config or PlainConfig()
        self._clock = clock
        self._ttl = config.ttl if isinstance(config, TTLConfig) else inf
        self._lookups = 0
        self._misses = 0
        self._counters: Counter[str] = Counter(
            dict.fromkeys(("insertions", "evictions", "expirations", "admissions_refused"), 0)
        )
        self._store = self._make_store(config.max_bytes)

    @classmethod
    def create(cls, location: str, *, config: PlainConfig) -> Self:
        """Make a cache as ``CacheFactory`` says; ``location`` has no meaning."""
        del location
        return cls(config)

    @abstractmethod
    def _make_store(self, max_bytes: int) -> Store[CacheKey, _Item]:
        """Make the mapping that holds the items, limited to a number of bytes."""

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
        """Keep entries. One that is too large, or has no time to live, is declined; the earlier value of
        its key is forgotten all the same.
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
        """Forget keys, and count under ``cause`` how many were there."""
        for key in keys:
            if self._store.pop(key, None) is not None:
                self._counters[f"invalidations_{cause}"] += 1

    async def clear(self, namespace: str | None = None) -> None:
        """Forget everything, or everything of a namespace."""
        keys = [key for key in self._store if namespace is None or key[0] == namespace]
        await self.delete_many(keys, "cleared")

    def stats(self) -> CacheStats:
        """Statistics since the cache was made."""
        return CacheStats(
            name=self.name,
            entries=len(self._store),
            bytes=int(self._store.currsize),
            hits=self._lookups - self._misses,
            misses=self._misses,
            counters=dict(self._counters),
        )

    async def aclose(self) -> None:
        """Forget everything. Idempotent."""
        self._store.clear()


class LRU(_PlainCache):
    """Evicts the least recently used entry."""

    name = "lru"

    def _make_store(self, max_bytes: int) -> Store[CacheKey, _Item]:
        return LRUCache(max_bytes, getsizeof=_size)


class LFU(_PlainCache):
    """Evicts the least frequently used entry."""

    name = "lfu"

    def _make_store(self, max_bytes: int) -> Store[CacheKey, _Item]:
        return LFUCache(max_bytes, getsizeof=_size)


class TTL(_PlainCache):
    """Gives every entry a time to live; evicts the least recently used when full."""

    name = "ttl"

    def __init__(
        self, config: PlainConfig | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(config or TTLConfig(), clock=clock)

    def _make_store(self, max_bytes: int) -> Store[CacheKey, _Item]:
        return _ExpiringItems(max_bytes, self._clock, self._counters)


class _ExpiringItems(TLRUCache[CacheKey, _Item]):
    """Counts the expired items that it removes."""

    def __init__(self, max_bytes: int, clock: Callable[[], float], counters: Counter[str]) -> None:
        self._counters = counters
        super().__init__(max_bytes, _deadline, timer=clock, getsizeof=_size)

    def expire(self, time: float | None = None) -> list[tuple[CacheKey, _Item]]:
        """Remove expired entries."""
        expired = list(super().expire(time))
        self._counters["expirations"] += len(expired)
        return expired


def _deadline(key: CacheKey, item: _Item, now: float) -> float:
    del key, now
    return item.deadline
