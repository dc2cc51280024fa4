"""Does a cached read ever return older data than a commit that was acknowledged before it began?

Several processes read and query the same records of one store through caches, and write and delete them
in batches, which cascade. A ledger in shared memory holds, per record, the newest version whose write was
begun and the newest one that was acknowledged. Each record has one writer, so its versions are ordered; a
read is right if what it returns lies between what had been acknowledged when it began and what had been
begun when it ended. The same goes for pages: for what is in them, what is left out of them, and whether
there is a next one.

With ``--max-staleness`` the store's position is hidden, as on a server: own writes must be seen as before,
those of other processes when they are older than that.

Run it by hand::

    python -m memory_core.testing.staleness lmdb:./staleness --processes 4 --operations 100000

``--incoherent`` switches the coherence off and must find violations, which proves that the check works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from multiprocessing.synchronize import Barrier
from typing import Any, cast

from attrs import asdict, field, frozen

from memory_core.cache import CacheConfig
from memory_core.memory import Memory
from memory_core.memory.composing import cached
from memory_core.memory.opening import open_storage
from memory_core.plugins import PluginRegistry
from memory_core.query import Query
from memory_core.records import Step
from memory_core.storage import Position, Storage
from memory_core.testing.checks.ledger import PATIENCE, Ledger, in_processes
from memory_core.testing.checks.staleness_worker import StalenessRun, Worker

__all__ = ["StalenessReport", "StalenessRun", "main", "run"]

_ROUNDS = 4


@frozen(kw_only=True)
class StalenessReport:
    """The result of a run.

    Attributes:
        operations: the number of operations by type.
        violations: descriptions of reads that returned too old (or impossible) data; the first few.
        violation_count: the number of violations.
        cascades: the number of edges deleted by a cascade.
        hit_rate: of the nearest caches, 0 to 1.
        query_hits: the number of pages and counts that the caches answered.
        seconds: how long the slowest process took.
    """

    operations: dict[str, int]
    violations: list[str] = field(factory=list[str])
    violation_count: int = 0
    cascades: int = 0
    hit_rate: float = 0.0
    query_hits: int = 0
    seconds: float = 0.0


class WatchedStorage:
    """A storage that counts the queries for episodes and edges; queries for steps, which the memory
    sends by itself, do not count.

    Args:
        storage: the storage.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.asked = 0

    async def query(self, query: Query[Any]) -> Any:
        """Fetch one page."""
        self.asked += query.kind != Step.kind
        return await self._storage.query(query)

    async def count(self, query: Query[Any]) -> int:
        """How many records fulfil the query's conditions."""
        self.asked += query.kind != Step.kind
        return await self._storage.count(query)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


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


class HiddenPosition:
    """A storage that cannot tell its position, as on a server.

    Args:
        storage: the storage.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def position(self) -> None:
        """It cannot tell."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


async def _process(
    settings: StalenessRun, number: int, ledger: Ledger, start: Barrier
) -> dict[str, Any]:
    registry = PluginRegistry()
    watched = WatchedStorage(await open_storage(settings.url, registry=registry))
    storage = cast("Storage", watched)
    if not settings.coherent:
        storage = cast("Storage", FrozenPosition(storage))
    elif settings.max_staleness is not None:
        storage = cast("Storage", HiddenPosition(storage))
    config = CacheConfig(
        tiers=settings.tiers,
        max_entries=settings.capacity,
        max_staleness=settings.max_staleness or 0.0,
    )
    # Workers that start late would run alone.
    start.wait(PATIENCE)
    started = time.perf_counter()
    async with Memory(cached(storage, config, registry)) as memory:
        worker = Worker(settings, number, ledger, memory)
        for _ in range(_ROUNDS):
            await worker.work(settings.operations // _ROUNDS)
            # So would workers that are not scheduled for a while. So each has cached something that the
            # others change before it goes on, in whatever order they run.
            await asyncio.to_thread(start.wait, PATIENCE)
        sections = (await memory.stats()).sections
    near = next(value for name, value in sections.items() if name.startswith("cache.0"))
    found = worker.findings
    return {
        "operations": dict(found.operations),
        "violations": found.violations,
        "violation_count": found.counts["violations"],
        "cascades": found.counts["cascades"],
        "query_hits": found.counts["asked"] - watched.asked,
        "hits": near["hits"],
        "misses": near["misses"],
        "seconds": time.perf_counter() - started,
    }


def run(settings: StalenessRun) -> StalenessReport:
    """Run the check; the store must be empty.

    Raises:
        RuntimeError: when a process failed.
    """
    records = 2 * settings.keys
    return _report(in_processes(_process, settings, processes=settings.processes, records=records))


def _report(found: Sequence[dict[str, Any]]) -> StalenessReport:
    operations: Counter[str] = Counter()
    for item in found:
        operations.update(item["operations"])
    hits, misses = (sum(item[name] for item in found) for name in ("hits", "misses"))
    return StalenessReport(
        operations=dict(operations),
        violations=_first(item["violations"] for item in found),
        violation_count=sum(item["violation_count"] for item in found),
        cascades=sum(item["cascades"] for item in found),
        hit_rate=hits / (hits + misses) if hits else 0.0,
        query_hits=sum(item["query_hits"] for item in found),
        seconds=max(item["seconds"] for item in found),
    )


def _first(lists: Iterable[list[str]]) -> list[str]:
    return [text for texts in lists for text in texts][:10]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 when the result is not as expected."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m memory_core.testing.staleness"
    )
    parser.add_argument("url", help="an empty store that several processes may open")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--operations", type=int, default=100_000, help="of each process")
    parser.add_argument("--cache", default="adaptive", help="tiers, separated by commas")
    parser.add_argument("--incoherent", action="store_true", help="switch the coherence off")
    parser.add_argument("--max-staleness", type=float, help="hide the position; seconds allowed")
    given = parser.parse_args(arguments)
    report = run(
        StalenessRun(
            url=given.url,
            processes=given.processes,
            operations=given.operations,
            coherent=not given.incoherent,
            max_staleness=given.max_staleness,
            tiers=tuple(given.cache.split(",")),
        )
    )
    print(json.dumps(asdict(report), indent=2))  # noqa: T201  # a command's output
    return int((report.violation_count > 0) != given.incoherent)


if __name__ == "__main__":
    sys.exit(main())
