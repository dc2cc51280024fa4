"""Does a cached read ever return older data than a commit that was acknowledged before it began?

Several processes read, write, delete and query the same records of one store through caches. A ledger
in shared memory holds, per record, the newest version whose write was begun and the newest one that
was acknowledged. Each record has one writer, so its versions are ordered; a read is right if what it
returns lies between what had been acknowledged when it began and what had been begun when it ended.

Run it by hand::

    python -m memory_core.testing.staleness lmdb:./staleness --processes 4 --operations 100000

``--incoherent`` switches the coherence off, and must find violations: so the checker is known to see.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.synchronize import Barrier
from typing import Any, cast
from uuid import UUID, uuid5

from attrs import asdict, field, frozen

from memory_core.cache import CacheConfig
from memory_core.composing import cached
from memory_core.memory import Memory
from memory_core.opening import open_storage
from memory_core.plugins import PluginRegistry
from memory_core.query import MAX_LIMIT, Query
from memory_core.records import Episode
from memory_core.storage import Position, Storage

__all__ = ["StalenessReport", "StalenessRun", "run"]

_NAMESPACE = UUID("0b5ad6a0-4f5e-4c58-8f6a-3d5f3b9a3c11")
_WORD = 8
_PATIENCE = 60.0
_TIME = datetime(2025, 1, 1, tzinfo=UTC)


@frozen(kw_only=True)
class StalenessRun:
    """What to run.

    Attributes:
        url: the store.
        processes: how many processes.
        operations: operations of each.
        keys: how many records there are.
        groups: how many groups they form, for queries.
        writes: share of writes and deletes among the operations.
        queries: share of queries and counts.
        tasks: concurrent tasks in each process.
        capacity: entries of each process's cache.
        coherent: whether the caches look at the store's position.
        tiers: the caches.
        seed: of the random choices.
    """

    url: str
    processes: int = 4
    operations: int = 2_000
    keys: int = 200
    groups: int = 10
    writes: float = 0.1
    queries: float = 0.1
    tasks: int = 4
    capacity: int = 150
    coherent: bool = True
    tiers: tuple[str, ...] = ("adaptive",)
    seed: int = 1


@frozen(kw_only=True)
class StalenessReport:
    """What was seen.

    Attributes:
        operations: how many of each sort.
        violations: descriptions of reads that returned too old (or impossible) data; the first few.
        violation_count: how many there were.
        hit_rate: of the nearest caches, 0 to 1.
        seconds: how long the slowest process took.
    """

    operations: dict[str, int]
    violations: list[str] = field(factory=list[str])
    violation_count: int = 0
    hit_rate: float = 0.0
    seconds: float = 0.0


def is_deleted(version: int) -> bool:
    """Whether this version of a record is its absence. Version 0 is before the first write."""
    return version % 5 == 0


def bucket(version: int) -> str:
    """A metadata value that a version implies, so that updates move records between queries."""
    return str(version % 3)


class _Ledger:
    """Two words a record in shared memory: the version begun, and the version acknowledged."""

    def __init__(self, memory: SharedMemory, keys: int) -> None:
        # Aligned words are read and written whole on every platform with 64-bit words.
        self._words = _buffer(memory).cast("q")
        self._keys = keys

    def begin(self, key: int, version: int) -> None:
        self._words[key] = version

    def acknowledge(self, key: int, version: int) -> None:
        self._words[self._keys + key] = version

    def begun(self, key: int) -> int:
        return self._words[key]

    def acknowledged(self, key: int) -> int:
        return self._words[self._keys + key]

    def close(self) -> None:
        self._words.release()


class _Process:
    def __init__(
        self, settings: StalenessRun, number: int, ledger: _Ledger, memory: Memory
    ) -> None:
        self._run = settings
        self._number = number
        self._ledger = ledger
        self._memory = memory
        self._random = random.Random(settings.seed * 1_000 + number)
        self.operations: Counter[str] = Counter()
        self.violations: list[str] = []
        self.violation_count = 0

    async def work(self) -> None:
        share = self._run.operations // self._run.tasks
        async with asyncio.TaskGroup() as group:
            for task in range(self._run.tasks):
                group.create_task(self._task(task, share))

    async def _task(self, task: int, operations: int) -> None:
        run, writers = self._run, self._run.processes * self._run.tasks
        own = range(self._number * run.tasks + task, run.keys, writers)
        for done in range(operations):
            choice = self._random.random()
            if choice < run.writes and own:
                await self._write(self._random.choice(own))
            elif choice < run.writes + run.queries:
                await self._ask(self._random.randrange(run.groups))
            else:
                # Squaring makes some records hotter than others.
                await self._read(int(self._random.random() ** 2 * run.keys))
            if done % 50 == 0:
                await asyncio.sleep(0)

    async def _write(self, key: int) -> None:
        version = self._ledger.begun(key) + 1
        self._ledger.begin(key, version)
        if is_deleted(version):
            await self._memory.delete_episode(_id(key))
            self.operations["deletes"] += 1
        else:
            await self._memory.store_episode(_episode(key, version, self._run.groups))
            self.operations["writes"] += 1
        self._ledger.acknowledge(key, version)

    async def _read(self, key: int) -> None:
        oldest = self._ledger.acknowledged(key)
        episode = await self._memory.get_episode(_id(key))
        self.operations["reads"] += 1
        self._check("get", key, oldest, episode)

    async def _ask(self, group: int) -> None:
        choice = self._random.randrange(3)
        keys = range(group, self._run.keys, self._run.groups)
        oldest = {key: self._ledger.acknowledged(key) for key in keys}
        query = Query(Episode).where(tags=f"group-{group}").limit(MAX_LIMIT)
        if choice == 0:
            self.operations["counts"] += 1
            self._check_count(oldest, await self._memory.count_episodes(query))
            return
        wanted = str(self._random.randrange(3)) if choice == 1 else None
        if wanted is not None:
            query = query.where(metadata=f"bucket={wanted}")
        page = await self._memory.query_episodes(query)
        self.operations["queries"] += 1
        found = {int(episode.metadata["key"]): episode for episode in page}
        for key in keys:
            self._check("query", key, oldest[key], found.get(key), wanted)

    def _check(
        self, what: str, key: int, oldest: int, episode: Episode | None, wanted: str | None = None
    ) -> None:
        newest = self._ledger.begun(key)
        if episode is not None:
            version = int(episode.metadata["version"])
            right = oldest <= version <= newest and (wanted is None or bucket(version) == wanted)
        else:
            version = -1
            right = any(
                is_deleted(possible) or (wanted is not None and bucket(possible) != wanted)
                for possible in range(oldest, newest + 1)
            )
        if not right:
            self._violation(
                f"{what} of record {key}: version {version}, acknowledged {oldest}, begun {newest}"
            )

    def _check_count(self, oldest: dict[int, int], count: int) -> None:
        possible = [
            {not is_deleted(version) for version in range(old, self._ledger.begun(key) + 1)}
            for key, old in oldest.items()
        ]
        least = sum(states == {True} for states in possible)
        most = sum(True in states for states in possible)
        if not least <= count <= most:
            self._violation(f"count {count}, which must be from {least} to {most}")

    def _violation(self, description: str) -> None:
        self.violation_count += 1
        if len(self.violations) < 10:
            self.violations.append(f"process {self._number}: {description}")


class FrozenPosition:
    """A storage whose position never moves: what a cache without coherence sees.

    Args:
        storage: the storage.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._frozen = storage.position() or 0

    def position(self) -> Position:
        """The position when it was made."""
        return self._frozen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


