"""What calls cost in a large store, beside what they cost in a small one.

    python -m benchmarks.scale [--store turso|lmdb] [--sizes 10000 300000] [--json] [--dir FOLDER]

Each size is a store of its own, built and then measured by processes of their own. 100 episodes of each store
are rare: a condition finds them by each index. Queries combine each of these conditions with conditions that
half of the episodes or more fulfil, before and after it, in both orders of the page. The sizes take turns.
Episodes are small (two steps, 0.7 kB), so that a million of them fits any disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

from benchmarks import harness
from benchmarks.workload import EPOCH
from memory_core import (
    Episode,
    ExecutionStep,
    Memory,
    Outcome,
    Query,
    RewardScore,
    TaskContext,
    all_of,
    any_of,
    at_least,
    between,
    open_memory,
)

STORES = {"turso": "turso:{folder}/store.db", "lmdb": "lmdb:{folder}/store"}
RARE = 100
PATTERN = UUID(int=77)
ROUNDS = 7


def made(number: int, size: int) -> Episode:
    """An episode of a store of this size."""
    every = size // RARE
    rare = number % every == 0
    start = EPOCH + timedelta(seconds=number)
    outcome = Outcome.success("done") if number % 2 else Outcome.failure("it did not work")
    return Episode(
        id=UUID(int=number + 1),
        task_description=f"Change booking {number}",
        task_type="other" if rare else ("debugging", "testing")[number % 2],
        context=TaskContext(
            domain="rare" if rare else ("airline", "retail")[number % 10 == 1],
            language="python",
            framework="rare" if rare else "django",
            complexity="complex" if rare else "simple",
        ),
        start_time=start,
        end_time=start + timedelta(seconds=30),
        steps=(
            ExecutionStep(number=1, tool="get_user", action="look the user up", timestamp=start),
            ExecutionStep(
                number=2, tool="rare" if rare else ("book", "cancel")[number % 2], timestamp=start
            ),
        ),
        outcome=Outcome.partial_success("half") if rare else outcome,
        reward=RewardScore(total=0.99 if rare else number % 900 / 1_000),
        tags=("all", "half", "rare")[: 3 if rare else 1 + number % 2],
        metadata={"run": "rare" if rare else str(number % 4)},
        applied_patterns=(PATTERN,) if rare else (),
    )


COMMON: dict[str, dict[str, Any]] = {
    "tag": {"tags": "all"},
    "tool": {"tools": "get_user"},
    "language": {"language": "python"},
    "outcome": {"outcome": any_of("success", "failure", "partial_success")},
    "time": {"start_time": at_least(EPOCH)},
}
SELECTIVE: dict[str, dict[str, Any]] = {
    "tag": {"tags": "rare"},
    "all tags": {"tags": all_of("all", "rare")},
    "tool": {"tools": "rare"},
    "domain": {"domain": "rare"},
    "framework": {"framework": "rare"},
    "complexity": {"complexity": "complex"},
    "outcome": {"outcome": "partial_success"},
    "task type": {"task_type": "other"},
    "metadata": {"metadata": {"run": "rare"}},
    "reward": {"reward": at_least(0.95)},
    "time": {"start_time": between(EPOCH, EPOCH + timedelta(seconds=99))},
}


def queries() -> Iterator[tuple[str, Query[Episode]]]:
    """Each rare condition alone, and before and after each common one, in two orders."""
    orders = {"": lambda query: query, ", by reward": lambda query: query.order_by("reward")}
    for rare, condition in SELECTIVE.items():
        for suffix, ordered in orders.items():
            yield f"rare {rare}{suffix}", ordered(Query(Episode).where(**condition))
            for common, other in COMMON.items():
                if condition.keys() & other.keys():
                    continue
                first = Query(Episode).where(**condition, **other)
                yield f"rare {rare}, {common}{suffix}", ordered(first)
                last = Query(Episode).where(**other, **condition)
                yield f"{common}, rare {rare}{suffix}", ordered(last)


async def build(url: str, size: int) -> None:
    """Fill a store."""
    async with open_memory(url) as memory:
        for start in range(0, size, 2_000):
            numbers = range(start, min(start + 2_000, size))
            await memory.store_episodes_batch([made(number, size) for number in numbers])
        # A query also looks at records whose index entries are pending: none are left.
        while True:
            sections = (await memory.stats()).sections
            pending = sections.get("indexing", {}).get("waiting", 0)
            pending += sections.get("upkeep", {}).get("waiting", 0)
            if not pending:
                return
            await asyncio.sleep(0.1)


async def timed(call: Callable[[int], Awaitable[object]], rounds: int = ROUNDS) -> float:
    """Microseconds of a typical call; the first one is not counted."""
    taken: list[float] = []
    for number in range(rounds + 1):
        started = time.perf_counter()
        await call(number)
        taken.append(time.perf_counter() - started)
    return median(taken[1:]) * 1e6


async def measure(memory: Memory, size: int) -> dict[str, float]:
    """Microseconds a call by its name."""
    spare = iter(range(size, 2 * size))
    fresh = [made(next(spare), size) for _ in range(3 * ROUNDS)]

    def chosen(number: int) -> UUID:
        return UUID(int=(number * 7919) % size + 1)

    found = {
        "get": await timed(lambda n: memory.get_episode(chosen(n)), 50),
        "put": await timed(lambda n: memory.store_episode(fresh[n])),
        "delete": await timed(lambda n: memory.delete_episode(fresh[n].id)),
        "count of all": await timed(lambda _: memory.count_episodes()),
    }
    for name, query in queries():
        pages = query.limit(10)
        found[f"page: {name}"] = await timed(lambda _, query=pages: memory.query_episodes(query))
        found[f"count: {name}"] = await timed(lambda _, query=query: memory.count_episodes(query))
    return found


async def run(url: str, size: int) -> dict[str, float]:
    """Measure one store."""
    async with open_memory(url) as memory:
        found = await measure(memory, size)
    return {**found, "private memory": harness.private_memory()}


def child(task: str, url: str, size: int) -> dict[str, float]:
    """What a process of its own finds."""
    command = [sys.executable, "-m", "benchmarks.scale", "--child", task, url, str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout or "{}")


def compare(store: str, sizes: list[int], folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Costs by name: of each size, and each as a multiple of the first."""
    urls: dict[int, str] = {}
    for size in sizes:
        place = folder / f"{store}-{size}"
        place.mkdir(exist_ok=True)
        urls[size] = STORES[store].format(folder=place)
        if not any(place.iterdir()):
            child("build", urls[size], size)
    turns = [{size: child("run", urls[size], size) for size in sizes} for _ in range(rounds)]
    report: dict[str, dict[str, float]] = {}
    for name in turns[0][sizes[0]]:
        costs = {size: median(turn[size][name] for turn in turns) for size in sizes}
        report[name] = {f"{size:,}": costs[size] for size in sizes}
        for size in sizes[1:]:
            ratios = [turn[size][name] / turn[sizes[0]][name] for turn in turns]
            report[name][f"ratio {size:,}"] = median(ratios)
    return report


def main() -> None:
    """The command."""
    parser = harness.parser(__doc__, "quick", "dir")
    parser.add_argument("--store", choices=[*STORES], action="append")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.sizes = options.sizes or ([200] if options.quick else [10_000, 300_000])
    if options.child:
        task, url, size = options.child
        work = build if task == "build" else run
        print(json.dumps(asyncio.run(work(url, int(size))) or {}))
        return
    harness.run(measure_all, options, show)


async def measure_all(options: argparse.Namespace, temporary: Path) -> dict[str, Any]:
    """By store."""
    folder = options.dir or temporary
    turns = 1 if options.quick else 3
    stores = options.store or [*STORES]
    return {store: compare(store, options.sizes, folder, turns) for store in stores}


def show(found: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a line for each call."""
    for store, report in found.items():
        for name, costs in report.items():
            listed = "  ".join(f"{key}: {value:,.1f}" for key, value in costs.items())
            print(f"{store} {name:44} {listed}")


if __name__ == "__main__":
    main()
