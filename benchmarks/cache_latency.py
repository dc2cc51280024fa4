"""What a cached read costs: hit, miss, coherence check and query, beside other caches of Python.

    python -m benchmarks.cache_latency [--rounds N] [--quick] [--json]

All subjects run in one process, a slice of each in turn, so that a busy machine slows all alike. Two
times of each: that of its best slice, which is nearest to an idle machine and is held against the
bounds, and the median over its slices. cashews, aiocache and cachetools hold the very same
episode in this process's memory; none of them asks whether it is still the newest. Without cashews one
bound cannot be judged, and the exit code is 1: ``nox -s bench`` installs it.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import asdict, define, field, frozen

from benchmarks import harness
from memory_core import (
    CacheConfig,
    Episode,
    ExecutionStep,
    Memory,
    Outcome,
    Query,
    StepResult,
    TaskContext,
    open_memory,
)

START = datetime(2025, 1, 1, tzinfo=UTC)
EPISODES = 500
HITS_PER_SLICE = 2_000
OTHERS_PER_SLICE = 40


def episode(number: int) -> Episode:
    """25 steps, about 13 kB of text."""
    steps = [
        ExecutionStep(
            number=step,
            timestamp=START + timedelta(days=number, seconds=step),
            tool=f"tool-{step % 7}",
            action=f"look up order {number}-{step}",
            parameters={"order_id": f"#W{number:07}", "step": step},
            result=StepResult.success({"status": "ok", "text": f"result {number}-{step} " * 20}),
            latency_ms=12.5,
        )
        for step in range(1, 26)
    ]
    return Episode(
        task_description=f"handle request {number}",
        context=TaskContext(domain=("web", "api", "data")[number % 3], tags=("http",)),
        start_time=START + timedelta(days=number),
        end_time=START + timedelta(days=number, minutes=5),
        outcome=Outcome.success("done"),
        steps=tuple(steps),
        tags=(f"tag-{number % 10}",),
    )


@define
class Subject:
    """Something timed. ``before`` is done, untimed, before each call."""

    name: str
    call: Callable[[], Awaitable[Any]]
    before: Callable[[], Awaitable[Any]] | None = None
    slow: bool = False
    slices: list[float] = field(factory=list)

    async def slice(self) -> None:
        """Time a slice of calls; each counts by its mean."""
        count = OTHERS_PER_SLICE if self.slow or self.before else HITS_PER_SLICE
        call, taken, clock = self.call, 0.0, time.perf_counter
        if self.before is None:
            begun = clock()
            for _ in range(count):
                await call()
            taken = clock() - begun
        else:
            for _ in range(count):
                await self.before()
                begun = clock()
                await call()
                taken += clock() - begun
        self.slices.append(taken / count)

    def microseconds(self) -> dict[str, float]:
        return {
            "best": round(min(self.slices) * 1e6, 2),
            "median": round(statistics.median(self.slices) * 1e6, 2),
        }


async def memories(stack: AsyncExitStack, folder: Path) -> dict[str, tuple[Memory, Memory]]:
    """For each backend a cached memory and an uncached one of the same store."""
    found: dict[str, tuple[Memory, Memory]] = {}
    for name, url in {
        "inmemory": "inmemory:",
        "lmdb": f"lmdb:{folder / 'lmdb'}?durability=normal",
        "turso": f"turso:{folder / 'memory.db'}?durability=normal",
    }.items():
        plain = await stack.enter_async_context(open_memory(url, cache="none"))
        await plain.store_episodes_batch(episode(number) for number in range(EPISODES))
        found[name] = plain.with_cache(CacheConfig()), plain
    return found


def subjects_of(name: str, cached: Memory, plain: Memory, wanted: Episode) -> list[Subject]:
    query = Query(Episode).where(domain="web", tags="tag-3").order_by("start_time").limit(20)
    near = cached.storage.caches()[0]
    key = (cached.namespace, "episode", wanted.id)
    ids = (wanted.id,)
    other = episode(EPISODES)

    async def position() -> None:
        cached.position()

    return [
        Subject(f"{name}: hit", lambda: cached.get_episode(wanted.id)),
        Subject(f"{name}: hit, storage only", lambda: cached.storage.get(Episode, ids)),
        Subject(f"{name}: position check alone", position),
        Subject(
            f"{name}: hit after another's write",
            lambda: cached.get_episode(wanted.id),
            lambda: plain.store_episode(other),
        ),
        Subject(
            f"{name}: miss", lambda: cached.get_episode(wanted.id), lambda: near.delete_many([key])
        ),
        Subject(f"{name}: uncached get", lambda: plain.get_episode(wanted.id), slow=True),
        Subject(f"{name}: cached query", lambda: cached.query_episodes(query)),
        Subject(f"{name}: uncached query", lambda: plain.query_episodes(query), slow=True),
    ]


async def peers(wanted: Episode) -> list[Subject]:
    """Other caches; those that are not installed are left out."""
    found: list[Subject] = []
    key = str(wanted.id)
    try:
        from cashews import Cache as Cashews

        cashews = Cashews()
        cashews.setup("mem://", size=10_000)
        await cashews.set(key, wanted)
        found.append(Subject("cashews in memory: hit", lambda: cashews.get(key)))
    except ImportError:
        pass
    try:
        from aiocache import SimpleMemoryCache

        aio = SimpleMemoryCache()
        await aio.set(key, wanted)
        found.append(Subject("aiocache in memory: hit", lambda: aio.get(key)))
    except ImportError:
        pass
    from cachetools import LRUCache

    lru: LRUCache[str, Episode] = LRUCache(10_000)
    lru[key] = wanted

    async def get() -> Episode | None:
        return lru.get(key)

    return [*found, Subject("cachetools LRU: hit, in a coroutine", get)]


async def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds a call, by subject."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            opened = await memories(stack, Path(folder))
            wanted = episode(7)
            subjects = await peers(wanted)
            for name, (cached, plain) in opened.items():
                await plain.store_episode(wanted)
                subjects += subjects_of(name, cached, plain, wanted)
            for subject in subjects:
                await subject.slice()
                subject.slices.clear()
            gc.collect()
            gc.freeze()
            for _ in range(rounds):
                for subject in subjects:
                    await subject.slice()
            for cached, _ in opened.values():
                await cached.aclose()
    return {subject.name: subject.microseconds() for subject in subjects}


@frozen
class Judgement:
    """A figure, ``None`` where it could not be measured, and what it has to be."""

    figure: float | None
    below: float | None = None
    at_least: float | None = None

    @property
    def kept(self) -> bool:
        """What was not measured is not kept."""
        if self.figure is None:
            return False
        if self.below is not None:
            return self.figure < self.below
        return self.at_least is not None and self.figure >= self.at_least

    def __str__(self) -> str:
        bound = f"below {self.below:g}" if self.below is not None else f"at least {self.at_least:g}"
        if self.figure is None:
            return f"not measured, must be {bound}"
        return f"{self.figure:.2f}, must be {bound}: {'kept' if self.kept else 'MISSED'}"


def judged(measured: dict[str, dict[str, float]]) -> dict[str, Judgement]:
    """What must hold."""
    results = {name: found["best"] for name, found in measured.items()}
    cashews = results.get("cashews in memory: hit")
    beside = None if cashews is None else round(results["lmdb: hit"] / cashews, 3)
    found = {
        "hit on LMDB, µs": Judgement(results["lmdb: hit"], below=4.0),
        "hit on LMDB, of a cashews hit": Judgement(beside, below=1.0),
        "hit on a local Turso file, µs": Judgement(results["turso: hit"], below=8.0),
    }
    for name in ("lmdb", "turso"):
        times = round(results[f"{name}: uncached query"] / results[f"{name}: cached query"], 1)
        found[f"cached query on {name}, times faster"] = Judgement(times, at_least=20.0)
    return found


def main() -> int:
    parser = harness.parser(__doc__, "quick")
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    results = asyncio.run(measure(given.rounds or (1 if given.quick else 15)))
    bounds = judged(results)
    if given.json:
        listed = {name: asdict(found) | {"kept": found.kept} for name, found in bounds.items()}
        harness.emit(given, {"microseconds": results, "bounds": listed})
    else:
        print(f"{'microseconds':40} {'best':>10} {'median':>10}")
        for name, found in results.items():
            print(f"{name:40} {found['best']:10.2f} {found['median']:10.2f}")
        print()
        for name, found in bounds.items():
            print(f"{name:40} {found}")
    return int(not given.quick and not all(found.kept for found in bounds.values()))


if __name__ == "__main__":
    sys.exit(main())