def _id(key: int) -> UUID:
    return uuid5(_NAMESPACE, str(key))


def _episode(key: int, version: int, groups: int) -> Episode:
    return Episode(
        id=_id(key),
        task_description=f"record {key}",
        start_time=_TIME,
        end_time=_TIME,
        tags=(f"group-{key % groups}",),
        metadata={"key": str(key), "version": str(version), "bucket": bucket(version)},
    )


async def _process(
    settings: StalenessRun, number: int, ledger: _Ledger, start: Barrier
) -> dict[str, Any]:
    registry = PluginRegistry()
    storage = await open_storage(settings.url, registry=registry)
    if not settings.coherent:
        storage = cast("Storage", FrozenPosition(storage))
    config = CacheConfig(tiers=settings.tiers, max_entries=settings.capacity)
    # Those that start late would meet nobody.
    start.wait(_PATIENCE)
    started = time.perf_counter()
    async with Memory(cached(storage, config, registry)) as memory:
        worker = _Process(settings, number, ledger, memory)
        await worker.work()
        sections = (await memory.stats()).sections
    near = next(value for name, value in sections.items() if name.startswith("cache.0"))
    return {
        "operations": dict(worker.operations),
        "violations": worker.violations,
        "violation_count": worker.violation_count,
        "hits": near["hits"],
        "misses": near["misses"],
        "seconds": time.perf_counter() - started,
    }


