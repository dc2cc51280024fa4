"""Costs of the LMDB backend's paths, each beside the bare loop that does the same by hand.

    python -m benchmarks.lmdb_paths [--quick] [--json] [--only NAME] [--dir FOLDER]

The bare loop encodes with msgspec, compresses with zstd and the dictionary that the store has trained,
and puts the bytes into one LMDB database with the same durability. Both take turns in one run, block
by block, so that a machine's moods hit both alike; what counts are the ratios. The episodes are
synthetic, 13 kB of 25 steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import lmdb
import msgspec
import zstandard

from benchmarks.workload import BATCH, TASKS, Clock, chance, episode, report
from memory_core import (
    Episode,
    Memory,
    Query,
    all_of,
    at_least,
)
from memory_storage_lmdb.storage import LmdbStorage


class Bare:
    """What has to be done at least."""

    def __init__(self, path: Path, storage: LmdbStorage) -> None:
        compressor = storage._shared.codec.compressor
        (number,) = compressor._dictionaries.values()
        dictionary = zstandard.ZstdCompressionDict(number.as_bytes())
        self.encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
        self.decode = msgspec.msgpack.Decoder(Episode).decode
        self.compress = zstandard.ZstdCompressor(level=3, dict_data=dictionary).compress
        self.decompress = zstandard.ZstdDecompressor(dict_data=dictionary).decompress
        self.env = lmdb.open(str(path), map_size=2**34, max_dbs=1, max_spare_txns=1)
        self.db = self.env.open_db(b"episodes")

    def store(self, episodes: list[Episode]) -> None:
        """One durable commit."""
        pairs = [(item.id.bytes, self.compress(self.encode(item))) for item in episodes]
        with self.env.begin(write=True) as txn:
            txn.cursor(self.db).putmulti(pairs)

    def get(self, item: Episode) -> Episode:
        """One record."""
        with self.env.begin() as txn:
            body = txn.get(item.id.bytes, db=self.db)
        assert body is not None
        return self.decode(self.decompress(body))


class Bench:
    """A store, the bare loop beside it, and some episodes in both."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.clock = clock
        self.made = 0

    async def __aenter__(self) -> Self:
        self.storage = await LmdbStorage.open(str(self.folder / "store"))
        self.memory = Memory(self.storage)
        self.episodes = self.fresh(2 * BATCH)
        await self.memory.store_episodes_batch(self.episodes[:BATCH])
        # A large batch waits for the dictionary that the one before has had trained.
        await self.memory.store_episodes_batch(self.episodes[BATCH:])
        self.bare = Bare(self.folder / "bare", self.storage)
        self.bare.store(self.episodes)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.storage.aclose()
        self.bare.env.close()

    def fresh(self, count: int, steps: int = 25) -> list[Episode]:
        """New episodes."""
        self.made += count
        return [episode(number, steps) for number in range(self.made - count, self.made)]


async def batches(bench: Bench, count: int) -> dict[str, float]:
    """Batches of 500."""
    clock = bench.clock
    for _ in range(count):
        episodes = bench.fresh(BATCH)
        await clock.run("batch bare", lambda e=episodes: bench.bare.store(e))
        await clock.run("batch store", lambda e=episodes: bench.memory.store_episodes_batch(e))
    done = count * BATCH
    return {
        "bare_per_second": done / clock.total("batch bare"),
        "store_per_second": done / clock.total("batch store"),
        "ratio": clock.total("batch bare") / clock.total("batch store"),
        "median_ratio": clock.typical("batch bare") / clock.typical("batch store"),
    }


async def singles(bench: Bench, blocks: int) -> dict[str, float]:
    """One awaited store after the other."""
    clock, size = bench.clock, 64
    for _ in range(blocks):
        episodes = bench.fresh(size)

        def by_hand(items: list[Episode] = episodes) -> None:
            for item in items:
                bench.bare.store([item])

        async def by_store(items: list[Episode] = episodes) -> None:
            for item in items:
                await bench.memory.store_episode(item)

        await clock.run("single bare", by_hand)
        await clock.run("single store", by_store)
    return {
        "bare_us": clock.total("single bare") / (blocks * size) * 1e6,
        "store_us": clock.total("single store") / (blocks * size) * 1e6,
        "ratio": clock.total("single store") / clock.total("single bare"),
        "median_ratio": clock.typical("single store") / clock.typical("single bare"),
    }


