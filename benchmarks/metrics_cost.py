"""What metrics cost on the cached path, and what they cost when they are off.

    python -m benchmarks.metrics_cost [--quick] [--json]

Reads one cached episode through three memories that take turns: one with metrics, one without
(``metrics=False``), and one assembled by hand from storage and cache, as if there were no metrics. Ends with
3 unless metrics cost under a microsecond a read, and memories without them take less than 1.02 times as long
as the one by hand. Both are medians of pairs, judged by the upper end of their interval of at least 95 %.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Mapping, Sequence
from statistics import median
from time import process_time

from benchmarks import harness
from benchmarks.workload import episode
from memory_core import InMemoryStorage, Memory, open_memory
from memory_core.plugins import PluginRegistry
from memory_core.storage import StorageContext

READS, PAIRS = 20_000, 20
LONGEST_US, LARGEST_RATIO = 1.0, 1.02
#: The place of the bound from each end of the sorted pairs, by their number: it leaves at least 95 % between.
_PLACES = {10: 1, 20: 5}


def interval(values: Sequence[float]) -> dict[str, float]:
    """The median of pairs, and an interval that covers it in at least 95 % of cases.

    The number of pairs below the median is binomial: W. J. Conover, Practical Nonparametric Statistics, 3.2.
    """
    ordered, place = sorted(values), _PLACES[len(values)]
    return {"median": median(ordered), "low": ordered[place], "high": ordered[-1 - place]}


async def seconds_of(memory: Memory, wanted: str, reads: int) -> float:
    """Seconds of a read, of processor time: others on the machine do not count."""
    gc.collect()
    started = process_time()
    for _ in range(reads):
        await memory.get_episode(wanted)
    return (process_time() - started) / reads


async def measure(*, quick: bool = False) -> dict[str, dict[str, float]]:
    """The cost in microseconds, and the ratio without metrics."""
    pairs, reads = (10, READS // 10) if quick else (PAIRS, READS)
    stored = episode(1)
    registry = PluginRegistry()
    types = registry.record_types
    by_hand = Memory(InMemoryStorage(StorageContext(record_types=types)), registry=registry)
    async with (
        open_memory("inmemory:", cache="balanced") as on,
        open_memory("inmemory:", cache="balanced", metrics=False) as off,
        by_hand.with_cache("balanced") as plain,
    ):
        memories: Mapping[str, Memory] = {"on": on, "off": off, "plain": plain}
        for memory in memories.values():
            await memory.store_episode(stored)
            await seconds_of(memory, str(stored.id), 100)
        times: dict[str, list[float]] = {name: [] for name in memories}
        for number in range(pairs):
            for name in list(memories)[:: -1 if number % 2 else 1]:
                times[name].append(await seconds_of(memories[name], str(stored.id), reads))
    return {
        "cost us": interval(
            [1e6 * (a - b) for a, b in zip(times["on"], times["off"], strict=True)]
        ),
        "off to plain": interval(
            [a / b for a, b in zip(times["off"], times["plain"], strict=True)]
        ),
        "read us": {name: 1e6 * median(found) for name, found in times.items()},
    }


def kept(found: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether metrics cost as little as they should."""
    return found["cost us"]["high"] < LONGEST_US and found["off to plain"]["high"] < LARGEST_RATIO


def main() -> int:
    """Measure, print, and judge."""
    given = harness.parser(__doc__, "quick").parse_args()
    found = asyncio.run(measure(quick=given.quick))
    harness.emit(given, found)
    return 0 if given.quick or kept(found) else 3


if __name__ == "__main__":
    sys.exit(main())