def _child(settings: StalenessRun, number: int, name: str, results: Any, start: Barrier) -> None:
    memory = SharedMemory(name)
    ledger = _Ledger(memory, settings.keys)
    try:
        results.put(asyncio.run(_process(settings, number, ledger, start)))
    except BaseException as error:
        start.abort()
        results.put({"error": f"{type(error).__name__}: {error}"})
        raise
    finally:
        ledger.close()
        memory.close()


def _buffer(memory: SharedMemory) -> memoryview:
    assert memory.buf is not None, "it is open"
    return memory.buf


@contextmanager
def _shared(words: int) -> Generator[SharedMemory]:
    memory = SharedMemory(create=True, size=words * _WORD)
    try:
        _buffer(memory)[:] = bytes(memory.size)
        yield memory
    finally:
        memory.close()
        memory.unlink()


def run(settings: StalenessRun) -> StalenessReport:
    """Run the check; the store must be empty.

    Raises:
        RuntimeError: when a process failed.
    """
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    start = context.Barrier(settings.processes)
    with _shared(2 * settings.keys) as memory:
        children = [
            context.Process(target=_child, args=(settings, number, memory.name, results, start))
            for number in range(settings.processes)
        ]
        for child in children:
            child.start()
        found = [results.get() for _ in children]
        for child in children:
            child.join()
    return _report(found)


def _report(found: Sequence[dict[str, Any]]) -> StalenessReport:
    errors = [item["error"] for item in found if "error" in item]
    if errors:
        raise RuntimeError(f"a process failed: {'; '.join(errors)}")
    operations: Counter[str] = Counter()
    for item in found:
        operations.update(item["operations"])
    hits, misses = (sum(item[name] for item in found) for name in ("hits", "misses"))
    return StalenessReport(
        operations=dict(operations),
        violations=_first(item["violations"] for item in found),
        violation_count=sum(item["violation_count"] for item in found),
        hit_rate=hits / (hits + misses) if hits else 0.0,
        seconds=max(item["seconds"] for item in found),
    )


def _first(lists: Iterable[list[str]]) -> list[str]:
    return [text for texts in lists for text in texts][:10]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 when the result is not what it must be."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m memory_core.testing.staleness"
    )
    parser.add_argument("url", help="an empty store that several processes may open")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--operations", type=int, default=100_000, help="of each process")
    parser.add_argument("--cache", default="adaptive", help="tiers, separated by commas")
    parser.add_argument("--incoherent", action="store_true", help="switch the coherence off")
    given = parser.parse_args(arguments)
    report = run(
        StalenessRun(
            url=given.url,
            processes=given.processes,
            operations=given.operations,
            coherent=not given.incoherent,
            tiers=tuple(given.cache.split(",")),
        )
    )
    print(json.dumps(asdict(report), indent=2))  # noqa: T201  # a command's output
    return int((report.violation_count > 0) != given.incoherent)


if __name__ == "__main__":
    sys.exit(main())
