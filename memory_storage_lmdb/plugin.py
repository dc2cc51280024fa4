"""What this distribution adds to the framework; importing it loads no driver."""

from __future__ import annotations

from collections.abc import Mapping

from memory_core.hookspecs import CacheFactory, StorageFactory, hookimpl

__all__ = ["memory_cache_factories", "memory_storage_factories"]


@hookimpl
def memory_storage_factories() -> Mapping[str, StorageFactory]:
    """``lmdb:PATH``."""
    return {
        "lmdb": StorageFactory(
            target="memory_storage_lmdb.storage:LmdbStorage",
            config="memory_storage_lmdb.config:LmdbConfig",
            summary="LMDB in a directory: microsecond reads, group commits, several processes",
            spi=2,
        )
    }


@hookimpl
def memory_cache_factories() -> Mapping[str, CacheFactory]:
    """Caches of this process by name, and ``lmdb:PATH``, which processes share."""
    return {
        "adaptive": CacheFactory(
            target="memory_storage_lmdb.adaptive:AdaptiveCache",
            config="memory_storage_lmdb.adaptive:AdaptiveConfig",
            summary="of this process: scan-resistant, adaptive lifetimes, releases memory under pressure",
        ),
        "lfu": CacheFactory(
            target="memory_storage_lmdb.adaptive.plain:LFU",
            config="memory_storage_lmdb.adaptive.plain:PlainConfig",
            summary="of this process: evicts the least often used",
        ),
        "lmdb": CacheFactory(
            target="memory_storage_lmdb.tier:LmdbTier",
            config="memory_storage_lmdb.tier:LmdbTierConfig",
            summary="shared by the processes of a host, in a folder; behind a cache of the process",
        ),
        "lru": CacheFactory(
            target="memory_storage_lmdb.adaptive.plain:LRU",
            config="memory_storage_lmdb.adaptive.plain:PlainConfig",
            summary="of this process: evicts the least recently used",
        ),
        "ttl": CacheFactory(
            target="memory_storage_lmdb.adaptive.plain:TTL",
            config="memory_storage_lmdb.adaptive.plain:TTLConfig",
            summary="of this process: every entry expires after a time",
        ),
    }
