"""Writers and readers go on while servers die and the network breaks.

How long: ``MEMORY_CORE_CHAOS_SECONDS``, by default 30 s where ``CI=true`` and 8 s elsewhere; the long
variant takes five minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import attrs
import pytest

from memory_core import Episode, Memory, Query, Relationship, WriteBatch, open_memory
from memory_core.errors import OutcomeUnknownError, StorageUnavailableError
from memory_storage_turso.server import replicas, resilience
from tests.integration.turso.leaks import nothing_left
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import TcpProxy, running_proxy
from tests.servers.waiting import until

pytestmark = pytest.mark.slow

SECONDS = float(
    os.environ.get("MEMORY_CORE_CHAOS_SECONDS", "30" if os.environ.get("CI") == "true" else "8")
)
LONG = 300.0
OPTIONS = {
    "limits.request_timeout": 2.0,
    "retry.timeout": 4.0,
    "retry.resolve_timeout": 8.0,
    "breaker.reset_timeout": 0.1,
    "replica.timeout": 0.5,
}
WRITERS = 6
_CALM = 1.5
FAULTS = (
    "kill", "freeze", "cut", "reset", "delay", "throttle", "stall up", "stall down", "replica", "lag",
)  # fmt: skip


@attrs.define
class Scene:
    """The servers, and the networks between them."""

    primary: Sqld
    network: TcpProxy
    replicas: list[Sqld]
    links: list[TcpProxy]
    chance: random.Random
    faults: int = 0

    async def break_something(self, fault: str, seconds: float) -> None:
        """Break one thing for a while, then put it right."""
        self.faults += 1
        if fault == "kill":
            await self.primary.kill()
            await asyncio.sleep(seconds / 2)
            await self.primary.start()
        elif fault == "replica":
            replica = self.chance.choice(self.replicas)
            await replica.kill()
            await asyncio.sleep(seconds)
            await replica.start()
        elif fault in ("cut", "reset"):
            self.network.cut(reset=fault == "reset")
        else:
            await self._disturb(fault, seconds)

    async def _disturb(self, fault: str, seconds: float) -> None:
        link = self.chance.choice(self.links)
        match fault:
            case "freeze":
                self.primary.freeze()
            case "delay":
                self.network.latency = 0.05
            case "throttle":
                self.network.bytes_per_second = 50_000
            case "lag":
                link.stall("down")
            case _:
                self.network.stall("up" if fault == "stall up" else "down")
        await asyncio.sleep(seconds)
        self.primary.thaw()
        link.heal()
        self.network.heal()


@attrs.frozen
class Batch:
    """Two episodes and the relationship between them, written together."""

    name: str
    first: UUID
    second: UUID


def text(name: str, half: str) -> str:
    """What an episode says: long enough to be compressed, and like no other."""
    chance = random.Random(name + half)
    words = (f"step {chance.randrange(1000)} of the plan" for _ in range(20))
    return f"{name}{half}: " + ", ".join(words)


def made(name: str) -> tuple[Batch, WriteBatch]:
    first, second = (
        Episode(task_description=text(name, half), metadata={"batch": name}) for half in "ab"
    )
    follows = Relationship(
        from_episode_id=second.id, to_episode_id=first.id, relationship_type="follows"
    )
    batch = WriteBatch().put(first).put(second).put(follows)
    return Batch(name, first.id, second.id), batch


@attrs.define
class Ledger:
    """What became of every write, as its caller was told."""

    acknowledged: dict[str, Batch] = attrs.Factory(dict)
    refused: set[str] = attrs.Factory(set)
    unknown: dict[str, Batch] = attrs.Factory(dict)
    at: list[float] = attrs.Factory(list)
    latest: list[Batch] = attrs.Factory(list)
    reads: int = 0
    reads_refused: int = 0
    before: float = 0.0
    after: float = 0.0

    def rate(self, start: float, end: float) -> float:
        """Acknowledged batches a second."""
        return sum(start <= moment < end for moment in self.at) / (end - start)

    def __str__(self) -> str:
        return (
            f"{len(self.acknowledged)} batches acknowledged, {len(self.unknown)} unknown, "
            f"{len(self.refused)} refused; {self.reads} reads, {self.reads_refused} refused; "
            f"{self.before:.0f} batches a second before, {self.after:.0f} after"
        )


async def write(memory: Memory, ledger: Ledger, writer: int, stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        written, batch = made(f"{writer}-{number}")
        number += 1
        try:
            await memory.write(batch)
        except OutcomeUnknownError:
            ledger.unknown[written.name] = written
        except StorageUnavailableError:
            ledger.refused.add(written.name)
        else:
            ledger.acknowledged[written.name] = written
            ledger.latest = [*ledger.latest[-50:], written]
            ledger.at.append(time.monotonic())


async def read(memory: Memory, ledger: Ledger, stop: asyncio.Event, chance: random.Random) -> None:
    newest = 0
    looks = (look_up, look_for, look_at_unknown)
    while not stop.is_set():
        try:
            # A count takes longer with every record there is.
            if chance.random() < 0.05:
                newest = await count(memory, ledger, newest)
            elif ledger.latest:
                await chance.choice(looks)(memory, ledger, chance)
            else:
                await asyncio.sleep(0.01)
        except StorageUnavailableError:
            ledger.reads_refused += 1
        else:
            ledger.reads += 1


async def count(memory: Memory, ledger: Ledger, newest: int) -> int:
    floor = 2 * len(ledger.acknowledged)
    seen = await memory.count_episodes()
    assert seen >= max(newest, floor), "a read went back in time"
    assert seen % 2 == 0, "half a batch was there"
    return seen


async def look_up(memory: Memory, ledger: Ledger, chance: random.Random) -> None:
    batch = chance.choice(ledger.latest)
    found = await memory.get_episodes_batch([batch.first, batch.second])
    told = [episode and episode.task_description for episode in found]
    assert told == [text(batch.name, half) for half in "ab"], "an acknowledged write was not there"


async def look_for(memory: Memory, ledger: Ledger, chance: random.Random) -> None:
    batch = chance.choice(ledger.latest)
    page = await memory.query_episodes(Query(Episode).where(metadata=f"batch={batch.name}"))
    assert {episode.id for episode in page} == {batch.first, batch.second}
    edges = await memory.query(Query(Relationship).where(from_episode_id=batch.second))
    assert [edge.to_episode_id for edge in edges] == [batch.first]


async def look_at_unknown(memory: Memory, ledger: Ledger, chance: random.Random) -> None:
    batch = chance.choice([*ledger.unknown.values(), *ledger.latest])
    first, second = await memory.get_episodes_batch([batch.first, batch.second])
    assert (first is None) == (second is None), "half a batch was there"


async def stage(stack: AsyncExitStack, folder: Path, seed: int) -> Scene:
    primary = await stack.enter_async_context(running_sqld(folder / "primary"))
    links = [await stack.enter_async_context(running_proxy(primary.grpc_port)) for _ in range(2)]
    replicas = [
        await stack.enter_async_context(
            running_sqld(folder / f"replica{number}", primary_grpc=link.port)
        )
        for number, link in enumerate(links)
    ]
    network = await stack.enter_async_context(running_proxy(primary.port))
    return Scene(primary, network, replicas, links, random.Random(seed))


async def check(memory: Memory, ledger: Ledger) -> None:
    """Everything acknowledged is there, whole, and nothing else but what is unknown."""
    known = {**ledger.acknowledged, **ledger.unknown}
    halves: dict[str, set[UUID]] = {}
    async for episode in memory.iter_episodes():
        name = episode.metadata["batch"]
        assert episode.task_description in (text(name, "a"), text(name, "b"))
        halves.setdefault(name, set()).add(episode.id)
    there = set(halves)
    assert ledger.acknowledged.keys() <= there, "an acknowledged write was lost"
    assert not ledger.refused & there, "a write was applied that was said not to be"
    assert there <= known.keys()
    edges = {edge.from_episode_id: edge.to_episode_id async for edge in every_edge(memory)}
    assert len(edges) == len(there)
    for name, ids in halves.items():
        assert ids == {known[name].first, known[name].second}, "half a batch is there"
        assert edges[known[name].second] == known[name].first


async def every_edge(memory: Memory):
    query = Query(Relationship).limit(1000)
    while True:
        page = await memory.query(query)
        for edge in page:
            yield edge
        if page.next_cursor is None:
            return
        query = query.after(page.next_cursor)


async def is_back(memory: Memory, ledger: Ledger) -> bool:
    """Whether writers have found their pace again, and everybody has had a part in it."""
    started = time.monotonic()
    await asyncio.sleep(_CALM)
    ledger.after = ledger.rate(started, time.monotonic())
    sections = (await memory.stats()).sections
    return (
        ledger.after > ledger.before / 3
        and len(ledger.acknowledged) > 100
        and ledger.reads > 100
        and sections["compression"]["dictionaries"] >= 1
        and all(replica["reads"] for replica in sections["reads"]["replicas"])
    )


async def play(scene: Scene, memory: Memory, seconds: float) -> Ledger:
    ledger, stop = Ledger(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(write(memory, ledger, writer, stop))
        for reader in range(4):
            group.create_task(read(memory, ledger, stop, random.Random(reader)))
        started = time.monotonic()
        await asyncio.sleep(_CALM)
        ledger.before = ledger.rate(started, time.monotonic())
        order = list(FAULTS)
        ends = time.monotonic() + seconds
        # Where servers take long to come back, a few faults all the same.
        while time.monotonic() < ends or scene.faults <= 3:
            if scene.faults % len(order) == 0:
                scene.chance.shuffle(order)
            fault = order[scene.faults % len(order)]
            await scene.break_something(fault, scene.chance.uniform(0.2, 1.2))
            await asyncio.sleep(scene.chance.uniform(0.0, 0.3))
        # How soon all is as before is a matter of the machine; that it will be is not.
        with contextlib.suppress(TimeoutError):
            await until(lambda: is_back(memory, ledger), within=60)
        stop.set()
    return ledger


async def chaos(folder: Path, transport: str, freshness: str, seconds: float) -> None:
    async with nothing_left(), AsyncExitStack() as stack:
        scene = await stage(stack, folder, seed=int(seconds))
        urls = [r.http_url if transport == "http" else r.ws_url for r in scene.replicas]
        memory = await stack.enter_async_context(
            open_memory(
                f"turso+{transport}://127.0.0.1:{scene.network.port}",
                options={**OPTIONS, "replicas": urls, "replica.freshness": freshness},
            )
        )
        ledger = await play(scene, memory, seconds)
        sys.stdout.write(f"\n{transport}, {seconds:g} s, {scene.faults} faults: {ledger}\n")
        await check(memory, ledger)
        stats = await memory.stats()
        compression = stats.sections["compression"]
        assert compression["dictionaries"] >= 1
        assert all(replica["reads"] for replica in stats.sections["reads"]["replicas"])
        assert scene.faults > 3
        assert len(ledger.acknowledged) > 100
        assert ledger.reads > 100
        assert ledger.after > ledger.before / 3, str(ledger)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed servers are probed soon, so that there are many faults a minute."""
    monkeypatch.setattr(replicas, "_CHECK_INTERVAL", 0.2)
    monkeypatch.setattr(resilience, "_LONGEST_RESET", 0.5)
    monkeypatch.setattr(resilience, "_LONGEST_PAUSE", 0.3)


TRANSPORTS = pytest.mark.parametrize(("transport", "freshness"), [("http", "all"), ("ws", "own")])


@pytest.mark.timeout(SECONDS * 3 + 120)
@TRANSPORTS
async def test_nothing_is_lost_in_chaos(tmp_path: Path, transport: str, freshness: str) -> None:
    await chaos(tmp_path, transport, freshness, SECONDS)


@pytest.mark.long
@pytest.mark.timeout(LONG * 3)
@TRANSPORTS
async def test_nothing_is_lost_in_minutes_of_chaos(
    tmp_path: Path, transport: str, freshness: str
) -> None:
    await chaos(tmp_path, transport, freshness, LONG)
