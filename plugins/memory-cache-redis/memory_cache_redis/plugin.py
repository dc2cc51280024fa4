"""The plugin of this distribution. It names classes as strings, so that discovering it loads no driver."""

from __future__ import annotations

from collections.abc import Mapping

from memory_core.hookspecs import CacheFactory, hookimpl

_FACTORY = CacheFactory(
    target="memory_cache_redis.cache:RedisCache",
    config="memory_cache_redis.config:RedisConfig",
    summary="shared by hosts, in Redis; behind a cache of the process",
)


@hookimpl
def memory_cache_factories() -> Mapping[str, CacheFactory]:
    """Caches by URL scheme."""
    return {"redis": _FACTORY, "rediss": _FACTORY}
