"""Clearing the tier, its statistics afterwards, and a Redis that does not answer."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest
from attrs import evolve
from hosts import LONG_TIMEOUT, shorten_timeout

from memory_cache_redis import RedisCache
from memory_cache_redis import cache as module
from memory_core import CacheEntry, new_id


def entries(count: int, size: int = 1) -> list[CacheEntry]:
    return [CacheEntry(("ns", "episode", new_id()), b"x" * size, size) for _ in range(count)]


@pytest.fixture
def always_measured(monkeypatch) -> None:
    monkeypatch.setattr(module, "_MEASURE_AFTER", 0.0)


async def clear_by_command(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "memory_core.cli", "cache", "clear", "--json", "--tier", url]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
    )


async def test_entries_and_bytes_are_those_of_the_server(redis_server, always_measured) -> None:
    cache, other = (
        RedisCache(redis_server.url, LONG_TIMEOUT),
        RedisCache(redis_server.url, LONG_TIMEOUT),
    )
    await cache.get_many([("ns", "episode", new_id())])
    empty = cache.stats().bytes
    kept = entries(10, 100_000)
    await cache.set_many(kept)
    # Put again, they are no more than they were.
    await cache.set_many(kept)
    full = cache.stats()
    assert full.entries == 10
    assert full.bytes > empty + 1_000_000
    assert full.counters["sets"] == 20
    await cache.delete_many([entry.key for entry in kept[:4]])
    assert cache.stats().entries == 6
    await other.set_many(entries(5))
    assert other.stats().entries == 11
    await other.clear()
    assert other.stats().entries == 0
    await cache.get_many([kept[9].key])
    assert cache.stats().entries == 0
    assert cache.stats().bytes < full.bytes - 1_000_000
    await cache.aclose()
    await other.aclose()


class Clock:
    """A clock for the tier that stands still."""

    def monotonic(self) -> float:
        return 1_000.0


async def test_the_server_is_not_asked_for_its_size_by_every_call(
    redis_server, monkeypatch
) -> None:
    monkeypatch.setattr(module, "time", Clock())
    cache = RedisCache(redis_server.url, LONG_TIMEOUT)
    for _ in range(50):
        await cache.set_many(entries(1))
    assert int(redis_server.ask("INFO", "commandstats")["cmdstat_dbsize"]["calls"]) == 1
    await cache.aclose()


async def test_clearing_goes_in_steps_to_the_end(redis_server) -> None:
    cache = RedisCache(redis_server.url, LONG_TIMEOUT)
    await cache.set_many(entries(3_500))
    await cache.clear()
    assert redis_server.ask("DBSIZE") == 0
    stats = cache.stats()
    assert stats.entries == 0
    assert stats.counters["deletes_cleared"] == 3_500
    assert "clears_failed" not in stats.counters
    await cache.aclose()


async def test_clearing_a_frozen_redis_ends_and_counts(redis_server) -> None:
    cache = RedisCache(redis_server.url, evolve(LONG_TIMEOUT, retry_after=3600.0))
    await cache.set_many(entries(1))
    redis_server.freeze()
    shorten_timeout(cache, 0.05)
    async with asyncio.timeout(20):
        await cache.clear()
        assert cache.stats().counters["timeouts"] == 1
        assert cache.stats().counters["clears_failed"] == 1
        # It is not asked for a while, which clears nothing either.
        await cache.clear()
        assert cache.stats().counters["clears_failed"] == 2
        await cache.aclose()
    redis_server.thaw()
    assert redis_server.ask("DBSIZE") == 1


async def test_clearing_that_breaks_off_half_way_says_so(redis_server, monkeypatch) -> None:
    cache = RedisCache(redis_server.url, LONG_TIMEOUT)
    await cache.set_many(entries(3_500))
    steps: list[int] = []
    clear_some = cache._clear_some

    async def freezing(cursor: int, pattern: str) -> tuple[int, int]:
        steps.append(cursor)
        step = await clear_some(cursor, pattern)
        redis_server.freeze()
        shorten_timeout(cache, 0.05)
        return step

    # Nothing else is asked between two steps.
    monkeypatch.setattr(module, "_MEASURE_AFTER", float("inf"))
    monkeypatch.setattr(cache, "_clear_some", freezing)
    async with asyncio.timeout(20):
        await cache.clear()
    assert len(steps) == 2
    counters = cache.stats().counters
    assert counters["clears_failed"] == 1
    assert 0 < counters["deletes_cleared"] < 3_500
    await cache.aclose()


async def test_the_command_clears(redis_server) -> None:
    cache = RedisCache(redis_server.url, LONG_TIMEOUT)
    await cache.set_many(entries(3))
    patient = f"{redis_server.url}?timeout=30"
    said = await clear_by_command(patient)
    assert json.loads(said.stdout) == {"cleared": {"tier": patient}}
    assert redis_server.ask("DBSIZE") == 0
    await cache.aclose()


async def test_the_command_says_that_a_frozen_redis_was_not_cleared(redis_server) -> None:
    redis_server.freeze()
    said = await clear_by_command(redis_server.url)
    assert said.returncode == 3
    assert not said.stdout
    assert f"{redis_server.url} was not cleared" in said.stderr
    assert "timeouts: 1" in said.stderr


async def test_the_command_says_that_no_redis_is_there(redis_server) -> None:
    redis_server.stop()
    said = await clear_by_command(redis_server.url)
    assert said.returncode == 3
    assert f"{redis_server.url} was not cleared" in said.stderr
