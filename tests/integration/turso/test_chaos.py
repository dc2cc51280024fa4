"""Writers and readers go on while servers die and the network breaks.

How long: ``MEMORY_CORE_CHAOS_SECONDS``, by default 30 s where ``CI=true`` and 8 s elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import AsyncExitStack
from pathlib import Path

import attrs
import pytest

from memory_core.errors import OutcomeUnknownError, StorageUnavailableError
from memory_storage_turso.driver import Statement
from memory_storage_turso.server_config import (
    BreakerConfig,
    ReplicaConfig,
    RetryConfig,
    ServerConfig,
    ServerLimits,
)
from memory_storage_turso.server_driver import ServerDriver, open_server_driver
from tests.integration.turso.conftest import POSITION, create_schema, insert
from tests.integration.turso.leaks import nothing_left
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import TcpProxy, running_proxy

SECONDS = float(
    os.environ.get("MEMORY_CORE_CHAOS_SECONDS", "30" if os.environ.get("CI") == "true" else "8")
)
CONFIG = ServerConfig(
    limits=ServerLimits(request_timeout=2.0, connect_timeout=1.0),
    retry=RetryConfig(initial=0.02, maximum=0.3, timeout=4.0, resolve_timeout=8.0),
    breaker=BreakerConfig(reset_timeout=0.1, max_reset_timeout=0.5),
    replica=ReplicaConfig(timeout=0.5, check_interval=0.2),
)
_CALM = 1.5
FAULTS = ("kill", "cut", "reset", "delay", "throttle", "stall up", "stall down", "replica", "lag")


@attrs.define
class Scene:
    """The servers, and the networks between them."""

    primary: Sqld
    network: TcpProxy
    replica: Sqld
    link: TcpProxy
    faults: int = 0

    async def break_something(self, fault: str, seconds: float) -> None:
        """Break one thing for a while, then put it right."""
        self.faults += 1
        if fault == "kill":
            await self.primary.kill()
            await asyncio.sleep(seconds / 2)
            await self.primary.start()
        elif fault == "replica":
            await self.replica.kill()
            await asyncio.sleep(seconds)
            await self.replica.start()
        elif fault in ("cut", "reset"):
            self.network.cut(reset=fault == "reset")
        else:
            await self._disturb(fault, seconds)

    async def _disturb(self, fault: str, seconds: float) -> None:
        if fault == "delay":
            self.network.latency = 0.05
        elif fault == "throttle":
            self.network.bytes_per_second = 50_000
        elif fault == "lag":
            self.link.stall("down")
        else:
            self.network.stall("up" if fault == "stall up" else "down")
        await asyncio.sleep(seconds)
        self.link.heal()
        self.network.heal()


@attrs.define
class Ledger:
    """What became of every write, as its caller was told."""

    acknowledged: set[str] = attrs.Factory(set)
    refused: set[str] = attrs.Factory(set)
    unknown: set[str] = attrs.Factory(set)
    at: list[float] = attrs.Factory(list)

    def rate(self, start: float, end: float) -> float:
        """Acknowledged writes a second."""
        return sum(start <= moment < end for moment in self.at) / (end - start)


async def write(driver: ServerDriver, ledger: Ledger, writer: int, stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        name = f"{writer}-{number}"
        number += 1
        try:
            outcome = await driver.write([[insert(f"{name}-a"), insert(f"{name}-b")]], [POSITION])
        except OutcomeUnknownError:
            ledger.unknown.add(name)
        except StorageUnavailableError:
            ledger.refused.add(name)
        else:
            assert isinstance(outcome.results[0], list)
            ledger.acknowledged.add(name)
            ledger.at.append(time.monotonic())


async def read(driver: ServerDriver, ledger: Ledger, stop: asyncio.Event) -> int:
    newest = reads = 0
    while not stop.is_set():
        floor = 2 * len(ledger.acknowledged)
        try:
            (count,) = await driver.read([Statement("SELECT count(*) FROM items")])
        except StorageUnavailableError:
            continue
        seen = count.rows[0][0]
        assert isinstance(seen, int)
        assert seen >= max(newest, floor), "a read went back in time"
        assert seen % 2 == 0, "half a batch was there"
        newest = seen
        reads += 1
    return reads


async def stage(stack: AsyncExitStack, folder: Path) -> Scene:
    primary = await stack.enter_async_context(running_sqld(folder / "primary"))
    link = await stack.enter_async_context(running_proxy(primary.grpc_port))
    replica = await stack.enter_async_context(
        running_sqld(folder / "replica", primary_grpc=link.port)
    )
    network = await stack.enter_async_context(running_proxy(primary.port))
    return Scene(primary, network, replica, link)


async def check(driver: ServerDriver, ledger: Ledger) -> None:
    (result,) = await driver.read([Statement("SELECT name FROM items")])
    halves = [str(row[0]) for row in result.rows]
    assert len(halves) == len(set(halves))
    there = {half.removesuffix("-a") for half in halves if half.endswith("-a")}
    assert there == {half.removesuffix("-b") for half in halves if half.endswith("-b")}
    assert ledger.acknowledged <= there, "an acknowledged write was lost"
    assert not ledger.refused & there, "a write was applied that was said not to be"
    assert there <= ledger.acknowledged | ledger.unknown


async def play(scene: Scene, driver: ServerDriver, seed: int) -> Ledger:
    ledger, stop = Ledger(), asyncio.Event()
    chance = random.Random(seed)
    async with asyncio.TaskGroup() as group:
        for writer in range(4):
            group.create_task(write(driver, ledger, writer, stop))
        readers = [group.create_task(read(driver, ledger, stop)) for _ in range(3)]
        started = time.monotonic()
        await asyncio.sleep(_CALM)
        before = ledger.rate(started, time.monotonic())
        order = list(FAULTS)
        chance.shuffle(order)
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            await scene.break_something(order[scene.faults % len(order)], chance.uniform(0.2, 1.2))
            await asyncio.sleep(chance.uniform(0.0, 0.3))
        await asyncio.sleep(1.0)
        healed = time.monotonic()
        await asyncio.sleep(_CALM)
        after = ledger.rate(healed, time.monotonic())
        stop.set()
    assert all(reader.result() for reader in readers)
    assert after > before / 3, f"{before:.0f} writes a second before, {after:.0f} after"
    return ledger


@pytest.mark.timeout(SECONDS * 3 + 120)
@pytest.mark.parametrize("transport", ["http", "ws"])
async def test_nothing_is_lost_in_chaos(tmp_path: Path, transport: str) -> None:
    async with nothing_left(), AsyncExitStack() as stack:
        scene = await stage(stack, tmp_path)
        driver = open_server_driver(
            f"turso+{transport}://127.0.0.1:{scene.network.port}",
            replicas=[scene.replica.http_url],
            config=CONFIG,
            environ={},
        )
        stack.push_async_callback(driver.aclose)
        await create_schema(driver)
        ledger = await play(scene, driver, seed=int(SECONDS))
        await check(driver, ledger)
        assert scene.faults > 3
        assert len(ledger.acknowledged) > 100
