"""Costs of a store on a libSQL server, on loopback, each beside what it is held against.

    python -m benchmarks.server_paths [--quick] [--json] [--only NAME] [--dir FOLDER]

sqld is started for it (``python -m tests.servers.install`` gets it). What counts are the ratios: of
batches and of 64 tasks to single awaited stores, and of single stores and reads to a bare request with
the same bytes on one kept connection. ``distance`` makes round trips longer; ``replicas`` shows which server
answers, and that none answers too old; ``tenants`` compares namespaces in one database with databases of
their own. The episodes are synthetic, 13 kB of 25 steps; small ones have no steps.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import zstandard

from benchmarks import harness
from benchmarks.harness import Turns
from benchmarks.workload import BATCH, TASKS, episode
from memory_core import Episode, Query, WriteBatch
from memory_core.storage import Storage, StorageContext
from memory_storage_turso import TenantStorage, TursoConfig, TursoStorage
from memory_storage_turso.config import TenancyConfig
from tests.servers.sqld import Sqld, running_sqld
from tests.servers.tcp_proxy import running_proxy

TENANTS = 8
_numbers = itertools.count()


def fresh(count: int, steps: int = 25) -> list[Episode]:
    """Episodes that were not stored yet."""
    return [episode(number, steps) for number in itertools.islice(_numbers, count)]


async def stored(storage: Storage, episodes: list[Episode]) -> None:
    """One batch."""
    [result] = await storage.commit([WriteBatch().put(*episodes)])
    if isinstance(result, Exception):
        raise result


async def one_by_one(storage: Storage, episodes: list[Episode]) -> None:
    """Each awaited before the next one is begun."""
    for item in episodes:
        await stored(storage, [item])


class Bare:
    """What has to be done at least: one request a statement, on one kept connection."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.removeprefix('turso+')}/v2/pipeline"
        self._encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
        self._decode = msgspec.msgpack.Decoder(Episode).decode
        self._compress = zstandard.ZstdCompressor(level=3).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._session = aiohttp.ClientSession()

    async def execute(self, sql: str, *args: bytes) -> list[list[dict[str, Any]]]:
        """Run one statement."""
        values = [{"type": "blob", "base64": base64.b64encode(arg).decode()} for arg in args]
        request = {"type": "execute", "stmt": {"sql": sql, "args": values}}
        body = {"requests": [request, {"type": "close"}]}
        async with self._session.post(self._url, data=msgspec.json.encode(body)) as answer:
            results = msgspec.json.decode(await answer.read())["results"]
        if results[0]["type"] != "ok":
            raise RuntimeError(results[0])
        return results[0]["response"]["result"]["rows"]

    async def prepare(self) -> None:
        """Make the table."""
        await self.execute("CREATE TABLE bare (id BLOB PRIMARY KEY, body BLOB)")

    async def store(self, item: Episode) -> None:
        """One record."""
        body = self._compress(self._encode(item))
        await self.execute("INSERT INTO bare VALUES (?, ?)", item.id.bytes, body)

    async def get(self, item: Episode) -> Episode:
        """One record."""
        [[value]] = await self.execute("SELECT body FROM bare WHERE id = ?", item.id.bytes)
        text = value["base64"]
        return self._decode(self._decompress(base64.b64decode(text + "=" * (-len(text) % 4))))

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.close()


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[TursoStorage]:
    """A store with a dictionary, as it is after its first few hundred episodes."""
    storage = await TursoStorage.open(url, config=TursoConfig(**options))
    try:
        await stored(storage, fresh(BATCH))
        yield storage
    finally:
        await storage.aclose()


