"""Filling of the nearest tier with records, their absence, and answers to queries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from memory_core.cache.config import CacheConfig
from memory_core.cache.protocol import Cache, CacheEntry, CacheKey
from memory_core.cache.queries import CachedAnswer
from memory_core.records.sizes import size_of

__all__ = ["ABSENT", "NearTier"]


class _Absent:
    """The cached knowledge that a record is missing."""

    __slots__ = ()


ABSENT: Final = _Absent()


class NearTier:
    """Fills the nearest tier, with sizes and times to live.

    Args:
        cache: the tier.
        config: what is cached, and for how long.
    """

    def __init__(self, cache: Cache, config: CacheConfig) -> None:
        self.cache = cache
        self.config = config

    async def fill(self, values: Iterable[tuple[CacheKey, Any]]) -> None:
        """Keep records, ``ABSENT`` and answers, as configured."""
        negative = self.config.negative
        entries = [
            self._entry(key, value) for key, value in values if value is not ABSENT or negative
        ]
        if entries:
            await self.cache.set_many(entries)

    def _entry(self, key: CacheKey, value: Any) -> CacheEntry:
        budget = self.config.budgets.get(key[1])
        ttl = self.config.ttl if budget is None else budget.ttl
        return CacheEntry(key, value, _size(value), ttl)


def _size(value: Any) -> int:
    if value is ABSENT:
        return 0
    return value.size() if isinstance(value, CachedAnswer) else size_of(value)
