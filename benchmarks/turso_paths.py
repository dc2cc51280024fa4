"""Costs of a local Turso store's paths, each beside the bare loop that does the same by hand.

    python -m benchmarks.turso_paths [--quick] [--json] [--dir FOLDER]

The bare loop encodes with msgspec, compresses with zstd and inserts the bytes into one table of a
database with the same durability. Both take turns in one run, block by block, so that a machine's
moods hit both alike; what counts are the ratios. The episodes are synthetic, 13 kB of 25 steps.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import zstandard

from benchmarks.workload import BATCH, TASKS, Clock, chance, episode, report
from memory_core import (
    Episode,
    Query,
    WriteBatch,
    any_of,
)
from memory_storage_turso import TursoStorage


class Bare:
    """What has to be done at least."""

    def __init__(self, path: Path) -> None:
        self.encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
        self.decode = msgspec.msgpack.Decoder(Episode).decode
        self.compress = zstandard.ZstdCompressor(level=3).compress
        self.decompress = zstandard.ZstdDecompressor().decompress
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute("CREATE TABLE episode (id BLOB PRIMARY KEY, body BLOB)")

    def store(self, episodes: list[Episode]) -> None:
        """One durable commit."""
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            "INSERT INTO episode VALUES (?, ?)",
            ((item.id.bytes, self.compress(self.encode(item))) for item in episodes),
        )
        execute("COMMIT")

    def get(self, item: Episode) -> Episode:
        """One record."""
        [(body,)] = self.connection.execute(
            "SELECT body FROM episode WHERE id = ?", (item.id.bytes,)
        ).fetchall()
        return self.decode(self.decompress(body))


async def stored(storage: TursoStorage, episodes: list[Episode]) -> None:
    """One batch."""
    [result] = await storage.commit([WriteBatch().put(*episodes)])
    if isinstance(result, Exception):
        raise result


async def batches(folder: Path, count: int, clock: Clock) -> dict[str, float]:
    """Batches of 500."""
    bare = Bare(folder / "bare.db")
    storage = await TursoStorage.open(str(folder / "store.db"))
    try:
        for number in range(count):
            episodes = [episode(number * BATCH + n) for n in range(BATCH)]
            await clock.run("batch bare", lambda e=episodes: bare.store(e))
            await clock.run("batch store", lambda e=episodes: stored(storage, e))
    finally:
        await storage.aclose()
        bare.connection.close()
    done = count * BATCH
    return {
        "bare_per_second": done / clock.total("batch bare"),
        "store_per_second": done / clock.total("batch store"),
        "ratio": clock.total("batch bare") / clock.total("batch store"),
    }


async def singles(folder: Path, blocks: int, clock: Clock, preload: int) -> dict[str, float]:
    """One awaited store after the other."""
    bare = Bare(folder / "bare.db")
    storage = await TursoStorage.open(str(folder / "store.db"))
    size = 128
    try:
        await _filled(storage, bare, preload)
        for block in range(blocks):
            episodes = [episode(preload + block * size + n) for n in range(size)]

            def by_hand(items: list[Episode] = episodes) -> None:
                for item in items:
                    bare.store([item])

            async def by_store(items: list[Episode] = episodes) -> None:
                for item in items:
                    await stored(storage, [item])

            await clock.run("single bare", by_hand)
            await clock.run("single store", by_store)
    finally:
        await storage.aclose()
        bare.connection.close()
    return {
        "bare_us": clock.total("single bare") / (blocks * size) * 1e6,
        "store_us": clock.total("single store") / (blocks * size) * 1e6,
        "ratio": clock.total("single store") / clock.total("single bare"),
    }


async def concurrent(
    folder: Path, blocks: int, clock: Clock, preload: int, steps: int
) -> dict[str, float]:
    """64 tasks that store, against one."""
    storage = await TursoStorage.open(str(folder / "store.db"))
    many, few = 30, 256
    names = f"{steps} steps, one task", f"{steps} steps, many tasks"
    try:
        await _filled(storage, None, preload)
        number = preload
        for _ in range(blocks):
            groups = [[episode(number + n, steps) for n in range(many)] for _ in range(TASKS)]
            alone = [episode(number + n, steps) for n in range(few)]
            number += many

            async def task(items: list[Episode]) -> None:
                for item in items:
                    await stored(storage, [item])

            async def together(work: list[list[Episode]] = groups) -> None:
                await asyncio.gather(*(task(items) for items in work))

            await clock.run(names[0], lambda items=alone: task(items))
            await clock.run(names[1], together)
    finally:
        await storage.aclose()
    one = few * blocks / clock.total(names[0])
    all_of_them = many * TASKS * blocks / clock.total(names[1])
    return {
        "one_per_second": one,
        "many_per_second": all_of_them,
        "ratio": all_of_them / one,
    }


async def reads(folder: Path, rounds: int, clock: Clock, preload: int) -> dict[str, float]:
    """Single gets and pages."""
    bare = Bare(folder / "bare.db")
    storage = await TursoStorage.open(str(folder / "store.db"))
    try:
        episodes = await _filled(storage, bare, preload)
        page = Query(Episode).where(tags=any_of("retry", "sql"), domain="web").limit(20)
        for _ in range(rounds):
            some = chance.sample(episodes, 200)

            def by_hand(items: list[Episode] = some) -> None:
                for item in items:
                    bare.get(item)

            async def by_store(items: list[Episode] = some) -> None:
                for item in items:
                    await storage.get(Episode, [item.id])

            async def together(items: list[Episode] = some) -> None:
                await storage.get(Episode, [item.id for item in items])

            async def pages() -> None:
                for _ in range(20):
                    await storage.query(page)

            await clock.run("get bare", by_hand)
            await clock.run("get store", by_store)
            await clock.run("get 200", together)
            await clock.run("page", pages)
        started = time.perf_counter()
        for _ in range(10_000):
            storage.position()
        position = (time.perf_counter() - started) / 10_000
    finally:
        await storage.aclose()
        bare.connection.close()
    return {
        "bare_get_us": clock.typical("get bare") / 200 * 1e6,
        "get_us": clock.typical("get store") / 200 * 1e6,
        "ratio": clock.typical("get store") / clock.typical("get bare"),
        "get_of_200_us_each": clock.typical("get 200") / 200 * 1e6,
        "page_of_20_us": clock.typical("page") / 20 * 1e6,
        "position_us": position * 1e6,
    }


async def _filled(storage: TursoStorage, bare: Bare | None, count: int) -> list[Episode]:
    episodes = [episode(number) for number in range(count)]
    for start in range(0, count, BATCH):
        await stored(storage, episodes[start : start + BATCH])
        if bare is not None:
            bare.store(episodes[start : start + BATCH])
    return episodes


async def measure(folder: Path, only: str | None, *, quick: bool) -> dict[str, dict[str, float]]:
    """Everything, each in a folder of its own."""
    clock = Clock()
    count = 4 if quick else 20
    plan: dict[str, Callable[[Path], Awaitable[dict[str, float]]]] = {
        "batches of 500": lambda at: batches(at, count, clock),
        "single store": lambda at: singles(at, count, clock, 1000),
        "64 tasks, 25 steps": lambda at: concurrent(at, count // 4, clock, 1000, 25),
        "64 tasks, no steps": lambda at: concurrent(at, count // 4, clock, 1000, 0),
        "reads": lambda at: reads(at, count // 2, clock, 2000),
    }
    results: dict[str, dict[str, float]] = {}
    for number, (name, run) in enumerate(plan.items()):
        if only is None or only in name:
            at = folder / str(number)
            at.mkdir()
            results[name] = await run(at)
    return results


if __name__ == "__main__":
    report(measure, __doc__)
