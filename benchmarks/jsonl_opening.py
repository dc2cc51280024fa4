"""What opening a store of small episodes takes, with JSON lines beside the other embedded backends.

    python -m benchmarks.jsonl_opening [EPISODES ...] [--quick] [--json]

Needs the distribution ``memory-storage-jsonl``. The episodes have a description, a type, a domain and
two tags and are written a hundred at a time. Then the store is opened and closed again seven times; the
times are the best ones, CPU time of all threads being what a loaded machine changes least.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks import harness
from memory_core import Episode, TaskContext, open_memory

BATCH, OPENINGS = 100, 7


def episode(number: int) -> Episode:
    """A small one."""
    return Episode(
        task_description=f"Retry the upload of file {number} after a time-out",
        task_type="debugging",
        context=TaskContext(domain="web", language="python"),
        tags=("upload", f"run-{number % 50}"),
    )


async def opened(url: str, episodes: int) -> dict[str, float]:
    """Milliseconds of the fastest opening, those of CPU time, and the size of the store in MB."""
    async with open_memory(url) as memory:
        for start in range(0, episodes, BATCH):
            numbers = range(start, min(start + BATCH, episodes))
            await memory.store_episodes_batch([episode(number) for number in numbers])
        size = (await memory.stats()).size_bytes or 0
    walls: list[float] = []
    used: list[float] = []
    for _ in range(OPENINGS):
        wall, cpu = time.perf_counter(), time.process_time()
        async with open_memory(url):
            walls.append(time.perf_counter() - wall)
            used.append(time.process_time() - cpu)
    return {"ms": min(walls) * 1e3, "ms of CPU time": min(used) * 1e3, "MB": size / 1e6}


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """By backend and number of episodes."""
    numbers = given.episodes or ([1_000] if given.quick else [10_000, 40_000])
    return {
        f"{scheme} {number}": await opened(f"{scheme}:{folder / f'{scheme}-{number}'}", number)
        for number in numbers
        for scheme in ("jsonl", "turso", "lmdb")
    }


def main() -> None:
    """The command."""
    parser = harness.parser(__doc__, "quick")
    parser.add_argument("episodes", nargs="*", type=int)
    harness.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
