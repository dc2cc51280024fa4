"""Caches in front of a storage, kept coherent with it."""

from typing import TYPE_CHECKING

from memory_core.lazy import lazily as _lazily

if TYPE_CHECKING:
    from memory_core.cache.config import CACHE_PRESETS, Budget, CacheConfig
    from memory_core.cache.protocol import Cache, CacheEntry, CacheKey, CacheStats
    from memory_core.cache.shared import PushesInvalidations, SharedTier
    from memory_core.cache.storage import CachedStorage
else:
    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "config": "CACHE_PRESETS Budget CacheConfig",
            "protocol": "Cache CacheEntry CacheKey CacheStats",
            "shared": "PushesInvalidations SharedTier",
            "storage": "CachedStorage",
        },
    )

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
