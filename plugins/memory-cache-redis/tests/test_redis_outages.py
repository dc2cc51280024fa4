"""Many processes on one Redis; a Redis that dies while it is read; pushes that never arrive."""

from __future__ import annotations

import asyncio
import time

import pytest
from attrs import evolve
from hosts import LONG_TIMEOUT, NoCache, host, until

from memory_cache_redis import RedisCache, RedisConfig
from memory_core import Episode, Memory
from memory_core.cache import coherence
from memory_core.inmemory import InMemoryStorage
from memory_core.testing.checks.staleness import StalenessRun, run

pytestmark = pytest.mark.slow

# As long as it takes: what these tests wait for are events.
SECONDS = 30.0


class Clock:
    """A clock for the coherence that the test sets."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(coherence, "time", clock)
    return clock


async def description(memory, stored: Episode) -> str:
    (found,) = await memory.storage.get(Episode, [stored.id])
    return found.task_description


@pytest.mark.parametrize(
    "url", ["turso:{}/store.db?busy_timeout=60", "lmdb:{}/store?busy_timeout=60"]
)
async def test_several_processes_never_read_stale_data(redis_server, tmp_path, url) -> None:
    # Hardly any room in the processes, so that Redis is asked for much.
    settings = StalenessRun(
        url=url.format(tmp_path),
        processes=3,
        operations=1_000,
        keys=60,
        writes=0.15,
        capacity=5,
        tiers=("adaptive", f"{redis_server.url}?timeout=10"),
    )
    report = await asyncio.to_thread(run, settings)
    assert report.violations == []
    assert report.violation_count == 0
    assert report.operations["reads"] > 1_500
    assert redis_server.ask("INFO", "stats")["keyspace_hits"] > 100


async def subscribed(
    server, retry_after: float, max_staleness: float
) -> tuple[Memory, RedisCache, InMemoryStorage, Episode]:
    """A host that hears what others write, and an episode that it has cached."""
    store = InMemoryStorage()
    redis = RedisCache(server.url, evolve(LONG_TIMEOUT, retry_after=retry_after))
    memory = host(store, redis, max_staleness=max_staleness)
    stored = Episode(task_description="old")
    await memory.store_episode(stored)
    await until(lambda: redis.stats().counters.get("subscriptions", 0) == 1, SECONDS)
    assert await description(memory, stored) == "old"
    return memory, redis, store, stored


async def test_what_a_lost_connection_did_not_tell_is_looked_at_when_there_is_another(
    redis_server,
) -> None:
    memory, redis, store, stored = await subscribed(redis_server, 0.05, 3600.0)
    # No message arrives, as when it was sent while the connection was dead.
    await Memory(store.scoped("default")).store_episode(evolve(stored, task_description="new"))
    assert await description(memory, stored) == "old"
    redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: redis.stats().counters["subscriptions"] == 2, SECONDS)
    assert await description(memory, stored) == "new"
    await memory.aclose()


async def test_without_a_subscription_the_bound_is_max_staleness(redis_server, clock) -> None:
    memory, redis, store, stored = await subscribed(redis_server, 3600.0, 60.0)
    writer = host(store, RedisCache(redis_server.url, LONG_TIMEOUT))
    redis_server.ask("ACL", "SETUSER", "default", "-subscribe")
    redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
    await until(lambda: redis.stats().counters.get("reconnects", 0) == 1, SECONDS)
    assert await description(memory, stored) == "old"

    await writer.store_episode(evolve(stored, task_description="new"))
    clock.now += 59.0
    assert await description(memory, stored) == "old", "somebody told"
    clock.now += 2.0
    assert await description(memory, stored) == "new"
    assert "pushes" not in redis.stats().counters
    await memory.aclose()
    await writer.aclose()


async def test_a_redis_that_dies_and_comes_back_fails_no_read(redis_server) -> None:
    store = InMemoryStorage()
    redis = RedisCache(redis_server.url, RedisConfig(retry_after=0.05))
    memory = host(store, redis, NoCache(), max_staleness=0.0)
    stored = [Episode(task_description=str(number)) for number in range(20)]
    await memory.store_episodes_batch(stored)
    stats = redis.stats
    stop = asyncio.Event()
    reads = 0

    async def read() -> None:
        nonlocal reads
        while not stop.is_set():
            episode = stored[reads % len(stored)]
            reads += 1
            assert await memory.storage.get(Episode, [episode.id]) == [episode]
            # What answers without Redis does not suspend.
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as readers:
        for _ in range(4):
            readers.create_task(read())
        for _ in range(2):
            served, failed = stats().hits, failures(redis)
            await until(lambda served=served: stats().hits > served + 100, SECONDS)
            redis_server.stop()
            await until(lambda failed=failed: failures(redis) > failed, SECONDS)
            skipped = stats().counters["skipped"]
            await until(lambda n=skipped: stats().counters["skipped"] > n + 100, SECONDS)
            redis_server.start()
        served = stats().hits
        await until(lambda: stats().hits > served + 100, SECONDS)
        stop.set()
    assert reads > 500
    await memory.aclose()


def failures(redis: RedisCache) -> float:
    counters = redis.stats().counters
    return counters.get("errors", 0) + counters.get("timeouts", 0)
