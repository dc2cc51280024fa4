"""Every declared metric is moved by what it is said to count: one that nothing moves fails here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import attrs
import pytest

from memory_core import CacheConfig, Episode, InMemoryStorage, Query, new_id, open_memory
from memory_core.config import Settings
from memory_core.errors import StorageUnavailableError
from memory_core.memory.opening import open_memory as opening
from memory_core.metrics import METRICS, REGISTRY, Histogram, StoreMetrics
from memory_core.records import Limits
from memory_core.storage import StorageContext
from memory_storage_turso import TenantStorage, TursoConfig, TursoStorage
from memory_storage_turso.config import (
    BreakerConfig,
    KeepAliveConfig,
    PoolConfig,
    ReplicaConfig,
    TenancyConfig,
)
from memory_storage_turso.server.pool import Pool
from memory_storage_turso.server.replicas import ReadRouter
from memory_storage_turso.server.resilience import CircuitBreaker, CircuitOpenError, Outcome
from tests.servers.waiting import until
from tests.unit.turso_server.test_read_router import MARK, FakeNode

NAMES = {metric.name for metric in METRICS}
moved: set[str] = set()


def look(*more: StoreMetrics) -> set[str]:
    """Note what has moved so far."""
    samples = [*REGISTRY.collect(), *(one for metrics in more for one in metrics.samples())]
    for sample in samples:
        value = sample.value
        if value.count if isinstance(value, Histogram) else value:
            moved.add(sample.metric.name)
    return moved


def text(number: int) -> str:
    return f"episode {number}: " + "the flight was cancelled and the refund is missing. " * 20


def episodes(count: int) -> list[Episode]:
    return [Episode(task_description=text(number), tags=["a"]) for number in range(count)]


async def use_a_store(where: str) -> None:
    cache = CacheConfig(tiers=("adaptive",), max_entries=20)
    async with open_memory(where, cache=cache) as memory:
        stored = episodes(400)
        for start in range(0, 400, 100):
            await memory.store_episodes_batch(stored[start : start + 100])
        look()
        await asyncio.sleep(0.7)
        await memory.store_episodes_batch(episodes(100))
        await memory.get_episodes_batch([episode.id for episode in stored])
        for _ in range(2):
            await memory.query_episodes(Query(Episode).where(tags="a").limit(1_000))
            await memory.count_episodes(Query(Episode).where(tags="a"))
        await asyncio.gather(*(memory.get_episode(stored[0].id) for _ in range(3)))
        # It is not cached yet, and LMDB decodes bodies of over 64 KiB on a thread.
        long = Episode(task_description="a", metadata={"log": text(0) * 100})
        await memory.put(long)
        assert await memory.get(Episode, long.id) == long
        look()
        await memory.search("refund")
        await memory.put(stored[0], stored[1])
        look()
        await memory.recall("the refund is missing")
        await memory.feedback(await memory.recall("the refund is missing"), [], outcome())
        await asyncio.sleep(0.7)
        await memory.count_episodes()
        look()


def outcome():
    from memory_core import Outcome as EpisodeOutcome

    return EpisodeOutcome.success("helped")


async def reject_a_batch() -> None:
    from memory_core import ReferenceNotFoundError, Relationship, RelationshipType

    async with open_memory("inmemory:") as memory:
        edge = Relationship(
            from_episode_id=new_id(),
            to_episode_id=new_id(),
            relationship_type=RelationshipType.DEPENDS_ON,
        )
        with pytest.raises(ReferenceNotFoundError):
            await memory.add_relationship(edge)
        assert "storage_batches_rejected" in look()


async def let_an_entry_expire() -> None:
    cache = CacheConfig(tiers=("ttl",), options={"ttl": 0.01})
    async with open_memory("inmemory:", cache=cache) as memory:
        [episode] = episodes(1)
        await memory.put(episode)
        await memory.get_episode(episode.id)
        await asyncio.sleep(0.05)
        await memory.get_episode(episode.id)
        assert {"cache_expirations", "cache_misses"} <= look()


async def record_no_recall() -> None:
    settings = Settings(url="inmemory:", limits=Limits(max_record_bytes=1_500))
    async with opening(settings=settings) as memory:
        await memory.put(Episode(task_description="refund"))
        await memory.recall("refund " * 1_000)
        await asyncio.sleep(0.05)
        assert "recalls_not_recorded" in look()


class Counted:
    """A part of a server's driver by itself, as the registry reads it."""

    def __init__(self, section: str, stats: Callable[[], object]) -> None:
        self._section, self._stats = section, stats
        self.metrics = StoreMetrics("turso+http")
        self.metrics.add(self.sections)

    def sections(self) -> dict[str, dict[str, object]]:
        return {self._section: attrs.asdict(self._stats())}  # pyright: ignore[reportArgumentType]  # an attrs class


