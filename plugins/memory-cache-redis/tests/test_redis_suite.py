"""The conformance kit's suite for caches, on a real Redis."""

from __future__ import annotations

from itertools import count

import pytest

from memory_cache_redis import RedisCache, RedisConfig
from memory_core.testing import CacheSuite


class TestRedisCache(CacheSuite):
    holds = "bytes"
    in_process = False
    exact_statistics = False

    @pytest.fixture(autouse=True)
    def _server(self, redis_server) -> None:
        self._url = redis_server.url
        self._numbers = count()

    def create(self) -> RedisCache:
        # A long timeout, as the machine may be busy; a prefix of its own for each.
        config = RedisConfig(timeout=30.0, prefix=f"suite-{next(self._numbers)}")
        return RedisCache(self._url, config)
