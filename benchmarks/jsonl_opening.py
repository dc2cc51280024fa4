"""What opening a store of small episodes takes, with JSON lines beside the other embedded backends.

    python -m benchmarks.jsonl_opening [EPISODES]

Needs the distribution ``memory-storage-jsonl``. The episodes have a description, a type, a domain and
two tags and are written a hundred at a time. Then the store is opened and closed again seven times; the
times are the best ones, CPU time of all threads being what a loaded machine changes least.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

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


async def measure(url: str, episodes: int) -> tuple[float, float, int]:
    """Seconds of the fastest opening, those of CPU time, and the size of the store in bytes."""
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
    return min(walls), min(used), size


def main() -> None:
    """Print a line for each backend."""
    episodes = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with TemporaryDirectory() as folder:
        for scheme in ("jsonl", "turso", "lmdb"):
            wall, cpu, size = asyncio.run(measure(f"{scheme}:{Path(folder, scheme)}", episodes))
            print(
                f"{scheme:6} {episodes:,} episodes, {size / 1e6:.1f} MB: "
                f"opened in {wall * 1e3:.0f} ms, {cpu * 1e3:.0f} ms of CPU time"
            )


if __name__ == "__main__":
    main()
