"""Does a search ever miss a commit that was acknowledged before it began, or find what was deleted?

Several processes write, change and delete the same episodes of one store, and search for them by words that
only one version of one episode has. A ledger in shared memory holds, per episode, the newest version whose
write was begun and the newest one that was acknowledged. A search is right if what it finds lies between what
had been acknowledged when it began and what had been begun when it ended.

Run it by hand::

    python -m memory_core.testing.search_coherence lmdb:./searched --processes 4 --seconds 60

``--delete-index 0.002`` deletes the folder of the index as often among the operations, as users may.
``--incoherent`` searches without waiting for the index and must find violations, which proves that the check
works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from attrs import asdict, field, frozen

from memory_core.memory import Memory
from memory_core.memory.opening import open_memory
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.testing.checks.ledger import PATIENCE, Ledger, in_processes

__all__ = ["SearchReport", "SearchRun", "main", "run"]

_NAMESPACE = UUID("5e3a6d3c-52c4-4fb8-9a37-0f5b1d9f7a11")
# Letters of which no word ending is made.
_LETTERS = "bcdfghjkmnpqrtvw"
_SHOWN = 10


@frozen(kw_only=True)
class SearchRun:
    """The settings of a run.

    Attributes:
        url: the store, which is empty.
        processes: how many processes.
        seconds: how long they run.
        least: operations that each process does even if that takes longer.
        keys: how many episodes there are.
        writes: share of writes among the operations.
        search: the index, with options.
        folder: where the index is kept.
        delete_index: share of deletions of the index's folder.
        coherent: whether searches wait for the index.
        seed: of the random choices.
    """

    url: str
    processes: int = 4
    seconds: float = 60.0
    least: int = 150
    keys: int = 200
    writes: float = 0.4
    search: str = "tantivy?pending=20"
    folder: str = ""
    delete_index: float = 0.0
    coherent: bool = True
    seed: int = 1


@frozen(kw_only=True)
class SearchReport:
    """The result of a run.

    Attributes:
        operations: the number of operations by type.
        violations: descriptions of wrong searches; the first few.
        violation_count: the number of wrong searches.
        index: what the indexes counted.
    """

    operations: dict[str, int]
    violations: list[str] = field(factory=list[str])
    violation_count: int = 0
    index: dict[str, int] = field(factory=dict[str, int])


def _word(*numbers: int) -> str:
    """A word that stands for numbers."""
    spelt = "".join(
        _LETTERS[(number >> shift) & 15] for number in numbers for shift in (12, 8, 4, 0)
    )
    return f"x{spelt}x"


def _is_deleted(version: int) -> bool:
    return version == 0 or version % 5 == 4


class _Worker:
    def __init__(self, settings: SearchRun, number: int, ledger: Ledger, memory: Memory) -> None:
        self._run = settings
        self._ledger = ledger
        self._memory = memory
        self._random = random.Random(settings.seed * 1_000 + number)
        self._own = range(number, settings.keys, settings.processes)
        self.operations: Counter[str] = Counter()
        self.violations: list[str] = []

    async def work(self) -> None:
        end = time.monotonic() + self._run.seconds
        # On a machine that is busy some seconds are few operations.
        while time.monotonic() < end or self.operations.total() < self._run.least:
            choice = self._random.random()
            if choice < self._run.writes:
                key = await self._write()
                await self._search(key)
            elif choice < self._run.writes + self._run.delete_index:
                await asyncio.to_thread(shutil.rmtree, self._run.folder, ignore_errors=True)
                self.operations["deletions of the index"] += 1
            else:
                await self._search(self._random.randrange(self._run.keys))

    async def _write(self) -> int:
        key = self._random.choice(self._own)
        version = self._ledger.begun(key) + 1
        self._ledger.begin(key, version)
        record_id = uuid5(_NAMESPACE, str(key))
        if _is_deleted(version):
            await self._memory.delete_episode(record_id)
        else:
            text = f"common {_word(key)} {_word(key, version)}"
            metadata = {"version": str(version)}
            await self._memory.store_episode(
                Episode(id=record_id, task_description=text, metadata=metadata)
            )
        self._ledger.acknowledge(key, version)
        self.operations["deletes" if _is_deleted(version) else "writes"] += 1
        return key

    async def _search(self, key: int) -> None:
        oldest = self._ledger.acknowledged(key)
        # The word of one version, of the version before, or of all of them.
        asked = self._random.choice((oldest, max(0, oldest - 1), None))
        text = _word(key) if asked is None else _word(key, asked)
        max_wait = None if self._run.coherent else 0.0
        hits = await self._memory.search(text, Query(Episode).limit(5), max_wait=max_wait)
        newest = self._ledger.begun(key)
        self.operations["searches"] += 1
        found = [int(record.metadata["version"]) for record in hits.records]
        versions = [v for v in range(oldest, newest + 1) if not _is_deleted(v)]
        if asked is None:
            may = set(versions)
            must = len(versions) == newest - oldest + 1
        else:
            # The record is read after the index, so it may be a later version.
            may = set(versions) if asked in range(oldest, newest + 1) else set[int]()
            must = oldest == newest == asked and not _is_deleted(asked)
        if len(found) > 1 or not may.issuperset(found) or (must and not found):
            self.violations.append(
                f"episode {key}, version {asked}, between {oldest} and {newest}: found {found}"
            )


async def _process(settings: SearchRun, number: int, ledger: Ledger, start: Any) -> dict[str, Any]:
    search = settings.search
    if settings.folder:
        search += f"{'&' if '?' in search else '?'}folder={settings.folder}"
    async with open_memory(settings.url, cache="none", search=search) as memory:
        # All of them build the index at the same time.
        await memory.search("common")
        await asyncio.to_thread(start.wait, PATIENCE)
        worker = _Worker(settings, number, ledger, memory)
        await worker.work()
        index = (await memory.stats()).sections["search"]
    return {"operations": worker.operations, "violations": worker.violations, "index": index}


def run(settings: SearchRun) -> SearchReport:
    """Run the check; the store must be empty.

    Raises:
        RuntimeError: when a process failed.
    """
    return _report(
        in_processes(_process, settings, processes=settings.processes, records=settings.keys)
    )


def _report(found: Sequence[dict[str, Any]]) -> SearchReport:
    operations: Counter[str] = Counter()
    index: Counter[str] = Counter()
    violations: list[str] = []
    for item in found:
        operations.update(item["operations"])
        index.update(item["index"])
        violations += item["violations"]
    return SearchReport(
        operations=dict(operations),
        violations=violations[:_SHOWN],
        violation_count=len(violations),
        index=dict(index),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 when the result is not as expected."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m memory_core.testing.search_coherence",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", help="an empty store that several processes may open")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--search", default="tantivy?pending=20", help="the index, with options")
    parser.add_argument("--delete-index", type=float, default=0.0, help="share of the operations")
    parser.add_argument("--incoherent", action="store_true", help="do not wait for the index")
    given = parser.parse_args(arguments)
    folder = Path(f"{given.url.partition(':')[2]}.search").absolute()
    report = run(
        SearchRun(
            url=given.url,
            processes=given.processes,
            seconds=given.seconds,
            search=given.search,
            folder=str(folder),
            delete_index=given.delete_index,
            coherent=not given.incoherent,
        )
    )
    print(json.dumps(asdict(report), indent=2))  # noqa: T201  # a command's output
    return int((report.violation_count > 0) != given.incoherent)


if __name__ == "__main__":
    sys.exit(main())