class Connection:
    broken = False

    async def ping(self) -> None: ...

    async def aclose(self) -> None: ...


async def wait_for_a_pool() -> None:
    async def connect() -> Connection:
        return Connection()

    config = PoolConfig(max_size=1, acquire_timeout=0.02, max_waiting=1)
    pool = Pool(connect, config, KeepAliveConfig(interval=1_000))
    counted = Counted("pool", pool.stats)

    async def use() -> None:
        async with pool.acquire():
            await asyncio.sleep(0)

    async with pool.acquire():
        await pool.tend()
        look(counted.metrics)
        waiting = asyncio.create_task(use())
        await asyncio.sleep(0)
        look(counted.metrics)
        with pytest.raises(StorageUnavailableError, match="waiting"):
            await use()
        with pytest.raises(StorageUnavailableError, match="within"):
            await waiting
    await use()
    look(counted.metrics)
    await pool.aclose()
    pool = Pool(connect, PoolConfig(min_size=2), KeepAliveConfig(interval=1_000))
    counted = Counted("pool", pool.stats)
    await pool.tend()
    await until(lambda: pool.stats().idle == 2)
    seen = look(counted.metrics)
    await pool.aclose()
    assert {metric.name for metric in METRICS if metric.section == "pool"} <= seen


def open_a_breaker() -> None:
    breaker = CircuitBreaker("server", BreakerConfig(failure_threshold=1, reset_timeout=60))
    counted = Counted("breaker", breaker.stats)
    with suppress(OSError), breaker.guard(lambda _: Outcome.FAILURE):
        raise OSError
    with pytest.raises(CircuitOpenError), breaker.guard(lambda _: Outcome.FAILURE):
        pass
    seen = look(counted.metrics)
    assert {metric.name for metric in METRICS if metric.section == "breaker"} <= seen


async def read_from_a_replica() -> None:
    """The driver shows these statistics; `tests/integration/turso/test_replicas.py` runs it on servers."""
    primary, replica = FakeNode(position=5), FakeNode()
    router = ReadRouter(primary, [replica], ReplicaConfig())  # pyright: ignore[reportArgumentType]  # a stand-in
    router.use_position(MARK, None)
    reads = StoreMetrics("turso+http")

    class Statistics:
        def sections(self) -> dict[str, dict[str, object]]:
            primary_reads = router._primary_reads  # pyright: ignore[reportPrivateUsage]  # as the driver counts
            return {"replicas": {**router.totals()}, "reads": {"primary_reads": primary_reads}}

    statistics = Statistics()
    reads.add(statistics.sections)
    await router.read([])
    assert {"replica_passed_over", "replica_lag_changes", "primary_reads"} <= look(reads)
    replica.position = 5

    async def counted(name: str) -> bool:
        await router.read([])
        return name in look(reads)

    await until(lambda: counted("replica_reads"))
    replica.failure = StorageUnavailableError("it is down")
    await until(lambda: counted("replica_failures"))
    await router.aclose()


class Database(InMemoryStorage):
    """Stands in for a database on a server."""

    def drain(self) -> None: ...


async def opened_database(_, *, config: TursoConfig, context: StorageContext) -> Database:
    """In the place of ``TursoStorage.open``."""
    return Database(context)


async def use_databases_of_tenants() -> None:
    config = TursoConfig(database="{namespace}", tenancy=TenancyConfig(max_open=1))
    store = await TenantStorage.open("turso+http://127.0.0.1:1", config=config)

    def counts() -> float:
        return sum(
            sample.value
            for sample in store.metrics.samples()
            if sample.metric.name == "storage_counts"
        )

    for number, namespace in enumerate(("one", "two", "one"), 1):
        await store.scoped(namespace).count(Query(Episode))
        assert {"databases_open", "databases_opened"} <= look(store.metrics)
        await until(lambda number=number: counts() == number)
    await store.aclose()
    assert counts() == 3


async def fill_a_log(where: str) -> None:
    async with open_memory(where) as memory:
        for _ in range(10):
            await memory.store_episodes_batch(episodes(500))
        look()


async def test_every_declared_metric_is_moved(tmp_path, monkeypatch):
    moved.clear()
    # What other tests of this process have counted.
    REGISTRY.clear()
    places = [
        "inmemory:",
        *(f"{scheme}:{tmp_path / scheme}" for scheme in ("turso", "lmdb", "jsonl")),
    ]
    await asyncio.gather(*map(use_a_store, places))
    await fill_a_log(places[1])
    await reject_a_batch()
    await let_an_entry_expire()
    await record_no_recall()
    await wait_for_a_pool()
    open_a_breaker()
    await read_from_a_replica()
    with monkeypatch.context() as patch:
        patch.setattr(TursoStorage, "open", opened_database)
        await use_databases_of_tenants()
    assert NAMES - moved == set()
