"""The budget in bytes holds for real records, decoded from a store, and for cached answers.

Allocations are traced, so other tests' memory does not matter; a store on disk, so that what the cache
holds is its own.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from memory_core import Budget, CacheConfig, Episode, Memory, Query, at_least, open_memory
from memory_core.testing.data.samples import full_episode
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

MIB = 2**20
# What the store trains in the background, some time after it was written, is not the cache's.
ALONE = "durability=normal&compression.dictionary=false"
EPISODES = 600


def small(number: int) -> Episode:
    return Episode(task_description=f"task {number}", tags=(f"tag-{number % 40}",))


async def records(memory: Memory, found: list[Episode]) -> None:
    for episode in found:
        read = await memory.get_episode(episode.id)
        # The cache charges for decoded steps from the start.
        assert read is not None
        assert len(read.steps) == len(episode.steps)


async def pages(memory: Memory, found: list[Episode]) -> None:
    for number in range(40):
        for limit in (5, 10, 15, 20):
            await memory.storage.query(Query(Episode).where(tags=f"tag-{number}").limit(limit))


async def counts(memory: Memory, found: list[Episode]) -> None:
    for episode in found:
        await memory.count_episodes(Query(Episode).where(start_time=at_least(episode.start_time)))


async def everything(memory: Memory, found: list[Episode]) -> None:
    for read in (records, pages, counts):
        await read(memory, found)


Reads = Callable[[Memory, list[Episode]], Awaitable[None]]


async def traced(tmp_path, make, reads: Reads, config: CacheConfig) -> tuple[int, int]:
    """Bytes allocated while these are read through a cache, and those it says it takes."""
    found = [make(number) for number in range(EPISODES)]
    async with open_memory(f"lmdb:{tmp_path}?{ALONE}", cache="none") as plain:
        await plain.store_episodes_batch(found)
        # Everything is imported, and every table that grows once has grown.
        await reads(plain.with_cache(config), found)
        gc.collect()
        tracemalloc.start()
        try:
            cached = plain.with_cache(config)
            await reads(cached, found)
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        (near,) = cached.storage.caches()
        return taken, near.stats().bytes


@pytest.mark.parametrize(
    ("make", "reads", "budget"),
    [
        (full_episode, records, 2 * MIB),
        (small, records, MIB // 4),
        (small, pages, MIB // 2),
        (small, counts, MIB // 4),
        (small, everything, MIB // 2),
    ],
    ids=["records", "small records", "pages", "counts", "everything"],
)
async def test_the_budget_holds_within_a_tenth(tmp_path, make, reads, budget) -> None:
    taken, said = await traced(tmp_path, make, reads, CacheConfig(max_bytes=budget))
    # It was full, and what it says of itself is true.
    assert budget * 0.85 < said <= budget
    assert taken == pytest.approx(said, rel=0.1)
    assert taken <= 1.1 * budget


async def test_budgets_of_kinds_hold_as_well(tmp_path) -> None:
    config = CacheConfig(
        max_bytes=MIB // 4, budgets={"query:episode": Budget(max_bytes=MIB // 2, max_entries=500)}
    )
    taken, said = await traced(tmp_path, small, everything, config)
    assert said <= 3 * MIB // 4
    assert taken == pytest.approx(said, rel=0.1)


async def opened(tmp_path, found: list[Episode], cache: CacheConfig | str) -> tuple[int, int]:
    """Bytes allocated by a memory that was opened and read, and those of its cache, as it says."""
    tracemalloc.start()
    try:
        async with open_memory(f"lmdb:{tmp_path}?{ALONE}", cache=cache) as memory:
            await everything(memory, found)
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0]
            sections = (await memory.stats()).sections
    finally:
        tracemalloc.stop()
    return taken, sections.get("cache.0.adaptive", {}).get("bytes", 0)


async def test_opening_a_memory_with_a_cache_costs_its_budget_and_no_more(tmp_path) -> None:
    """From end to end: records, pages and counts, through what users open."""
    budget = MIB // 2
    config = CacheConfig(max_bytes=budget)
    found = [small(number) for number in range(EPISODES)]
    async with open_memory(f"lmdb:{tmp_path}?{ALONE}") as memory:
        await memory.store_episodes_batch(found)
    for cache in ("none", config):
        await opened(tmp_path, found[:10], cache)
    without, _ = await opened(tmp_path, found, "none")
    taken, said = await opened(tmp_path, found, config)
    assert said > budget * 0.85
    assert 0.7 * budget < taken - without <= 1.1 * budget


# Reads ten times as much as fits under the limit, through a cache whose budget is far larger.
LIMITED = textwrap.dedent("""
    import asyncio, json, resource, sys
    import psutil
    from memory_core import CacheConfig, Episode, open_memory

    async def main(url, limit):
        process = psutil.Process()
        room = 120 * 2**20
        ids = []
        async with open_memory(url, cache="none") as memory:
            for number in range(600):
                text = f"{number} " * 250_000
                episode = Episode(task_description=text[:1_000_000])
                await memory.store_episode(episode)
                ids.append(episode.id)
            await memory.get_episode(ids[0])
        before = process.memory_info()
        own = before.rss - before.shared
        options = {}
        if limit == "address space":
            # The system allows no more than this.
            address_space = before.vms + 64 * 2**20 + room
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        else:
            options["memory_limit"] = own + room
        config = CacheConfig(max_bytes=4 * 2**30, queries=False, options=options)
        peak = 0
        async with open_memory(url, cache=config) as memory:
            for record_id in ids:
                assert (await memory.storage.get(Episode, [record_id]))[0] is not None
                now = process.memory_info()
                peak = max(peak, now.rss - now.shared)
            near = memory.storage.caches()[0].stats()
        counters = {name: near.counters[name] for name in ("pressure_events", "evictions_pressure")}
        print(json.dumps({"peak": peak - own, "room": room, "entries": near.entries, **counters}))

    asyncio.run(main(*sys.argv[1:]))
""")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
@pytest.mark.parametrize("limit", ["address space", "set"])
def test_a_process_near_its_limit_lives_and_its_cache_shrinks(tmp_path, limit) -> None:
    url = f"lmdb:{tmp_path}?durability=normal&max_map_size=67108864"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, url, limit],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["peak"] < counted["room"]
    assert counted["pressure_events"] >= 1
    assert counted["evictions_pressure"] > 100
    assert 0 < counted["entries"] < 120
