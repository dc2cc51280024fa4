"""Costs of a store on a libSQL server, on loopback, each beside what it is held against.

    python -m benchmarks.server_paths [--quick] [--json] [--only NAME] [--dir FOLDER]

sqld is started for it (``python -m tests.servers.install`` gets it). What counts are the ratios: of
batches and of 64 tasks to single awaited stores, and of single stores and reads to a bare request with
the same bytes on one kept connection. ``distance`` makes round trips longer; ``replicas`` shows which server
answers, and that none answers too old; ``tenants`` compares namespaces in one database with databases of
their own. The episodes are synthetic, 13 kB of 25 steps; small ones have no steps.
"""

from __future__ import annotations

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

from benchmarks.workload import BATCH, TASKS, Clock, episode, report
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
    clock = Clock()
    single, many = 64, 10
    async with running_sqld(folder) as server:
        url = server.http_url if transport == "http" else server.ws_url
        async with opened(url) as storage:
            for _ in range(blocks):
                alone, batch = fresh(single, steps), fresh(BATCH, steps)
                groups = [fresh(many, steps) for _ in range(TASKS)]
                # What the block before has left to be indexed is not what is measured here.
                await storage._shared.pending.index_pending()
                await clock.run("single", partial(one_by_one, storage, alone))
                await clock.run("batch", partial(stored, storage, batch))
                await clock.run(
                    "tasks",
                    lambda work=groups: asyncio.gather(*map(partial(one_by_one, storage), work)),
                )
    rates = {
        "single_per_second": single * blocks / clock.total("single"),
        "batch_per_second": BATCH * blocks / clock.total("batch"),
        "tasks_per_second": TASKS * many * blocks / clock.total("tasks"),
    }
    return {
        **rates,
        "batch_to_single": rates["batch_per_second"] / rates["single_per_second"],
        "tasks_to_single": rates["tasks_per_second"] / rates["single_per_second"],
    }


async def against_bare(folder: Path, blocks: int) -> dict[str, float]:
    """Single stores and reads over HTTP, against bare requests."""
    clock, size = Clock(), 64
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

                await clock.run("bare store", bare_stores)
                await clock.run("store", partial(one_by_one, storage, items))
                await clock.run("bare get", bare_reads)
                await clock.run("get", reads)
        finally:
            await bare.aclose()
    each = size * blocks / 1e6
    return {
        "bare_store_us": clock.total("bare store") / each,
        "store_us": clock.total("store") / each,
        "store_ratio": clock.total("store") / clock.total("bare store"),
        "bare_get_us": clock.total("bare get") / each,
        "get_us": clock.total("get") / each,
        "get_ratio": clock.total("get") / clock.total("bare get"),
    }


async def distance(folder: Path, blocks: int) -> dict[str, float]:
    """What a network's latency does: each round trip through a proxy that holds it back."""
    measured: dict[str, float] = {}
    async with running_sqld(folder) as server, running_proxy(server.port) as proxy:
        url = f"turso+http://127.0.0.1:{proxy.port}"
        async with opened(url) as storage:
            for trip in (0, 10, 40):
                # Held back once on the way there and once on the way back.
                proxy.latency = trip / 2e3
                clock, ids = Clock(), [item.id for item in await _stored_some(storage, 200)]
                for _ in range(blocks):
                    await clock.run("one", partial(stored, storage, fresh(1)))
                    alone = [fresh(1) for _ in range(TASKS)]
                    await clock.run(
                        "64",
                        lambda work=alone: asyncio.gather(*map(partial(stored, storage), work)),
                    )
                    await clock.run("get", lambda ids=ids: storage.get(Episode, ids[:1]))
                    await clock.run("get 200", lambda ids=ids: storage.get(Episode, ids))
                    await clock.run("page", lambda: storage.query(Query(Episode).limit(20)))
                measured |= {
                    f"{trip} ms, {name}: ms": clock.typical(name) * 1e3
                    for name in ("one", "64", "get", "get 200", "page")
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
    clock, stop, stale = Clock(), asyncio.Event(), 0

    async def writer() -> None:
        while not stop.is_set():
            await stored(storage, fresh(1))
            await asyncio.sleep(0.02)

    async def reader(part: list[Episode]) -> None:
        nonlocal stale
        for item in part:
            stale += await storage.get(Episode, [item.id]) != [item]

    writing = asyncio.create_task(writer())
    for _ in range(rounds):
        await clock.run(
            "read", lambda: asyncio.gather(*(reader(items[start::8]) for start in range(8)))
        )
    stop.set()
    await writing
    reads: Any = (await storage.stats()).sections["reads"]
    by_replicas = sum(replica["reads"] for replica in reads["replicas"])
    return {
        f"{name}: reads_per_second": len(items) * rounds / clock.total("read"),
        f"{name}: share_of_replicas": by_replicas / max(1, by_replicas + reads["primary_reads"]),
        f"{name}: stale": stale,
    }


async def tenants(folder: Path, blocks: int) -> dict[str, float]:
    """Tenants that write at the same time: in one database, and in databases of their own."""
    clock, many = Clock(), 20
    async with running_sqld(folder, namespaces=True) as server:
        await server.create_namespace("shared")
        async with AsyncExitStack() as stack:
            shared = await stack.enter_async_context(opened(server.http_url, database="shared"))
            apart = await _tenant_storage(server)
            stack.push_async_callback(apart.aclose)
            names = [f"tenant-{number}" for number in range(TENANTS)]
            # Opening them is not what is measured here.
            await clock.run(
                "open",
                lambda: asyncio.gather(*(stored(apart.scoped(name), fresh(1)) for name in names)),
            )
            for _ in range(blocks):
                work = [fresh(many) for _ in names]
                for title, storage in (("shared", shared), ("apart", apart)):
                    handles = [storage.scoped(name) for name in names]
                    await clock.run(
                        title,
                        lambda handles=handles, work=work: asyncio.gather(
                            *map(one_by_one, handles, work)
                        ),
                    )
    each = TENANTS * many * blocks
    return {
        "open_and_first_write_ms": clock.total("open") / TENANTS * 1e3,
        "shared_per_second": each / clock.total("shared"),
        "apart_per_second": each / clock.total("apart"),
        "apart_to_shared": clock.total("shared") / clock.total("apart"),
    }


async def _tenant_storage(server: Sqld) -> TenantStorage:
    tenancy = TenancyConfig(admin_url=f"http://127.0.0.1:{server.admin_port}")
    config = TursoConfig(database="{namespace}", tenancy=tenancy)
    context = StorageContext(namespace="tenant-0")
    return await TenantStorage.open(server.http_url, config=config, context=context)


async def measure(folder: Path, only: str | None, *, quick: bool) -> dict[str, dict[str, float]]:
    """Everything, each in a folder of its own."""
    blocks = 3 if quick else 12
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
    results: dict[str, dict[str, float]] = {}
    for number, (name, run) in enumerate(plan.items()):
        if only is None or only in name:
            results[name] = await run(folder / str(number))
    return results


if __name__ == "__main__":
    report(measure, __doc__)
