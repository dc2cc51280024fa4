"""Closing takes bounded time and leaves nothing behind, whatever the servers do."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from memory_core.errors import (
    OutcomeUnknownError,
    StorageClosedError,
    StorageUnavailableError,
)
from memory_core.query import Query
from memory_core.records import Heuristic
from memory_core.storage import WriteBatch
from memory_storage_turso import TursoStorage
from memory_storage_turso.config import (
    BreakerConfig,
    PoolConfig,
    ReplicaConfig,
    RetryConfig,
    ServerLimits,
    TursoConfig,
)
from memory_storage_turso.server import resilience
from memory_storage_turso.sql.statement import Statement
from tests.integration.turso.conftest import OpenDriver, create_schema, insert, names
from tests.integration.turso.leaks import nothing_left
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import Direction, TcpProxy
from tests.servers.waiting import until

pytestmark = pytest.mark.slow

DRAIN = 0.5
#: Saying goodbye to a server that does not answer takes up to a second more; an answer, a try or a
#: pause that is waited for in vain takes longer than this.
AT_MOST = 12.0
HASTY = TursoConfig(pool=PoolConfig(drain_timeout=DRAIN))


def rule(text: str) -> Heuristic:
    return Heuristic(condition=text, action="act", confidence=0.5)


async def put(store: Any, text: str) -> Heuristic:
    record = rule(text)
    await store.commit([WriteBatch().put(record)])
    return record


async def work(store: Any, calls: int = 5) -> list[asyncio.Task[Any]]:
    """Writes and reads that are on their way to the server."""
    writer = store._shared.writer
    before = writer.stats()["groups"]
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(put(store, "first"))]
    await until(lambda: writer.stats()["groups"] > before)
    tasks += [
        *(asyncio.create_task(put(store, f"{number}")) for number in range(calls)),
        *(asyncio.create_task(store.query(Query(Heuristic))) for _ in range(calls)),
        asyncio.create_task(store.get(Heuristic, [rule("absent").id])),
    ]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> Counter[str]:
    """How they ended: well, or with an error that says whether the call was applied."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    allowed = (
        StorageClosedError,
        StorageUnavailableError,
        OutcomeUnknownError,
        asyncio.CancelledError,
    )
    assert [error for error in errors if not isinstance(error, allowed)] == []
    return Counter(type(error).__name__ for error in errors)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_closing_at_a_hung_server_is_bounded(
    proxy: TcpProxy, transport: str, direction: Direction
) -> None:
    async with nothing_left():
        store = await TursoStorage.open(f"turso+{transport}://127.0.0.1:{proxy.port}", config=HASTY)
        await put(store, "before")
        proxy.stall(direction)
        tasks = await work(store)
        await until(lambda: proxy.held[direction] > 0)
        started = time.monotonic()
        await store.aclose()
        assert time.monotonic() - started < AT_MOST
        errors = await ended(tasks)
        # The first write was in-flight; those behind it were never sent.
        assert errors["OutcomeUnknownError"] >= 1
        assert errors["StorageClosedError"] >= 1
        proxy.heal()
        proxy.cut()


async def test_closing_does_not_wait_for_pauses_between_attempts(
    server: Sqld, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resilience, "_FIRST_PAUSE", 30)
    monkeypatch.setattr(resilience, "_LONGEST_PAUSE", 60)
    config = TursoConfig(
        pool=PoolConfig(drain_timeout=DRAIN),
        retry=RetryConfig(timeout=600),
        breaker=BreakerConfig(failure_threshold=1, reset_timeout=60),
    )
    url = server.http_url if transport == "http" else server.ws_url
    async with nothing_left():
        store = await TursoStorage.open(url, config=config)
        await put(store, "before")
        await server.kill()
        tasks = await work(store)
        started = time.monotonic()
        await store.aclose()
        assert time.monotonic() - started < AT_MOST
        await ended(tasks)


async def test_what_can_be_finished_in_time_is(proxy: TcpProxy, transport: str) -> None:
    url = f"turso+{transport}://127.0.0.1:{proxy.port}"
    store = await TursoStorage.open(url)
    await put(store, "before")
    proxy.stall("up")
    tasks = await work(store)
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    proxy.resume()
    assert not await ended(tasks)
    await closing


async def test_a_page_in_flight_is_still_decoded(proxy: TcpProxy, transport: str) -> None:
    store = await TursoStorage.open(f"turso+{transport}://127.0.0.1:{proxy.port}")
    # This many leave no pending index entries, and a page is not decoded on the event loop.
    await store.commit([WriteBatch().put(rule(f"{number}")) for number in range(1024)])
    proxy.stall("up")
    query = asyncio.create_task(store.query(Query(Heuristic).limit(50)))
    await until(lambda: proxy.held["up"] > 0)
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0.1)
    proxy.resume()
    assert len(await query) == 50
    await closing


