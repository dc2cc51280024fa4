"""The adaptive cache, and plain caches of cachetools under the same contract."""

from memory_storage_lmdb.adaptive.cache import AdaptiveCache
from memory_storage_lmdb.adaptive.config import AdaptiveConfig
from memory_storage_lmdb.adaptive.memory_source import MemoryReading, MemorySource, SystemMemory
from memory_storage_lmdb.adaptive.pressure import PressureLevel

__all__ = [
    "AdaptiveCache",
    "AdaptiveConfig",
    "MemoryReading",
    "MemorySource",
    "PressureLevel",
    "SystemMemory",
]
