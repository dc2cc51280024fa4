"""Caches in front of a storage, kept coherent with it."""

from memory_core.cache.config import CACHE_PRESETS, Budget, CacheConfig
from memory_core.cache.protocol import Cache, CacheEntry, CacheKey, CacheStats
from memory_core.cache.shared import PushesInvalidations, SharedTier
from memory_core.cache.storage import CachedStorage

__all__ = [
    "CACHE_PRESETS",
    "Budget",
    "Cache",
    "CacheConfig",
    "CacheEntry",
    "CacheKey",
    "CacheStats",
    "CachedStorage",
    "PushesInvalidations",
    "SharedTier",
]
