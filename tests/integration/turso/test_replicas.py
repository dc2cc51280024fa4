"""One primary and two replicas: reads are spread, and never go back in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from memory_core.errors import StorageUnavailableError
from memory_storage_turso.config import (
    BreakerConfig,
    ReplicaConfig,
    RetryConfig,
    TursoConfig,
)
from memory_storage_turso.server import replicas, resilience
from memory_storage_turso.server.driver import ServerDriver
from memory_storage_turso.sql.statement import Statement
from tests.integration.turso.conftest import (
    POSITION,
    OpenDriver,
    create_schema,
    insert,
    names,
)
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import TcpProxy, running_proxy
from tests.servers.waiting import until

CONFIG = TursoConfig(
    breaker=BreakerConfig(failure_threshold=2, reset_timeout=0.1),
    replica=ReplicaConfig(freshness="own", timeout=0.5),
)
#: For replicas that are well: on a busy machine they may take their time.
PATIENT = attrs.evolve(CONFIG, replica=attrs.evolve(CONFIG.replica, timeout=20))
FRESH = attrs.evolve(CONFIG, replica=attrs.evolve(CONFIG.replica, freshness="all"))
COUNT = Statement("SELECT count(*) FROM items")


@pytest.fixture(autouse=True)
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas are looked at often, and a failed one is probed soon."""
    monkeypatch.setattr(replicas, "_CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(resilience, "_LONGEST_RESET", 0.2)


@attrs.define
class Cluster:
    """A primary, its replicas, and the networks the replicas learn of changes through."""

    primary: Sqld
    replicas: list[Sqld]
    links: list[TcpProxy]

    def open(self, open_driver: OpenDriver, config: TursoConfig = CONFIG) -> ServerDriver:
        urls = [replica.http_url for replica in self.replicas]
        return open_driver(self.primary.http_url, replicas=urls, config=config)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(running_sqld(tmp_path / "primary"))
        links = [
            await stack.enter_async_context(running_proxy(primary.grpc_port)) for _ in range(2)
        ]
        replicas = [
            await stack.enter_async_context(
                running_sqld(tmp_path / f"replica{n}", primary_grpc=link.port)
            )
            for n, link in enumerate(links)
        ]
        yield Cluster(primary, replicas, links)


def reads(driver: ServerDriver) -> dict[str, Any]:
    found = driver.stats()["reads"]
    assert isinstance(found, dict)
    return found


async def caught_up(driver: ServerDriver, *replicas: int) -> None:
    """Wait until replicas have all that the driver has seen, and none is passed over any more."""

    def found() -> list[dict[str, Any]]:
        return [reads(driver)["replicas"][replica] for replica in replicas]

    async def no_lag() -> bool:
        before = found()
        await names(driver)
        return all(
            new["state"] == "closed"
            and new["position"]
            and not new["lag"]
            and new["passed_over"] == old["passed_over"]
            for old, new in zip(before, found(), strict=True)
        )

    await until(no_lag)


async def test_reads_are_spread_over_the_replicas(
    cluster: Cluster, open_driver: OpenDriver
) -> None:
    driver = cluster.open(open_driver, PATIENT)
    await create_schema(driver)
    await driver.write([[insert("a")]])
    await caught_up(driver, 0, 1)
    before = reads(driver)
    for _ in range(20):
        assert await names(driver) == ["a"]
    after = reads(driver)
    assert after["primary_reads"] == before["primary_reads"]
    for old, new in zip(before["replicas"], after["replicas"], strict=True):
        assert new["reads"] - old["reads"] >= 8


async def test_own_writes_are_always_read(cluster: Cluster, open_driver: OpenDriver) -> None:
    driver = cluster.open(open_driver)
    await create_schema(driver)
    async with asyncio.timeout(60):
        for number in range(100):
            await driver.write([[insert(f"{number}")]])
            (count,) = await driver.read([COUNT])
            assert count.rows == [(number + 1,)]


async def test_replica_that_is_behind_is_passed_over(
    cluster: Cluster, open_driver: OpenDriver
) -> None:
    driver = cluster.open(open_driver)
    await create_schema(driver)
    await driver.write([[insert("a")]])
    await caught_up(driver, 0, 1)
    for link in cluster.links:
        link.stall("down")
    await driver.write([[insert("b")]])
    for _ in range(10):
        assert await names(driver) == ["a", "b"]
    behind = reads(driver)
    assert [replica["lag"] for replica in behind["replicas"]] == [1, 1]
    assert all(replica["passed_over"] or replica["failures"] for replica in behind["replicas"])
    assert all(replica["lag_seconds"] > 0 for replica in behind["replicas"])
    for link in cluster.links:
        link.resume()
    await caught_up(driver, 0, 1)


async def test_read_waits_for_a_replica_up_to_its_bound(
    cluster: Cluster, open_driver: OpenDriver
) -> None:
    # A replica that hangs for a moment, as one may that is cut off, is waited for as well.
    patient = attrs.evolve(
        CONFIG,
        replica=attrs.evolve(CONFIG.replica, max_wait=60),
        breaker=BreakerConfig(failure_threshold=10_000),
    )
    driver = cluster.open(open_driver, patient)
    await create_schema(driver)
    await driver.write([[insert("a")]])
    await caught_up(driver, 0, 1)
    for link in cluster.links:
        link.stall("down")
    await driver.write([[insert("b")]])
    primary_reads = reads(driver)["primary_reads"]
    reading = asyncio.ensure_future(names(driver))
    await until(lambda: reads(driver)["waits"] >= 3)
    cluster.links[1].resume()
    assert await reading == ["a", "b"]
    assert reads(driver)["primary_reads"] == primary_reads


async def test_no_client_reads_back_in_time(cluster: Cluster, open_driver: OpenDriver) -> None:
    writer, reader = cluster.open(open_driver), cluster.open(open_driver)
    await create_schema(writer)
    reader.use_position(POSITION)
    done = False

    async def read() -> int:
        newest = 0
        while not done:
            (count,) = await reader.read([COUNT])
            seen = count.rows[0][0]
            assert isinstance(seen, int)
            assert seen >= newest
            newest = seen
        return newest

    readers = [asyncio.ensure_future(read()) for _ in range(3)]
    for number in range(60):
        if number % 10 == 0:
            for turn, link in enumerate(cluster.links):
                link.latency = 0.02 if (number // 10 + turn) % 2 else 0.0
        await writer.write([[insert(f"{number}")]])
    # They have gone to replicas, too.
    await until(lambda: sum(replica["reads"] for replica in reads(reader)["replicas"]) > 0)
    done = True
    assert await asyncio.gather(*readers)


async def test_replica_is_killed_and_comes_back_under_load(
    cluster: Cluster, open_driver: OpenDriver
) -> None:
    driver = cluster.open(open_driver)
    await create_schema(driver)
    await driver.write([[insert("first")]])
    await caught_up(driver, 0)
    done = False
    written = 1

    async def write() -> None:
        nonlocal written
        while not done:
            await driver.write([[insert(f"{written}")]])
            written += 1

    async def read() -> None:
        while not done:
            floor = written
            (count,) = await driver.read([COUNT])
            seen = count.rows[0][0]
            assert isinstance(seen, int)
            assert seen >= floor

    tasks = [asyncio.ensure_future(task) for task in (write(), read(), read())]
    await asyncio.sleep(0.3)
    await cluster.replicas[0].kill()
    await until(lambda: reads(driver)["replicas"][0]["state"] != "closed")
    await cluster.replicas[0].start()
    await until(lambda: reads(driver)["replicas"][0]["state"] == "closed")
    before = reads(driver)["replicas"][0]["reads"]
    await until(lambda: reads(driver)["replicas"][0]["reads"] >= before + 5)
    done = True
    await asyncio.gather(*tasks)
    assert len(await names(driver)) == written


async def test_reads_survive_the_primary(cluster: Cluster, open_driver: OpenDriver) -> None:
    driver = cluster.open(open_driver)
    await create_schema(driver)
    await driver.write([[insert("a")]])
    await caught_up(driver, 0, 1)
    await cluster.primary.kill()
    for _ in range(10):
        assert await names(driver) == ["a"]
    await cluster.primary.start()
    await driver.write([[insert("b")]])
    assert await names(driver) == ["a", "b"]


async def test_fresh_reads_see_what_others_have_written(
    cluster: Cluster, open_driver: OpenDriver
) -> None:
    writer, reader = cluster.open(open_driver, FRESH), cluster.open(open_driver, FRESH)
    await create_schema(writer)
    reader.use_position(POSITION)
    for number in range(60):
        await writer.write([[insert(f"{number}")]])
        (count,) = await reader.read([COUNT])
        assert count.rows == [(number + 1,)]
        if number % 20 == 0:
            await caught_up(reader, 0, 1)
    assert sum(replica["reads"] for replica in reads(reader)["replicas"]) > 0


async def test_reads_that_wait_together_ask_the_primary_once(
    cluster: Cluster, open_driver: OpenDriver
) -> None:
    driver = cluster.open(open_driver, FRESH)
    await create_schema(driver)
    await driver.write([[insert("a")]])
    await caught_up(driver, 0, 1)
    before = reads(driver)["position_inquiries"]
    await asyncio.gather(*(driver.read([COUNT]) for _ in range(100)))
    assert reads(driver)["position_inquiries"] - before <= 20


async def test_new_client_sees_what_was_there_before_it_came(
    cluster: Cluster, open_driver: OpenDriver
) -> None:
    writer = cluster.open(open_driver)
    await create_schema(writer)
    await writer.write([[insert("a")]])
    await caught_up(writer, 0, 1)
    for link in cluster.links:
        link.stall("down")
    await writer.write([[insert("b")]])
    late = cluster.open(open_driver)
    late.use_position(POSITION)
    assert await names(late) == ["a", "b"]
    assert await names(late) == ["a", "b"]


async def test_fresh_reads_need_the_primary(cluster: Cluster, open_driver: OpenDriver) -> None:
    impatient = attrs.evolve(FRESH, retry=RetryConfig(attempts=2))
    driver = cluster.open(open_driver, impatient)
    await create_schema(driver)
    await driver.write([[insert("a")]])
    await caught_up(driver, 0, 1)
    await cluster.primary.kill()
    with pytest.raises(StorageUnavailableError):
        await names(driver)
    await cluster.primary.start()
    assert await names(cluster.open(open_driver)) == ["a"]