async def concurrent(bench: Bench, blocks: int, steps: int) -> dict[str, float]:
    """64 tasks that store, against one."""
    clock, many, few = bench.clock, 30, 192
    for _ in range(blocks):
        groups = [bench.fresh(many, steps) for _ in range(TASKS)]
        alone = bench.fresh(few, steps)

        async def task(items: list[Episode]) -> None:
            for item in items:
                await bench.memory.store_episode(item)

        async def together(work: list[list[Episode]] = groups) -> None:
            await asyncio.gather(*(task(items) for items in work))

        await clock.run(f"one task {steps}", lambda items=alone: task(items))
        await clock.run(f"many tasks {steps}", together)
    one = few * blocks / clock.total(f"one task {steps}")
    all_of_them = many * TASKS * blocks / clock.total(f"many tasks {steps}")
    return {"one_per_second": one, "many_per_second": all_of_them, "ratio": all_of_them / one}


async def reads(bench: Bench, rounds: int) -> dict[str, float]:
    """Single gets."""
    clock = bench.clock
    for _ in range(rounds):
        some = chance.sample(bench.episodes, 200)

        def by_hand(items: list[Episode] = some) -> None:
            for item in items:
                bench.bare.get(item)

        async def by_store(items: list[Episode] = some) -> None:
            for item in items:
                await bench.memory.get_episode(item.id)

        async def together(items: list[Episode] = some) -> None:
            await bench.memory.get_episodes_batch([item.id for item in items])

        await clock.run("get bare", by_hand)
        await clock.run("get store", by_store)
        await clock.run("get 200", together)
    started = time.perf_counter()
    for _ in range(10_000):
        bench.storage.position()
    position = (time.perf_counter() - started) / 10_000
    return {
        "bare_get_us": clock.typical("get bare") / 200 * 1e6,
        "get_us": clock.typical("get store") / 200 * 1e6,
        "ratio": clock.typical("get store") / clock.typical("get bare"),
        "get_of_200_us_each": clock.typical("get 200") / 200 * 1e6,
        "position_us": position * 1e6,
    }


async def queries(bench: Bench, rounds: int) -> dict[str, float]:
    """Pages of 20 and counts, with everything indexed and with records that wait for it."""
    clock = bench.clock
    for _ in range(12):
        await bench.memory.store_episodes_batch(bench.fresh(BATCH))
    cases = {
        "newest": Query(Episode).limit(20),
        "one value": Query(Episode).where(domain="web").limit(20),
        "three values": Query(Episode).where(domain="web", tags=all_of("retry", "sql")).limit(20),
        "best": Query(Episode).order_by("reward", descending=True).limit(20),
        "best of a run": Query(Episode)
        .where(metadata={"run": "9"})
        .order_by("reward", descending=True)
        .limit(20),
        "rare": Query(Episode).where(reward=at_least(0.995)).limit(20),
    }
    results: dict[str, float] = {}
    for waiting in (0, 200):
        for item in bench.fresh(waiting):
            await bench.memory.store_episode(item)
        for name, query in cases.items():
            for _ in range(rounds):
                await clock.run(
                    f"{name} {waiting}",
                    lambda q=query: bench.storage._shared.reader._run(
                        lambda txn, pending, meter: bench.storage._shared.reader._scan(
                            txn, pending, meter, "default", q
                        ).page()
                    ),
                )
                await clock.run(f"count {name} {waiting}", lambda q=query: bench.storage.count(q))
            results[f"{name}, {waiting} waiting, us"] = clock.typical(f"{name} {waiting}") * 1e6
            results[f"count {name}, {waiting} waiting, us"] = (
                clock.typical(f"count {name} {waiting}") * 1e6
            )
    return results


async def measure(folder: Path, only: str | None, *, quick: bool) -> dict[str, dict[str, float]]:
    """Everything, each in a folder of its own."""
    clock = Clock()
    count = 4 if quick else 20
    plan: dict[str, Callable[[Bench], Awaitable[dict[str, float]]]] = {
        "batches of 500": lambda bench: batches(bench, count),
        "single store": lambda bench: singles(bench, count),
        "64 tasks, 25 steps": lambda bench: concurrent(bench, max(2, count // 4), 25),
        "64 tasks, no steps": lambda bench: concurrent(bench, max(2, count // 4), 0),
        "reads": lambda bench: reads(bench, count // 2),
        "queries": lambda bench: queries(bench, count // 2),
    }
    results: dict[str, dict[str, float]] = {}
    for number, (name, run) in enumerate(plan.items()):
        if only is None or only in name:
            at = folder / str(number)
            at.mkdir()
            async with Bench(at, clock) as bench:
                results[name] = await run(bench)
    return results


if __name__ == "__main__":
    report(measure, __doc__)
