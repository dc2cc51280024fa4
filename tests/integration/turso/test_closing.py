"""Closing takes no longer than it may, and leaves nothing, whatever the servers do meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from memory_core.errors import (
    OutcomeUnknownError,
    StorageClosedError,
    StorageUnavailableError,
)
from memory_core.query import Query
from memory_core.records import Heuristic
from memory_core.storage import WriteBatch
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.driver import Statement
from memory_storage_turso.server_config import BreakerConfig, PoolConfig, RetryConfig
from tests.integration.turso.conftest import OpenDriver, create_schema, insert, names
from tests.integration.turso.leaks import nothing_left
from tests.servers.sqld import Sqld
from tests.servers.tcp_proxy import Direction, TcpProxy
from tests.servers.waiting import until

DRAIN = 0.5
#: Saying goodbye to a server that does not answer takes up to a second more.
AT_MOST = DRAIN + 2.5
HASTY = TursoConfig(pool=PoolConfig(drain_timeout=DRAIN))


def rule(text: str) -> Heuristic:
    return Heuristic(condition=text, action="act", confidence=0.5)


async def put(store: Any, text: str) -> Heuristic:
    record = rule(text)
    await store.commit([WriteBatch().put(record)])
    return record


async def work(store: Any, calls: int = 5) -> list[asyncio.Task[Any]]:
    """Writes and reads that are on their way to the server."""
    writer = store._store.writer
    before = writer.figures()["groups"]
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(put(store, "first"))]
    await until(lambda: writer.figures()["groups"] > before)
    tasks += [
        *(asyncio.create_task(put(store, f"{number}")) for number in range(calls)),
        *(asyncio.create_task(store.query(Query(Heuristic))) for _ in range(calls)),
        asyncio.create_task(store.get(Heuristic, [rule("absent").id])),
    ]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks


async def ended(tasks: Sequence[asyncio.Task[Any]]) -> Counter[str]:
    """How they ended: well, or with an error of those that say what became of a call."""
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
        started = time.monotonic()
        await store.aclose()
        assert time.monotonic() - started < AT_MOST
        errors = await ended(tasks)
        # The first write was under way; those behind it were never sent.
        assert errors["OutcomeUnknownError"] >= 1
        assert errors["StorageClosedError"] >= 1
        proxy.heal()
        proxy.cut()


async def test_closing_does_not_wait_for_pauses_between_tries(server: Sqld, transport: str) -> None:
    config = TursoConfig(
        pool=PoolConfig(drain_timeout=DRAIN),
        retry=RetryConfig(initial=30, maximum=60, timeout=600),
        breaker=BreakerConfig(failure_threshold=1, reset_timeout=60, max_reset_timeout=60),
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


async def test_idle_streams_of_a_restarted_server_fail_no_call(
    server: Sqld, transport: str, open_driver: OpenDriver
) -> None:
    from memory_storage_turso.server_config import ServerConfig

    config = ServerConfig(pool=PoolConfig(min_size=32, max_size=32), retry=RetryConfig(attempts=1))
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