async def writes(folder: Path, blocks: int, transport: str, steps: int) -> dict[str, float]:
    """Batches of 500 and 64 tasks, against single stores."""
    turns, single, many = Turns(), 64, 10
    units = {"single": single, "batch": BATCH, "tasks": TASKS * many}
    async with running_sqld(folder) as server:
        url = server.http_url if transport == "http" else server.ws_url
        async with opened(url) as storage:
            for _ in range(blocks):
                alone, batch = fresh(single, steps), fresh(BATCH, steps)
                groups = [fresh(many, steps) for _ in range(TASKS)]
                # What the block before has left to be indexed is not what is measured here.
                await storage._shared.pending.index_pending()
                work = {
                    "single": partial(one_by_one, storage, alone),
                    "batch": partial(stored, storage, batch),
                    "tasks": partial(by_tasks, storage, groups),
                }
                await turns.run("writes", work, units)
    rates = {f"{name}_per_second": 1 / each for name, each in turns.typical("writes").items()}
    for name in ("batch", "tasks"):
        rates |= against(f"{name}_to_single", turns.ratio("writes", name, "single"))
    return rates


def against(name: str, found: dict[str, float]) -> dict[str, float]:
    """A ratio with its interval."""
    return {name: found["ratio"], f"{name}_low": found["low"], f"{name}_high": found["high"]}


async def by_tasks(storage: Storage, groups: list[list[Episode]]) -> None:
    """Each group by a task of its own."""
    await asyncio.gather(*map(partial(one_by_one, storage), groups))


async def against_bare(folder: Path, blocks: int) -> dict[str, float]:
    """Single stores and reads over HTTP, against bare requests."""
    turns, size = Turns(), 64
    async with running_sqld(folder) as server, opened(server.http_url) as storage:
        bare = Bare(server.http_url)
        try:
            await bare.prepare()
            for _ in range(blocks):
                items = fresh(size)

                async def bare_stores(items: list[Episode] = items) -> None:
                    for item in items:
                        await bare.store(item)

                async def bare_reads(items: list[Episode] = items) -> None:
                    for item in items:
                        await bare.get(item)

                async def reads(items: list[Episode] = items) -> None:
                    for item in items:
                        await storage.get(Episode, [item.id])

                store = {"bare": bare_stores, "ours": partial(one_by_one, storage, items)}
                await turns.run("store", store, size)
                await turns.run("get", {"bare": bare_reads, "ours": reads}, size)
        finally:
            await bare.aclose()
    found: dict[str, float] = {}
    for path in ("store", "get"):
        typical = turns.typical(path)
        found |= {f"bare_{path}_us": typical["bare"] * 1e6, f"{path}_us": typical["ours"] * 1e6}
        found |= against(f"{path}_ratio", turns.ratio(path, "bare", "ours"))
    return found


async def distance(folder: Path, blocks: int) -> dict[str, float]:
    """What a network's latency does: each round trip through a proxy that holds it back."""
    measured: dict[str, float] = {}
    async with running_sqld(folder) as server, running_proxy(server.port) as proxy:
        url = f"turso+http://127.0.0.1:{proxy.port}"
        async with opened(url) as storage:
            for trip in (0, 10, 40):
                # Held back once on the way there and once on the way back.
                proxy.latency = trip / 2e3
                turns, ids = Turns(), [item.id for item in await _stored_some(storage, 200)]
                for _ in range(blocks):
                    calls = {
                        "one": partial(stored, storage, fresh(1)),
                        "64": partial(by_tasks, storage, [fresh(1) for _ in range(TASKS)]),
                        "get": partial(storage.get, Episode, ids[:1]),
                        "get 200": partial(storage.get, Episode, ids),
                        "page": partial(storage.query, Query(Episode).limit(20)),
                    }
                    await turns.run("calls", calls)
                measured |= {
                    f"{trip} ms, {name}: ms": seconds * 1e3
                    for name, seconds in turns.typical("calls").items()
                }
    return measured


async def _stored_some(storage: Storage, count: int) -> list[Episode]:
    items = fresh(count)
    await stored(storage, items)
    return items


async def replicas(folder: Path, rounds: int) -> dict[str, float]:
    """Reads with a primary alone and with two replicas, while a writer goes on."""
    measured: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(running_sqld(folder / "primary"))
        others = [
            await stack.enter_async_context(
                running_sqld(folder / f"replica{number}", primary_grpc=primary.grpc_port)
            )
            for number in range(2)
        ]
        for count in (0, 2):
            urls = tuple(server.http_url for server in others[:count])
            async with opened(primary.http_url, replicas=urls) as storage:
                measured |= await _reads_beside_writes(storage, rounds, f"{count} replicas")
    return measured


