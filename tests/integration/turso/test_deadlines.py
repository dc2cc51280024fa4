"""Calls end in bounded time, whatever the servers do, and fail at once where they cannot succeed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import attrs
import pytest

from memory_core.errors import OutcomeUnknownError, StorageUnavailableError
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import WriteBatch
from memory_storage_turso import TursoConfig, TursoStorage
from memory_storage_turso.config import BreakerConfig, ReplicaConfig, RetryConfig, ServerLimits
from memory_storage_turso.server.resilience import CircuitOpenError
from tests.integration.turso.conftest import (
    POSITION,
    BreakerClock,
    OpenDriver,
    create_schema,
    insert,
)
from tests.servers.sqld import Sqld, running_sqld

pytestmark = pytest.mark.slow

TIMEOUT, RESOLVING = 3.0, 2.0
#: Ten per cent, and what a busy machine takes to get to it.
SLACK = 0.6
CONFIG = TursoConfig(
    limits=ServerLimits(request_timeout=TIMEOUT),
    retry=RetryConfig(timeout=2.0, resolve_timeout=RESOLVING),
    breaker=BreakerConfig(failure_threshold=1000),
)


async def put(store: TursoStorage) -> None:
    [result] = await store.commit([WriteBatch().put(Episode(task_description="x"))])
    if isinstance(result, Exception):
        raise result


async def how_long(call: Awaitable[Any]) -> tuple[type[BaseException] | None, float]:
    started = time.monotonic()
    [ended] = await asyncio.gather(call, return_exceptions=True)
    kind = type(ended) if isinstance(ended, BaseException) else None
    return kind, time.monotonic() - started


@pytest.fixture
def url(server: Sqld, transport: str) -> str:
    return server.http_url if transport == "http" else server.ws_url


async def test_every_call_to_a_hung_server_ends_in_time(server: Sqld, url: str) -> None:
    store = await TursoStorage.open(url, config=CONFIG)
    await put(store)
    server.freeze()
    try:
        reading = how_long(store.count(Query(Episode)))
        opening = how_long(TursoStorage.open(url, config=CONFIG))
        first, behind = asyncio.create_task(how_long(put(store))), how_long(_later(store))
        read, opened, written, queued = await asyncio.gather(reading, opening, first, behind)
    finally:
        server.thaw()
    for kind, took in (read, opened):
        assert kind is not None
        assert issubclass(kind, StorageUnavailableError)
        assert took < TIMEOUT + SLACK
    # Where it needed a new connection, nothing was sent.
    assert written[0] is not None
    assert issubclass(written[0], OutcomeUnknownError | StorageUnavailableError)
    assert written[1] < TIMEOUT + RESOLVING + SLACK
    # It waits behind the first, is withdrawn after its own time, and was certainly not applied.
    assert queued[0] is not None
    assert issubclass(queued[0], StorageUnavailableError)
    assert queued[1] < TIMEOUT + SLACK
    await put(store)
    assert await store.count(Query(Episode)) <= 3
    await store.aclose()


async def _later(store: TursoStorage) -> None:
    while store._shared.writer.stats()["groups"] < 2:
        await asyncio.sleep(0.01)
    await put(store)


@pytest.mark.parametrize("freshness", ["all", "own"])
async def test_a_read_through_a_replica_of_a_hung_primary_ends_in_time(
    server: Sqld, tmp_path: Path, freshness: Any
) -> None:
    async with running_sqld(tmp_path / "replica", primary_grpc=server.grpc_port) as replica:
        config = attrs.evolve(
            CONFIG,
            replicas=(replica.http_url,),
            replica=ReplicaConfig(freshness=freshness, timeout=1.0),
        )
        store = await TursoStorage.open(server.http_url, config=config)
        await put(store)
        reads: Any = store._shared.driver.stats
        while not reads()["reads"]["replicas"][0]["position"]:
            await store.count(Query(Episode))
        server.freeze()
        try:
            kind, took = await how_long(store.count(Query(Episode)))
        finally:
            server.thaw()
        # With "own" the replica answers, unless it asks its hung primary itself.
        assert kind is None or issubclass(kind, StorageUnavailableError)
        assert kind is not None or freshness == "own"
        assert took < TIMEOUT + SLACK
        await store.aclose()


async def test_a_call_that_cannot_succeed_fails_at_once_with_the_reason(
    server: Sqld, url: str, open_driver: OpenDriver
) -> None:
    breaker = BreakerConfig(failure_threshold=1, reset_timeout=5.0, max_wait=1.0)
    driver = open_driver(url, config=TursoConfig(breaker=breaker))
    clock = BreakerClock(driver)
    await create_schema(driver)
    await server.kill()
    with pytest.raises(StorageUnavailableError):
        await driver.read([POSITION])
    assert driver._primary.breaker.state == "open"
    for call in (driver.read([POSITION]), driver.write([[insert("a")]])):
        started = time.monotonic()
        with pytest.raises(
            CircuitOpenError, match=r"kept failing \(.*(onnect|was closed)"
        ) as caught:
            await call
        assert time.monotonic() - started < 1.0
        assert caught.value.retry_after > breaker.max_wait
        assert caught.value.__cause__ is not None
        assert str(caught.value.__cause__) in str(caught.value)
    # Half a second before the next probe it is worth waiting for.
    clock.now += 4.5
    writing = asyncio.create_task(driver.write([[insert("a")]]))
    await server.start()
    clock.now += 1.0
    await writing


async def test_closing_waits_for_no_probe(server: Sqld, url: str) -> None:
    """The index entries that are still pending are left to the next process."""
    breaker = BreakerConfig(failure_threshold=1, reset_timeout=5.0, max_wait=60.0)
    config = TursoConfig(breaker=breaker, retry=RetryConfig(timeout=60.0))
    store = await TursoStorage.open(url, config=config)
    await put(store)
    await server.kill()
    waiting = asyncio.create_task(how_long(put(store)))
    while store._shared.driver.stats()["breaker"]["state"] != "open":  # pyright: ignore[reportIndexIssue] - a mapping
        await asyncio.sleep(0.01)
    started = time.monotonic()
    await store.aclose()
    assert time.monotonic() - started < 2.5
    kind, _ = await waiting
    # Over WebSocket the connection was there, and may have carried the write.
    assert kind is not None
    assert issubclass(kind, StorageUnavailableError | OutcomeUnknownError)
