"""How long calls take under a mixed load of 64 tasks in a large store, and how much memory that takes.

    python -m benchmarks.load [--store turso|lmdb ...] [--sizes 10000 100000 ...] [--seconds N] [--cache NAME]
        [--quick] [--json] [--dir FOLDER]

Each size is a store of episodes of 25 steps and 12 kB, built and then measured by a process of its own. Its
64 tasks each begin the next call when the one before has returned, without a pause, for some seconds on
each shape of `benchmarks.ycsb`; then one task gets, puts and reads pages alone. *Private memory* is the
most that the process had for itself at any time, in MB: the interpreter and this program included, pages of
mapped files not. ``--dir`` keeps the stores, and finds them again: the content of one that was measured
differs from that of a new one by what the load wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, MutableSequence
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

from benchmarks import harness
from benchmarks.contestants import Ours
from benchmarks.workload import EPOCH, TASKS, episode
from benchmarks.ycsb import DOMAINS, SHAPES, Load, Operation, perform
from memory_core import Episode, open_memory

STORES = {"turso": "turso:{folder}/store.db", "lmdb": "lmdb:{folder}/store"}
TEMPLATES, BATCH, ALONE = 1_000, 1_000, 200


class Numbered:
    """An episode of the store by its number; it is made only when it is written."""

    def __init__(self, number: int, templates: list[Episode]) -> None:
        self.id = UUID(int=number + 1)
        self._number, self._templates = number, templates

    def replace(self, **changes: Any) -> Episode:
        start = EPOCH + timedelta(seconds=self._number)
        one = self._templates[self._number % len(self._templates)]
        end = start + timedelta(seconds=30)
        return one.replace(**{"id": self.id, "start_time": start, "end_time": end, **changes})


class Store(MutableSequence[Any]):
    """The episodes of a store, none of which is held in memory."""

    def __init__(self, size: int, templates: list[Episode]) -> None:
        self.size, self.templates = size, templates

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: Any) -> Any:
        return Numbered(number, self.templates)

    def __setitem__(self, number: Any, one: Any) -> None:
        """It is written by the operation, and made again from its number later."""

    def __delitem__(self, number: Any) -> None:
        raise NotImplementedError

    def insert(self, index: int, value: Any) -> None:  # noqa: ARG002  # it is the next one
        self.size += 1

    def new(self) -> Episode:
        """The next one."""
        return self[self.size].replace()


async def build(url: str, size: int) -> None:
    """Fill a store, and wait until nothing of it is left to do."""
    store = Store(0, [episode(number) for number in range(min(size, TEMPLATES))])
    async with open_memory(url) as memory:
        for start in range(0, size, BATCH):
            await memory.store_episodes_batch(
                [store[number].replace() for number in range(start, min(start + BATCH, size))]
            )
        while (await pending(memory)) > 0:
            await asyncio.sleep(0.1)


async def pending(memory: Any) -> int:
    """Records whose index entries are still to be written."""
    sections = (await memory.stats()).sections
    return sum(sections.get(name, {}).get("waiting", 0) for name in ("indexing", "upkeep"))


class Peak:
    """The most private memory that there was."""

    def __init__(self) -> None:
        self.megabytes = harness.private_memory()

    async def watch(self) -> None:
        while True:
            self.megabytes = max(self.megabytes, harness.private_memory())
            await asyncio.sleep(0.05)


async def measured(url: str, size: int, seconds: float, cache: str | None) -> dict[str, Any]:
    """What one store answers."""
    store = Store(size, [episode(number) for number in range(min(size, 200))])
    peak = Peak()
    alone = peak.megabytes
    async with open_memory(url, cache=cache) as memory:
        watching = asyncio.create_task(peak.watch())
        peer = Ours(memory)
        running = [await begun(peer, number) for number in range(TASKS)]
        load = Load(store, store.new, DOMAINS, running)
        found: dict[str, Any] = {
            shape: await under_load(peer, load.endless(shape), seconds) for shape in SHAPES
        }
        found["alone"] = await one_by_one(peer, store, load, min(ALONE, size // 10))
        watching.cancel()
        size_bytes = (await memory.stats()).size_bytes or 0
    return found | {
        "private memory": {"before opening MB": alone, "most MB": peak.megabytes},
        "store": {"MB": size_bytes / 1e6},
    }


async def begun(peer: Ours, number: int) -> Episode:
    """A running episode."""
    one = episode(number, 0).replace(end_time=None, outcome=None, reward=None)
    await peer.start(one)
    return one


async def under_load(
    peer: Ours, operations: Iterator[Operation], seconds: float
) -> dict[str, float]:
    """The times of the calls of 64 tasks."""
    taken: list[float] = []
    clock = time.perf_counter
    started = clock()
    until = started + seconds

    async def task() -> None:
        while clock() < until:
            operation = next(operations)
            begun = clock()
            await perform(peer, operation)
            taken.append(clock() - begun)

    await asyncio.gather(*(task() for _ in range(TASKS)))
    spent = clock() - started
    taken.sort()
    return {
        "a second": len(taken) / spent,
        "p50 ms": taken[len(taken) // 2] * 1e3,
        "p99 ms": taken[len(taken) * 99 // 100] * 1e3,
        "max ms": taken[-1] * 1e3,
    }


async def one_by_one(peer: Ours, store: Store, load: Load, rounds: int) -> dict[str, float]:
    """Microseconds of a typical call of one task."""
    found: dict[str, float] = {}
    calls = {
        "get": (operation for operation in load.endless("C")),
        "put": (("insert", store.new()) for _ in range(rounds)),
        "page": (("page", domain) for domain in DOMAINS * rounds),
    }
    for name, operations in calls.items():
        taken: list[float] = []
        for _, operation in zip(range(rounds), operations, strict=False):
            started = time.perf_counter()
            await perform(peer, operation)
            taken.append(time.perf_counter() - started)
            if name == "put":
                store.append(operation[1])
        found[f"{name} us"] = median(taken) * 1e6
    return found


def child(task: str, url: str, size: int, given: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own finds."""
    command = [sys.executable, "-m", "benchmarks.load", "--child", task, url, str(size)]
    command += ["--seconds", str(given.seconds)]
    command += ["--cache", given.cache] if given.cache else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """By store and size."""
    found: dict[str, Any] = {}
    for store in given.store or STORES:
        for size in given.sizes:
            place = (given.dir or folder) / f"load-{store}-{size}"
            if not place.exists():
                # Named so that a store that was not finished is not taken for one.
                unfinished = place.with_suffix(".part")
                unfinished.mkdir()
                child("build", STORES[store].format(folder=unfinished), size, given)
                unfinished.rename(place)
            url = STORES[store].format(folder=place)
            if not given.build:
                found[f"{store} {size}"] = child("run", url, size, given)
            if not given.dir:
                # A million episodes take 6 GB, and the next store as much again.
                shutil.rmtree(place)
    return found


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a line for each load."""
    for name, loads in results.items():
        for shape, values in loads.items():
            listed = "  ".join(f"{key}: {value:,.2f}" for key, value in values.items())
            print(f"{name:16} {shape:16} {listed}")


def main() -> None:
    """The command."""
    parser = harness.parser(__doc__, "quick", "dir")
    parser.add_argument("--store", choices=[*STORES], action="append")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, help="for how long each shape is measured")
    parser.add_argument("--cache", help="the cache in front, none unless given")
    parser.add_argument("--build", action="store_true", help="only make the stores, in --dir")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.sizes = given.sizes or ([200] if given.quick else [10_000, 100_000])
    given.seconds = given.seconds or (0.05 if given.quick else 5.0)
    if given.child:
        task, url, size = given.child
        if task == "build":
            asyncio.run(build(url, int(size)))
            print("{}")
        else:
            found = asyncio.run(measured(url, int(size), given.seconds, given.cache))
            print(json.dumps(found))
        return
    harness.run(measure, given, show)


if __name__ == "__main__":
    main()