async def test_idle_streams_of_a_restarted_server_fail_no_call(
    server: Sqld, transport: str, open_driver: OpenDriver
) -> None:
    config = TursoConfig(pool=PoolConfig(min_size=32, max_size=32), retry=RetryConfig(attempts=1))
    driver = open_driver(server.http_url if transport == "http" else server.ws_url, config=config)
    await create_schema(driver)
    counting = "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 100000) "
    slow = Statement(f"{counting} SELECT count(*) FROM c")
    for call in (lambda: names(driver), lambda: driver.write([[insert("a")]])):
        await asyncio.gather(*(driver.read([slow]) for _ in range(32)))
        assert driver._primary.pool.stats().idle > 10
        await server.restart()
        await call()
        assert driver._primary.pool.stats().idle <= 2


@attrs.define
class Cluster:
    """A primary behind a network that can be broken, and two replicas."""

    primary: Sqld
    network: TcpProxy
    replicas: list[Sqld]

    def url(self, transport: str) -> str:
        return f"turso+{transport}://127.0.0.1:{self.network.port}"

    def config(self, transport: str) -> TursoConfig:
        """Timeouts are much longer than closing may take."""
        urls = [r.http_url if transport == "http" else r.ws_url for r in self.replicas]
        return TursoConfig(
            replicas=urls,
            retry=RetryConfig(attempts=100, timeout=60, resolve_timeout=60),
            limits=ServerLimits(request_timeout=30),
            replica=ReplicaConfig(timeout=30),
            pool=PoolConfig(drain_timeout=DRAIN),
        )

    async def store(self, transport: str) -> TursoStorage:
        """One that has used every server."""
        store = await TursoStorage.open(self.url(transport), config=self.config(transport))
        record = await put(store, "before")

        async def all_in_use() -> bool:
            await asyncio.gather(*(store.get(Heuristic, [record.id]) for _ in range(4)))
            replicas = (await store.stats()).sections["reads"]["replicas"]
            return all(replica["reads"] for replica in replicas)

        await until(all_in_use)
        return store

    async def strike(self, fault: str) -> None:
        """Let something go wrong."""
        match fault:
            case "stalled":
                self.network.stall("up")
            case "primary frozen":
                self.primary.freeze()
            case "primary killed":
                await self.primary.kill()
            case "replicas killed":
                for replica in self.replicas:
                    await replica.kill()
            case "replica frozen":
                self.replicas[0].freeze()
            case _:
                assert fault == "nothing"

    def heal(self) -> None:
        """End the fault, so that only what this client holds is left."""
        self.network.heal()
        self.network.cut()
        for server in (self.primary, *self.replicas):
            server.thaw()


@pytest.fixture
async def cluster(server: Sqld, proxy: TcpProxy, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(
                running_sqld(tmp_path / f"replica{number}", primary_grpc=server.grpc_port)
            )
            for number in range(2)
        ]
        yield Cluster(server, proxy, replicas)


FAULTS = [
    "nothing", "stalled", "primary frozen", "primary killed", "replicas killed", "replica frozen",
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("cancelled", [False, True])
async def test_nothing_is_left(
    cluster: Cluster, transport: str, fault: str, cancelled: bool
) -> None:
    async with nothing_left():
        store = await cluster.store(transport)
        tasks = await work(store)
        await cluster.strike(fault)
        started = time.monotonic()
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0)
        if cancelled:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            tasks[1].cancel()
            tasks[-1].cancel()
            closing = asyncio.create_task(store.aclose())
        await closing
        assert time.monotonic() - started < AT_MOST
        await ended(tasks)
        with pytest.raises(StorageClosedError):
            await put(store, "too late")
        cluster.heal()


@pytest.mark.parametrize("fault", ["stalled", "primary frozen", "primary killed", "cut off"])
async def test_nothing_is_left_of_an_opening_that_failed(
    cluster: Cluster, transport: str, fault: str
) -> None:
    async with nothing_left():
        if fault == "cut off":
            cluster.network.up = False
        else:
            await cluster.strike(fault)
        config = attrs.evolve(
            cluster.config(transport),
            retry=RetryConfig(attempts=2, timeout=1),
            limits=ServerLimits(request_timeout=1),
        )
        with pytest.raises(StorageUnavailableError):
            await TursoStorage.open(cluster.url(transport), config=config)
        cluster.heal()


@pytest.mark.parametrize("answers", range(1, 12, 2))
async def test_nothing_is_left_of_an_opening_that_was_cancelled(
    cluster: Cluster, transport: str, answers: int
) -> None:
    async with nothing_left():
        cluster.network.passed = {"up": 0, "down": 0}
        opening = asyncio.create_task(
            TursoStorage.open(cluster.url(transport), config=cluster.config(transport))
        )
        await until(lambda: opening.done() or cluster.network.passed["down"] >= answers)
        opening.cancel()
        [ended_as] = await asyncio.gather(opening, return_exceptions=True)
        if isinstance(ended_as, TursoStorage):
            await ended_as.aclose()
        else:
            assert isinstance(ended_as, asyncio.CancelledError)
        cluster.heal()
