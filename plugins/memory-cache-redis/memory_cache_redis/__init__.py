"""A cache tier for memory-core that several hosts share, in Redis.

``RedisCache`` is loaded when it is first used, so that discovering the plugin loads no driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory_cache_redis.config import RedisConfig

if TYPE_CHECKING:
    from memory_cache_redis.cache import RedisCache

__all__ = ["RedisCache", "RedisConfig"]


def __getattr__(name: str) -> Any:
    if name != "RedisCache":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from memory_cache_redis.cache import RedisCache

    return RedisCache
