"""How long the event loop pauses while 1,000 tasks read an episode of 5,000 steps.

    python -m benchmarks.pauses [--rounds N] [--only NAME] [--quick] [--json] [--dir FOLDER]

The episodes are complete or running: then their steps are records of their own. All tasks ask for one
episode, or each for one of four. A pause is how late a task goes on that sleeps for a millisecond. ``ms`` is
the longest pause of a round, ``own ms`` the most processor time that the loop's thread takes meanwhile
without collecting garbage, and ``collection ms`` the processor time of the longest collection, of any thread,
which depends on all that the process holds. Each is the median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from uuid import UUID

from benchmarks import harness
from memory_core import Episode, Memory, WriteBatch, open_memory
from memory_core.records import Step
from memory_core.testing.data.samples import short_steps

STORES = {"turso": "turso:{}/store.db", "lmdb": "lmdb:{}/store"}
TASKS, STEPS, EPISODES, BATCH = 1_000, 5_000, 4, 500
SLEEP = 0.001


async def complete(memory: Memory, count: int) -> UUID:
    """Store a complete episode."""
    made = Episode(task_description="complete", steps=short_steps(count))
    await memory.store_episode(made)
    return made.id


async def running(memory: Memory, count: int) -> UUID:
    """Store a running episode with logged steps."""
    made = await memory.start_episode(task_description="running")
    logged = [Step(episode_id=made.id, step=step) for step in short_steps(count)]
    for start in range(0, count, BATCH):
        await memory.write(WriteBatch().put(*logged[start : start + BATCH]))
    return made.id


class Watch:
    """What a task sees that sleeps for a millisecond again and again."""

    def __init__(self) -> None:
        self.longest = self.own = self.collected = 0.0
        self._loop = threading.get_ident()
        self._began: dict[int, float] = {}
        self._collecting = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            before, processor, self._collecting = perf_counter(), thread_time(), 0.0
            await asyncio.sleep(SLEEP)
            self.longest = max(self.longest, perf_counter() - before - SLEEP)
            self.own = max(self.own, thread_time() - processor - self._collecting)

    @contextmanager
    def collections(self) -> Generator[None]:
        """Follow the collections of garbage."""
        gc.callbacks.append(self._collects)
        try:
            yield
        finally:
            gc.callbacks.remove(self._collects)

    def _collects(self, phase: str, _: dict[str, int]) -> None:
        thread = threading.get_ident()
        if phase == "start":
            self._began[thread] = thread_time()
            return
        taken = thread_time() - self._began[thread]
        self.collected = max(self.collected, taken)
        if thread == self._loop:
            self._collecting += taken


async def watched(memory: Memory, ids: Sequence[UUID], tasks: int) -> Watch:
    """One round."""
    gc.collect()
    watch = Watch()
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(2 * SLEEP)

    async def read(number: int) -> int:
        episode = await memory.get_episode(ids[number % len(ids)])
        return 0 if episode is None else len(episode.steps)

    with watch.collections():
        await asyncio.gather(*(read(number) for number in range(tasks)))
        await asyncio.sleep(2 * SLEEP)
    watching.cancel()
    await asyncio.wait([watching])
    return watch


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Milliseconds by what is read."""
    tasks, count, rounds = (50, 500, 2) if given.quick else (TASKS, STEPS, given.rounds or 9)
    found: dict[str, dict[str, float]] = {}
    for (store, url), make in product(STORES.items(), (complete, running)):
        async with open_memory(url.format(folder)) as memory:
            ids = [await make(memory, count) for _ in range(EPISODES)]
            for name, asked in (("one", ids[:1]), ("four", ids)):
                subject = f"{store}: {name} {make.__name__}"
                if harness.wanted(given, subject):
                    found[subject] = typical(
                        [await watched(memory, asked, tasks) for _ in range(rounds)]
                    )
    return found


def typical(rounds: Sequence[Watch]) -> dict[str, float]:
    """The medians of rounds, milliseconds."""
    return {
        "ms": median(each.longest for each in rounds) * 1e3,
        "own ms": median(each.own for each in rounds) * 1e3,
        "collection ms": median(each.collected for each in rounds) * 1e3,
    }


def main() -> None:
    """The command."""
    parser = harness.parser(__doc__, "quick", "only", "dir")
    parser.add_argument("--rounds", type=int)
    harness.run(measure, parser.parse_args())


if __name__ == "__main__":
    main()
