"""The tier by itself, and behind a memory, against a real Redis."""

from __future__ import annotations

import asyncio
import time

import pytest
from attrs import evolve
from hosts import LONG_TIMEOUT, NoCache, host, shorten_timeout, until

from memory_cache_redis import RedisCache
from memory_core import CacheEntry, ConfigurationError, Episode, Memory, PluginRegistry, new_id
from memory_core.inmemory import InMemoryStorage
from memory_core.memory.composing import create_cache


async def test_keeps_bytes_until_they_expire_or_are_deleted(redis_server) -> None:
    cache = RedisCache(redis_server.url, LONG_TIMEOUT)
    keys = [("ns", "episode", new_id()) for _ in range(3)]
    await cache.set_many(
        [
            CacheEntry(keys[0], b"0", 1),
            CacheEntry(keys[1], b"1", 1, ttl=0.02),
            CacheEntry(keys[2], b"2", 1),
        ]
    )
    assert await cache.get_many([keys[0], keys[2], keys[0]]) == [b"0", b"2", b"0"]
    await cache.delete_many([keys[2]])
    await asyncio.sleep(0.05)
    assert await cache.get_many(keys) == [b"0", None, None]
    stats = cache.stats()
    assert (stats.hits, stats.misses) == (4, 2)
    assert stats.counters["deletes_invalidated"] == 1
    await cache.aclose()


async def test_clear_spares_other_namespaces(redis_server) -> None:
    cache = RedisCache(redis_server.url, LONG_TIMEOUT)
    keys = [(namespace, "episode", new_id()) for namespace in ("a", "a", "a:b", "b")]
    await cache.set_many([CacheEntry(key, b"x", 1) for key in keys])
    await cache.clear("a")
    assert await cache.get_many(keys) == [None, None, b"x", b"x"]
    await cache.clear()
    assert await cache.get_many(keys) == [None] * 4
    await cache.aclose()


async def test_is_found_by_its_url_and_lists_its_options() -> None:
    registry = PluginRegistry()
    cache = create_cache("redis://127.0.0.1:1/0?timeout=0.1", registry, {})
    assert cache.holds == "bytes"
    await cache.aclose()
    with pytest.raises(ConfigurationError, match="prefix, retry_after, timeout, ttl"):
        create_cache("redis://127.0.0.1:1/0?nope=1", registry, {})


async def test_a_second_host_reads_what_the_first_one_cached(redis_server) -> None:
    store = InMemoryStorage()
    first = host(store, RedisCache(redis_server.url, LONG_TIMEOUT))
    redis = RedisCache(redis_server.url, LONG_TIMEOUT)
    second = host(store, redis)
    stored = Episode(task_description="shared")
    await second.get_episode(new_id())
    await first.store_episode(stored)
    assert await first.storage.get(Episode, [stored.id]) == [stored]
    # A host knows an entry to be valid once it has read the feed up to the entry's position.
    assert await second.storage.get(Episode, [stored.id]) == [stored]
    await second.storage.clear_cache()
    assert await second.storage.get(Episode, [stored.id]) == [stored]
    await first.aclose()
    await second.aclose()


async def test_staleness_is_bounded_by_a_message_not_by_the_poll(redis_server) -> None:
    store = InMemoryStorage()
    first = host(store, RedisCache(redis_server.url, LONG_TIMEOUT), max_staleness=3600.0)
    redis = RedisCache(redis_server.url, LONG_TIMEOUT)
    second = host(store, redis, max_staleness=3600.0)
    stored = Episode(task_description="old")
    await first.store_episode(stored)
    assert await second.storage.get(Episode, [stored.id]) == [stored]
    # Once subscribed, it looks at everything again; from then on it hears of every write.
    await until(lambda: second.storage._coherence.counters["pushes"] > 0)
    await second.storage.get(Episode, [stored.id])
    await first.store_episode(evolve(stored, task_description="new"))
    await until(lambda: redis.stats().counters.get("pushes", 0) > 0)
    (found,) = await second.storage.get(Episode, [stored.id])
    assert found.task_description == "new"
    await first.aclose()
    await second.aclose()


async def test_an_entry_that_redis_kept_too_long_is_not_served(redis_server) -> None:
    store = InMemoryStorage()
    stored = Episode(task_description="old")
    writer = Memory(store.scoped("default"))
    await writer.store_episode(stored)
    reader = host(store, RedisCache(redis_server.url, LONG_TIMEOUT), NoCache(), max_staleness=0.0)
    assert await reader.storage.get(Episode, [stored.id]) == [stored]
    # Written past the cache: Redis hears nothing of it.
    await writer.store_episode(evolve(stored, task_description="new"))
    (found,) = await reader.storage.get(Episode, [stored.id])
    assert found.task_description == "new"
    await reader.aclose()


async def test_without_redis_the_backend_answers(redis_server) -> None:
    store = InMemoryStorage()
    redis = RedisCache(redis_server.url, evolve(LONG_TIMEOUT, retry_after=3600.0))
    memory = host(store, redis, NoCache(), max_staleness=0.0)
    stored = Episode(task_description="kept")
    await memory.store_episode(stored)
    redis_server.stop()
    for _ in range(3):
        assert await memory.storage.get(Episode, [stored.id]) == [stored]
    await memory.store_episode(evolve(stored, task_description="written while it was down"))
    stats = redis.stats().counters
    assert stats["errors"] >= 1
    assert stats["skipped"] >= 1
    await until(lambda: redis.stats().counters.get("reconnects", 0) >= 1)
    redis_server.start()
    # As if ``retry_after`` had passed.
    redis._retry_at = float("-inf")
    hits = redis.stats().hits
    for _ in range(2):
        (found,) = await memory.storage.get(Episode, [stored.id])
        assert found.task_description == "written while it was down"
    # The second time it is there again.
    assert redis.stats().hits == hits + 1
    await memory.aclose()


async def test_a_slow_redis_costs_at_most_its_timeout(redis_server) -> None:
    store = InMemoryStorage()
    redis = RedisCache(redis_server.url, evolve(LONG_TIMEOUT, retry_after=3600.0))
    memory = host(store, redis, NoCache(), max_staleness=0.0)
    stored = Episode(task_description="kept")
    await memory.store_episode(stored)
    assert await memory.storage.get(Episode, [stored.id]) == [stored]
    redis_server.freeze()
    shorten_timeout(redis, 0.1)
    try:
        began = time.monotonic()
        for _ in range(200):
            assert await memory.storage.get(Episode, [stored.id]) == [stored]
        # Two hundred reads, one timeout: after it Redis is not asked.
        assert redis.stats().counters["timeouts"] == 1
        assert time.monotonic() - began < 200 * 0.1
    finally:
        redis_server.thaw()
    await memory.aclose()


async def test_nothing_is_left_after_close(redis_server) -> None:
    store = InMemoryStorage()
    memory = host(store, RedisCache(redis_server.url, LONG_TIMEOUT))
    await memory.store_episode(Episode(task_description="x"))
    await memory.get_episode(new_id())
    await memory.aclose()
    await memory.aclose()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others
