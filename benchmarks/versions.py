"""Whether a path has become slower than in another checkout, whose Python is named.

    python benchmarks/versions.py OTHER/.venv/bin/python [--pairs 10] [--only turso] [--json]

Starts this Python and the other one in pairs. In a pair the two take turns, block by block, so that a slow
moment of the machine hits both. A pair gives one ratio for each path, the median of its blocks, this
version's time over the other's; printed are the median of these ratios and its 95 % interval. Below 1 this
version is faster. Uses the public API only, so that it runs on any version.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from argparse import SUPPRESS
from pathlib import Path
from statistics import median
from typing import Any

from harness import Worker, emit, interval, parser, timed, wanted
from workload import episode

from memory_core import Episode, Query, open_memory

STORES = {
    "turso": "turso:{folder}/memory.db",
    "lmdb": "lmdb:{folder}/memory",
    "inmemory": "inmemory:",
}
PATHS = ("put", "batch", "get", "page", "cached get")
STORED, PUTS, BATCH, GETS, PAGES, HITS = 600, 60, 200, 150, 15, 2_000


class Work:
    """One block of each path, on one store."""

    def __init__(self, memory: Any, cached: Any, stored: list[Episode]) -> None:
        self._memory, self._cached = memory, cached
        self._ids = [item.id for item in stored]
        self._made = iter(())

    async def block(self, path: str) -> float:
        """Seconds of a block."""
        needed = {"put": PUTS, "batch": BATCH}.get(path, 0)
        records = [episode(number) for number in range(needed)]
        chosen = random.choices(self._ids, k=HITS)
        return await timed(lambda: getattr(self, path.replace(" ", "_"))(records, chosen))

    async def put(self, records: list[Episode], _: list[Any]) -> None:
        for record in records:
            await self._memory.store_episode(record)

    async def batch(self, records: list[Episode], _: list[Any]) -> None:
        await self._memory.store_episodes_batch(records)

    async def get(self, _: list[Episode], chosen: list[Any]) -> None:
        for record_id in chosen[:GETS]:
            await self._memory.get_episode(record_id)

    async def page(self, _: list[Episode], __: list[Any]) -> None:
        for number in range(PAGES):
            await self._memory.query_episodes(Query(Episode).where(tags="login").limit(10 + number))

    async def cached_get(self, _: list[Episode], chosen: list[Any]) -> None:
        for record_id in chosen:
            await self._cached.get_episode(record_id)


async def serve(url: str) -> None:
    """The worker: runs the blocks that it is told to, and says what each took."""
    async with open_memory(url, cache=None) as memory:
        stored = [episode(number) for number in range(STORED)]
        await memory.store_episodes_batch(stored)
        work = Work(memory, memory.with_cache("adaptive"), stored)
        for path in PATHS:
            await work.block(path)
        print("ready", flush=True)
        for line in sys.stdin:
            print(await work.block(line.strip()), flush=True)


def pair(other: str, store: str, blocks: int) -> dict[str, float]:
    """The ratios of one pair of processes."""
    with tempfile.TemporaryDirectory() as folder:
        workers: list[Worker] = []
        for name, python in (("this", sys.executable), ("other", other)):
            place = Path(folder, name)
            place.mkdir()
            url = STORES[store].format(folder=place)
            workers.append(Worker([python, __file__, "--serve", url]))
            workers[-1].read()
        ratios: dict[str, list[float]] = {path: [] for path in PATHS}
        for number in range(blocks):
            turn = workers if number % 2 else workers[::-1]
            for path in PATHS:
                taken = {id(worker): float(worker.ask(path)) for worker in turn}
                ratios[path].append(taken[id(workers[0])] / taken[id(workers[1])])
        for worker in workers:
            worker.stop()
    return {path: median(values) for path, values in ratios.items()}


def main() -> int:
    """The command; 3 where a path's interval does not lie below 1.05."""
    arguments = parser(__doc__, "quick", "only")
    arguments.add_argument("python", nargs="?", help="the other checkout's Python")
    arguments.add_argument("--pairs", type=int)
    arguments.add_argument("--blocks", type=int)
    arguments.add_argument("--serve", help=SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return 0
    if not options.python:
        arguments.error("name the other checkout's Python")
    pairs_wanted = options.pairs or (1 if options.quick else 10)
    blocks = options.blocks or (1 if options.quick else 6)
    found: dict[str, dict[str, float]] = {}
    for store in [store for store in STORES if wanted(options, store)]:
        pairs = [pair(options.python, store, blocks) for _ in range(pairs_wanted)]
        for path in PATHS:
            ratios = [each[path] for each in pairs]
            low, high = interval(ratios)
            found[f"{store}: {path}"] = {"ratio": median(ratios), "low": low, "high": high}
            if not options.json:
                print(
                    f"{store}: {path:12} {median(ratios):.3f}  ({low:.3f} to {high:.3f})",
                    flush=True,
                )
    if options.json:
        emit(options, found)
    return 3 if any(item["high"] >= 1.05 for item in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