async def _reads_beside_writes(storage: Storage, rounds: int, name: str) -> dict[str, float]:
    items = fresh(200)
    await stored(storage, items)
    turns, stop, stale = Turns(), asyncio.Event(), 0

    async def writer() -> None:
        while not stop.is_set():
            await stored(storage, fresh(1))
            await asyncio.sleep(0.02)

    async def reader(part: list[Episode]) -> None:
        nonlocal stale
        for item in part:
            stale += await storage.get(Episode, [item.id]) != [item]

    async def readers() -> None:
        await asyncio.gather(*(reader(items[start::8]) for start in range(8)))

    writing = asyncio.create_task(writer())
    for _ in range(rounds):
        await turns.run("reads", {"read": readers}, len(items))
    stop.set()
    await writing
    reads: Any = (await storage.stats()).sections["reads"]
    by_replicas = sum(replica["reads"] for replica in reads["replicas"])
    return {
        f"{name}: reads_per_second": 1 / turns.typical("reads")["read"],
        f"{name}: share_of_replicas": by_replicas / max(1, by_replicas + reads["primary_reads"]),
        f"{name}: stale": stale,
    }


async def tenants(folder: Path, blocks: int) -> dict[str, float]:
    """Tenants that write at the same time: in one database, and in databases of their own."""
    turns, many = Turns(), 20
    async with running_sqld(folder, namespaces=True) as server:
        await server.create_namespace("shared")
        async with AsyncExitStack() as stack:
            shared = await stack.enter_async_context(opened(server.http_url, database="shared"))
            apart = await _tenant_storage(server)
            stack.push_async_callback(apart.aclose)
            names = [f"tenant-{number}" for number in range(TENANTS)]
            # Opening them is not what is measured here.
            opening = partial(each_by_one, [apart.scoped(name) for name in names])
            await turns.run("open", {"apart": partial(opening, [fresh(1) for _ in names])}, TENANTS)
            for _ in range(blocks):
                work = [fresh(many) for _ in names]
                places = {"shared": shared, "apart": apart}
                writes = {
                    title: partial(each_by_one, [storage.scoped(name) for name in names], work)
                    for title, storage in places.items()
                }
                await turns.run("writes", writes, TENANTS * many)
    typical = turns.typical("writes")
    return {
        "open_and_first_write_ms": turns.typical("open")["apart"] * 1e3,
        **{f"{name}_per_second": 1 / seconds for name, seconds in typical.items()},
        **against("apart_to_shared", turns.ratio("writes", "apart", "shared")),
    }


async def each_by_one(storages: list[Storage], groups: list[list[Episode]]) -> None:
    """Each group to a storage of its own, at the same time."""
    await asyncio.gather(*map(one_by_one, storages, groups))


async def _tenant_storage(server: Sqld) -> TenantStorage:
    tenancy = TenancyConfig(admin_url=f"http://127.0.0.1:{server.admin_port}")
    config = TursoConfig(database="{namespace}", tenancy=tenancy)
    context = StorageContext(namespace="tenant-0")
    return await TenantStorage.open(server.http_url, config=config, context=context)


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Everything, each in a folder of its own."""
    blocks = 1 if given.quick else 12
    plan: dict[str, Callable[[Path], Awaitable[dict[str, float]]]] = {
        "writes over HTTP": lambda at: writes(at, blocks, "http", 25),
        "small writes over HTTP": lambda at: writes(at, blocks, "http", 0),
        "writes over WebSocket": lambda at: writes(at, blocks, "ws", 25),
        "small writes over WS": lambda at: writes(at, blocks, "ws", 0),
        "beside bare requests": lambda at: against_bare(at, blocks),
        "distance": lambda at: distance(at, blocks),
        "replicas": lambda at: replicas(at, blocks),
        "tenants": lambda at: tenants(at, blocks),
    }
    return {
        name: await run(folder / str(number))
        for number, (name, run) in enumerate(plan.items())
        if harness.wanted(given, name)
    }


if __name__ == "__main__":
    harness.run(measure, harness.parser(__doc__, "quick", "only", "dir").parse_args())
