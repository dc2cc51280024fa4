"""The hit rate of an agent's day: a few episodes read again and again, the same questions, some writes.

    python -m benchmarks.agent_workload [--url URL] [--quick] [--json]

An agent works on one task after the other. For each it picks a few episodes to work with, 80 % of them
out of the same 20 %, and reads each several times before it is done: when it plans, and again when it
comes to a step like it. Now and then it asks one of its standing questions, and asks it again. 5 % of
all operations write, half of them new episodes, half changes of one it works with. The cache has room
for 20 % of the episodes, the answers to the questions included.

What the cache does with records that were just written is a setting, so both are shown and judged. The
exit code is 0 when both reach the bound, 1 when the default (``write_through=True``) misses it, and 3 when
only the other one does. With ``--memoryless`` every read picks an episode independently, as if the agent
forgot at once what it works on: then no cache of this size can answer more than 80 % of the reads, whatever
it keeps; it is not judged.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from benchmarks import harness
from memory_core import (
    CacheConfig,
    Episode,
    Memory,
    Outcome,
    Query,
    TaskContext,
    open_memory,
)

START = datetime(2025, 1, 1, tzinfo=UTC)
DOMAINS = ("web", "data", "infra", "docs")
BOUND = 0.9
DEFAULT = "write_through=True"


@frozen(kw_only=True)
class Workload:
    """How an agent works.

    Attributes:
        episodes: in the store at the beginning.
        operations: how many, about.
        capacity: of the cache, as a share of the episodes.
        writes: share of the operations.
        questions: standing questions.
        askings: of the question that a task is about.
        picks: episodes that a task is worked on with.
        readings: of each pick.
        hot: share of the episodes out of which ``hot_picks`` of the picks are.
        hot_picks: their share.
    """

    episodes: int = 2_000
    operations: int = 60_000
    capacity: float = 0.2
    writes: float = 0.05
    questions: int = 25
    askings: int = 3
    picks: int = 3
    readings: int = 6
    hot: float = 0.2
    hot_picks: float = 0.8


def episode(number: int) -> Episode:
    return Episode(
        task_description=f"task {number}",
        context=TaskContext(domain=DOMAINS[number % len(DOMAINS)]),
        start_time=START + timedelta(minutes=number),
        end_time=START + timedelta(minutes=number, seconds=30),
        outcome=Outcome.success("done"),
        tags=(f"topic-{number % 25}",),
        metadata={"run": str(number)},
    )


class Agent:
    """Draws operations; the same for every setting."""

    def __init__(self, workload: Workload, memory: Memory) -> None:
        self._load = workload
        self._memory = memory
        self._random = random.Random(7)
        self._known: list[Episode] = []
        self._questions = [
            Query(Episode).where(tags=f"topic-{number}").limit(20)
            for number in range(workload.questions)
        ]

    async def prepare(self) -> None:
        self._known = [episode(number) for number in range(self._load.episodes)]
        await self._memory.store_episodes_batch(self._known)
        self._random.shuffle(self._known)

    async def work(self) -> int:
        """How many operations it was."""
        done = 0
        while done < self._load.operations:
            done += await self._task()
        return done

    async def _task(self) -> int:
        load, chance = self._load, self._random
        question = chance.choice(self._questions)
        picks = [self._pick() for _ in range(load.picks)]
        steps: list[int | None] = [pick for pick in picks for _ in range(load.readings)]
        steps += [None] * load.askings
        chance.shuffle(steps)
        done = 0
        for number in steps:
            done += 1
            if number is None:
                await self._memory.query_episodes(question)
                continue
            await self._memory.get_episode(self._known[number].id)
            if chance.random() < load.writes * len(steps) / (load.picks * load.readings):
                done += 1
                await self._write(number)
        return done

    async def _write(self, number: int) -> None:
        if self._random.random() < 0.5:
            # It takes the place of one that nobody will read any more.
            fresh = episode(self._load.episodes + self._random.randrange(10**6))
            self._known[self._random.randrange(len(self._known))] = fresh
        else:
            fresh = evolve(self._known[number], metadata={"run": str(self._random.random())})
            self._known[number] = fresh
        await self._memory.store_episode(fresh)

    def _pick(self) -> int:
        hot = int(len(self._known) * self._load.hot)
        if self._random.random() < self._load.hot_picks:
            return self._random.randrange(hot)
        return self._random.randrange(hot, len(self._known))


async def run(
    workload: Workload, url: str, namespace: str = "default", **settings: Any
) -> dict[str, float]:
    """What one run measured."""
    config = CacheConfig(max_entries=int(workload.episodes * workload.capacity), **settings)
    async with open_memory(url, cache=config, namespace=namespace) as memory:
        agent = Agent(workload, memory)
        await agent.prepare()
        before = (await memory.stats()).sections["cache.0.adaptive"]
        begun = time.perf_counter()
        operations = await agent.work()
        seconds = time.perf_counter() - begun
        sections = (await memory.stats()).sections
    after, coherence = sections["cache.0.adaptive"], sections["coherence"]
    hits, misses = (after[name] - before[name] for name in ("hits", "misses"))
    return {
        "hit_rate": round(hits / (hits + misses), 4),
        "hits": hits,
        "misses": misses,
        "entries": after["entries"],
        "queries_dropped": coherence.get("invalidated_predicate", 0),
        "operations_per_second": round(operations / seconds),
    }


async def measure(workload: Workload, url: str | None) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for write_through in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            target = url or f"lmdb:{Path(folder) / 'lmdb'}?durability=normal"
            name = f"write_through={write_through}"
            # A namespace of its own, as both may run on the same store.
            namespace = f"through-{write_through}"
            found[name] = await run(workload, target, namespace, write_through=write_through)
    return found


def verdicts(results: dict[str, dict[str, float]]) -> dict[str, bool]:
    """Whether each setting reaches the bound."""
    return {name: found["hit_rate"] >= BOUND for name, found in results.items()}


def exit_code(reached: dict[str, bool]) -> int:
    """As the module says."""
    if not reached[DEFAULT]:
        return 1
    return 0 if all(reached.values()) else 3


def main() -> int:
    parser = harness.parser(__doc__, "quick")
    parser.add_argument(
        "--url", help="an empty store; by default an LMDB store in a temporary folder"
    )
    parser.add_argument("--operations", type=int)
    parser.add_argument("--memoryless", action="store_true", help="every read picks independently")
    given = parser.parse_args()
    short = 2_000 if given.quick else Workload().operations
    workload = Workload(operations=given.operations or short)
    if given.memoryless:
        workload = evolve(workload, picks=workload.picks * workload.readings, readings=1)
    results = asyncio.run(measure(workload, given.url))
    reached = {} if given.memoryless else verdicts(results)
    if given.json:
        harness.emit(given, results | {"bound": BOUND, "reached": reached})
    else:
        for name, values in results.items():
            shown = ", ".join(f"{key} {value:g}" for key, value in values.items())
            verdict = "reached" if reached.get(name) else "MISSED"
            judged = f"; {BOUND:.0%}: {verdict}" if reached else ""
            print(f"{name}{' (default)' if name == DEFAULT else ''}: {shown}{judged}")
    return exit_code(reached) if reached and not given.quick else 0


if __name__ == "__main__":
    sys.exit(main())
