"""Processes on hosts of their own: the same store and the same Redis, caches of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from attrs import evolve

from memory_cache_redis import RedisCache, RedisConfig
from memory_core import CacheConfig, CachedStorage, Limits, Memory, RecordTypes
from memory_core.cache import SharedTier
from memory_core.codec import Codec
from memory_core.inmemory import InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES
from memory_storage_lmdb.adaptive import AdaptiveCache

TYPES = RecordTypes(CORE_RECORD_TYPES)


# For tests in which Redis is well: on a busy machine it may be slow.
LONG_TIMEOUT = RedisConfig(timeout=30.0)


def shorten_timeout(cache: RedisCache, timeout: float) -> None:
    """Give a tier a shorter timeout, now that Redis is not well."""
    cache._config = evolve(cache._config, timeout=timeout)


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


class WithoutPosition:
    """A store on a server: it cannot tell its position cheaply."""

    def __init__(self, storage: InMemoryStorage) -> None:
        self._storage = storage

    def position(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class NoCache:
    """A nearest tier that keeps nothing, so that every read reaches Redis."""

    holds = "objects"

    async def get_many(self, keys: Any) -> list[None]:
        return [None] * len(keys)

    async def set_many(self, entries: Any) -> None: ...

    async def delete_many(self, keys: Any, cause: str = "") -> None: ...

    async def clear(self, namespace: str | None = None) -> None: ...

    async def aclose(self) -> None: ...


def host(store: InMemoryStorage, redis: RedisCache, near: Any = None, **config: Any) -> Memory:
    """A process on a host of its own: its own caches, the same store and the same Redis."""
    near = near or AdaptiveCache()
    tier = SharedTier(redis, Codec(TYPES, Limits()), store)
    backend = WithoutPosition(store.scoped("default"))
    settings = CacheConfig(**config)
    return Memory(CachedStorage(backend, near, types=TYPES, config=settings, far=[tier]))
