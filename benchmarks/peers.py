"""The backends beside what people would use instead, and beside the least that has to be done, in one run.

    python -m benchmarks.peers [--data FILE] [--rounds N] [--minutes N] [--episodes N] [--dir FOLDER] [--json]
        [--quick] [--only PATH] [--peers NAME ...]

Needs the dependency group ``benchmarks``; `benchmarks.contestants` says who takes part. Stores episodes of
25 steps: transcripts that ``--data`` names, else tau-bench's airline runs in the folder that
``MEMORY_CORE_DATA`` names, else made ones; each is repeated under new ids. Each contestant has a process of
its own, and they take turns, block by block, each with one block that is not timed before the one that is.
What a block stores is made just before it.

- *batch put*: 100 episodes at once, and *put*: one by one; *8 tasks* and *64 tasks* put at the same time
- *log at 10*, *log at 1000*: the next step of a running episode that has so many; peers read the document,
  add the step and write it
- *get*, *page* (the newest 10 of a domain): *touched* means that every step of what was read is looked at;
  peers return all of it in any case; *running, touched*: the same gets of episodes that run, with 25
  logged steps
- *related*: the episodes within three edges, two leading out of each episode
- *YCSB A* to *F*: mixed loads (`benchmarks.ycsb`) by so many tasks
- *cold*: the store is opened, one episode is read, and it is closed again, after the system has dropped the
  files from its cache (where it can)

A block that writes includes the index entries which a store puts off until it is idle. *Acknowledged* is the
time until every put has returned: each is durable then, and found by every query.

The first table has calls a second (of the puts: records), the median of all rounds. The others have how
many times as fast ``turso:`` and ``lmdb:`` are as each of the others in the same rounds: the median, and
its 95 % interval in brackets; over 1 we are faster.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

from benchmarks import harness
from benchmarks.contestants import CONTESTANTS, Documents, as_json, available
from benchmarks.decoding import samples
from benchmarks.harness import Turns, Worker
from benchmarks.workload import TASKS, episode, step
from benchmarks.ycsb import Load, all_of
from memory_core import Episode
from memory_core.codec.json_objects import record_to_json
from memory_core.records import new_id

STEPS = 25
BATCH = 100
BATCHES = 3
"""How many a block has, one after the other."""
RUNNING = 10
"""So many episodes run."""
CALLS = {"put": 30, "tasks": TASKS, "log": 10, "get": 200, "page": 10, "related": 10, "load": 128}
"""How many calls a block has."""
COMPARED = ("turso", "lmdb", "turso unsynced", "lmdb unsynced")
NEVER_COLD = ("inmemory", "server", "jsonl")
"""No files; started before; reads the whole file: `benchmarks.jsonl_opening` measures that."""
LEAST = 5
"""So few rounds are always run, whatever they take."""
PUTS = {"batch put": 0, "put": 1, "8 tasks": 8, "64 tasks": TASKS}
"""How many tasks put at the same time; 0 for a batch."""
ACKNOWLEDGED = ", acknowledged"
YCSB = {"A": (1, 8, 64), "B": (64,), "C": (64,), "D": (64,), "E": (64,), "F": (64,)}

Work: TypeAlias = Callable[[Any], Awaitable[object]]
"""A block, given the contestant."""


def material(data: Path | None, number: int) -> list[Episode]:
    """Episodes of 25 steps, repeated under new ids and at other times."""
    found = [episode(each) for each in range(200)] if data is None else list(samples(data))
    return repeated([each for each in found if each.step_count >= STEPS] or found, number)


def repeated(rich: Sequence[Episode], number: int, first: int = 0) -> list[Episode]:
    """So many episodes with the content of these."""
    made: list[Episode] = []
    for each in range(first, first + number):
        one = rich[each % len(rich)]
        delta = timedelta(seconds=each)
        ended = one.end_time and one.end_time + delta
        steps, start = one.steps[:STEPS], one.start_time + delta
        made.append(one.replace(id=new_id(), steps=steps, start_time=start, end_time=ended))
    return made


def touch(found: Any) -> None:
    """Look at every step."""
    if isinstance(found, Episode):
        for step in found.steps:
            _ = step.tool


def paths_of(given: argparse.Namespace) -> list[str]:
    """What is measured, in order."""
    puts_ = [f"{path}{suffix}" for path in PUTS for suffix in ("", ACKNOWLEDGED)]
    reads = [f"{path}{suffix}" for suffix in ("", ", touched") for path in ("get", "page")]
    loads = [
        f"YCSB {shape}, {tasks} task{'s' * (tasks > 1)}"
        for shape, numbers in YCSB.items()
        for tasks in numbers
    ]
    logs = [f"log at {length}" for length in _lengths(given)]
    every = [*puts_, *logs, *reads, "running, touched", "related", *loads, "cold"]
    return [path for path in every if harness.wanted(given, path)]


def _lengths(given: argparse.Namespace) -> tuple[int, int]:
    """How many steps the episodes have of which the next one is logged."""
    return 10, 100 if given.quick else 1_000


class Contestant:
    """A contestant's episodes and blocks."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.peer: Any = None
        self.stored = material(given.data, given.episodes)
        self._rich = self.stored[:200]
        self._made = len(self.stored)
        self._as_json: dict[UUID, dict[str, Any]] = {}
        domains = sorted({one.context.domain for one in self.stored})
        # Each has episodes of its own, as not all contestants take part in each.
        self._loads = {
            shape: Load([*self.stored], lambda: self._fresh(1)[0], domains) for shape in YCSB
        }
        self._running: dict[int, tuple[Episode, Iterator[int]]] = {}
        self._begun: list[Episode] = []
        self._calls = {name: number // (5 if given.quick else 1) for name, number in CALLS.items()}

    def values(self, one: Episode) -> dict[str, Any]:
        """An episode as JSON, made before the block."""
        return self._as_json[one.id]

    def _fresh(self, number: int) -> list[Episode]:
        """New episodes."""
        made = repeated(self._rich, number, self._made)
        self._made += number
        return self._at_hand(made)

    def _at_hand(self, some: list[Episode]) -> list[Episode]:
        """Episodes in the form that the contestant takes."""
        if isinstance(self.peer, Documents):
            self._as_json.update((one.id, as_json(one)) for one in some)
        return some

    async def prepare(self) -> None:
        """Fill the store, and begin the episodes that run while they are read, or are logged to."""
        peer, ids = self.peer, [one.id for one in self.stored]
        for start in range(0, len(ids), BATCH):
            await peer.batch(self._at_hand(self.stored[start : start + BATCH]))
            self._as_json.clear()
        for start in range(0, len(ids) if peer.relate else 0, BATCH):
            await peer.relate(edges(ids, range(start, min(start + BATCH, len(ids)))))
        for length in _lengths(self.given) if peer.start else ():
            if harness.wanted(self.given, f"log at {length}"):
                one = episode(0, length).replace(end_time=None, outcome=None, reward=None)
                self._running[length] = one, itertools.count(length + 1)
                await peer.start(one)
        if peer.start and harness.wanted(self.given, "running, touched"):
            ended = repeated(self._rich, RUNNING, self._made)
            self._made += RUNNING
            self._begun = [one.replace(end_time=None, outcome=None, reward=None) for one in ended]
            for one in self._begun:
                await peer.start(one)
        await peer.settle()

    async def block(self, path: str, number: int) -> float | None:
        """Seconds of a call or record in this round; ``None`` where the contestant has no such path.

        Another block goes before the one that is timed: since this contestant's last turn, others have had
        the processor's caches.
        """
        random.seed(number)  # all draw the same
        name = path.removesuffix(ACKNOWLEDGED)
        seconds = units = 0.0
        for _ in range(2):
            units, work = self._drawn(name)
            if work is None:
                return None
            timed = work if name != path else partial(settled, work)
            seconds = await harness.timed(partial(timed, self.peer))
            await self.peer.settle()
            self._as_json.clear()
        return seconds / units

    def _drawn(self, path: str) -> tuple[int, Work | None]:
        """How many calls or records a block has, and the block."""
        if path in PUTS:
            return self._puts(path)
        if path.startswith("log at "):
            return self._logs(int(path.rsplit(maxsplit=1)[-1]))
        return self._mixed(path) if path.startswith("YCSB ") else self._reads(path)

    def _puts(self, path: str) -> tuple[int, Work | None]:
        tasks = PUTS[path]
        if not tasks:
            return BATCHES * BATCH, partial(batches, some=self._fresh(BATCHES * BATCH))
        count = self._calls["put" if tasks == 1 else "tasks"]
        return count, partial(puts, some=self._fresh(count), tasks=tasks)

    def _logs(self, length: int) -> tuple[int, Work | None]:
        if not self.peer.log:
            return 0, None
        (one, numbers), count = self._running[length], self._calls["log"]
        steps = [step(next(numbers), one.start_time) for _ in range(count)]
        return count, partial(logged, one=one, steps=steps)

    def _reads(self, path: str) -> tuple[int, Work | None]:
        look = touch if path.endswith(", touched") else None
        chosen = random.choices(self.stored, k=self._calls["get"])
        if path.startswith("get"):
            return len(chosen), partial(gets, some=chosen, look=look)
        if path.startswith("page"):
            asked = [one.context.domain for one in chosen[: self._calls["page"]]]
            return len(asked), self.peer.page and partial(pages, domains=asked, look=look)
        if path == "related":
            near = chosen[: self._calls["related"]]
            return len(near), self.peer.related and partial(related, some=near)
        if not self._begun:
            return 0, None
        run = random.choices(self._begun, k=self._calls["get"])
        return len(run), partial(gets, some=run, look=look)

    def _mixed(self, path: str) -> tuple[int, Work | None]:
        shape, tasks = path[len("YCSB ")], int(path.split()[2])
        if not getattr(self.peer, {"E": "page", "F": "modify"}.get(shape, "get")):
            return 0, None
        drawn = self._loads[shape].draw(shape, self._calls["load"])
        self._at_hand([one for kind, one in drawn if kind == "update"])
        return len(drawn), partial(all_of, operations=drawn, tasks=tasks)


async def settled(work: Callable[[Any], Awaitable[object]], peer: Any) -> None:
    """The work, and what it has put off."""
    await work(peer)
    await peer.settle()


def edges(ids: Sequence[UUID], places: range) -> list[tuple[UUID, UUID]]:
    """Two edges out of each of these episodes: to the next one, and to the seventh after it."""
    return [(ids[at], ids[(at + far) % len(ids)]) for at in places for far in (1, 7)]


async def batches(peer: Any, some: Sequence[Episode]) -> None:
    """Batches of puts, one after the other."""
    for start in range(0, len(some), BATCH):
        await peer.batch(some[start : start + BATCH])


async def puts(peer: Any, some: Sequence[Episode], tasks: int) -> None:
    """Puts by so many tasks."""

    async def task(mine: Sequence[Episode]) -> None:
        for one in mine:
            await peer.put(one)

    await asyncio.gather(*(task(some[start::tasks]) for start in range(tasks)))


async def logged(peer: Any, one: Episode, steps: Sequence[Any]) -> None:
    """The next steps of a running episode."""
    for step_ in steps:
        await peer.log(one, step_, record_to_json(one.replace(steps=(step_,)))["steps"][0])


async def gets(peer: Any, some: Sequence[Episode], look: Callable[[Any], None] | None) -> None:
    """Reads by id."""
    for found in [await peer.get(one) for one in some]:
        if look:
            look(found)


async def related(peer: Any, some: Sequence[Episode]) -> None:
    """What is near."""
    for one in some:
        await peer.related(one)


async def pages(peer: Any, domains: Sequence[str], look: Callable[[Any], None] | None) -> None:
    """Pages of domains."""
    for domain in domains:
        for found in await peer.page(domain):
            if look:
                look(found)


def drop_from_cache(folder: Path) -> None:
    """Ask the system to read these files from the disk again."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


async def cold(name: str, folder: Path, contestant: Contestant) -> float:
    """Seconds of opening a store, the first read, and closing it."""

    async def opened(one: Episode) -> None:
        async with CONTESTANTS[name](folder, contestant.values) as peer:
            assert await peer.get(one) is not None

    drop_from_cache(folder)
    return await harness.timed(partial(opened, random.choice(contestant.stored)))


async def serve(given: argparse.Namespace) -> None:
    """One contestant, in its process: runs the blocks that it is told to, and says what each took."""
    contestant = Contestant(given)

    async def asked() -> tuple[str, int] | None:
        # The loop runs on: what a contestant does by itself between the blocks is not kept for the next one.
        line = await asyncio.to_thread(sys.stdin.readline)
        return json.loads(line) if line else None

    async with CONTESTANTS[given.serve](given.dir, contestant.values) as contestant.peer:
        await contestant.prepare()
        print("ready", flush=True)
        while (task := await asked()) and task[0] != "cold":
            print(json.dumps(await contestant.block(*task)), flush=True)
    while task:
        able = given.serve not in NEVER_COLD
        seconds = await cold(given.serve, given.dir, contestant) if able else None
        print(json.dumps(seconds), flush=True)
        task = await asked()


def started(given: argparse.Namespace, folder: Path) -> dict[str, Worker]:
    """A process for each contestant, which has filled its store."""
    workers: dict[str, Worker] = {}
    for name in given.peers or available():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        options = ["--serve", name, "--dir", str(place), "--episodes", str(given.episodes)]
        options += ["--quick"] * given.quick
        for option in ("data", "only"):
            if value := getattr(given, option):
                options += [f"--{option}", str(value)]
        workers[name] = Worker([sys.executable, "-m", "benchmarks.peers", *options])
    for worker in workers.values():
        worker.read()
    return workers


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The rates of all rounds by path and contestant, and the ratios of files and LMDB to each."""
    workers, turns = started(given, folder), Turns()
    *paths, last = paths_of(given)
    if last != "cold":
        paths.append(last)
    end = time.monotonic() + 60 * given.minutes
    rounds = 0

    def take_turns(path: str, number: int) -> None:
        for name in list(workers)[:: -1 if number % 2 else 1]:
            seconds = json.loads(workers[name].ask(json.dumps([path, number])))
            if seconds is not None:
                turns.seconds.setdefault(path, {}).setdefault(name, []).append(seconds)

    while paths and rounds < given.rounds and (rounds < LEAST or time.monotonic() < end):
        for path in paths:
            take_turns(path, rounds)
        rounds += 1
    for number in range(rounds or given.rounds) if last == "cold" else ():
        take_turns(last, number)
    for worker in workers.values():
        worker.stop()
    return results_of(given, turns, rounds, list(workers))


def results_of(
    given: argparse.Namespace, turns: Turns, rounds: int, names: Sequence[str]
) -> dict[str, Any]:
    """The rates and ratios of these turns."""
    return {
        "episodes": given.episodes,
        "rounds": rounds,
        "material": given.data.name if given.data else "synthetic",
        "rates": {
            path: {name: [1 / one for one in each] for name, each in found.items()}
            for path, found in turns.seconds.items()
        },
        "batches": {
            one: harness.ratio(turns.seconds["put"][one], turns.seconds["batch put"][one])
            for one in COMPARED
            if one in turns.seconds.get("put", {}) and one in turns.seconds.get("batch put", {})
        },
        "running": {
            one: harness.ratio(taken, turns.seconds["get, touched"][one])
            for one, taken in turns.seconds.get("running, touched", {}).items()
            if one in turns.seconds.get("get, touched", {})
        },
        "ratios": {
            one: {
                path: {name: turns.ratio(path, one, name) for name in found if name != one}
                for path, found in turns.seconds.items()
                if one in found
            }
            for one in COMPARED
            if one in names
        },
    }


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    rates = results["rates"]
    names = list(dict.fromkeys(name for found in rates.values() for name in found))
    print(f"{'':18}" + "".join(f"{name:>14}" for name in names))
    for path, found in rates.items():
        middle = {name: harness.median(each) for name, each in found.items()}
        cells = (f"{middle[name]:>14,.0f}" if name in middle else f"{'':>14}" for name in names)
        print(f"{path:18}" + "".join(cells))
    for ours, paths in results["ratios"].items():
        others = [name for name in names if name != ours]
        print(f"\n{ours} beside\n{'':18}" + "".join(f"{name:>22}" for name in others))
        for path, found in paths.items():
            cells = [harness.shown(found[name]) if name in found else "" for name in others]
            print(f"{path:18}" + "".join(f"{cell:>22}" for cell in cells))
    print()
    for name, found in results["running"].items():
        print(f"{name}: a running episode takes {harness.shown(found)} times a complete one")


def main() -> None:
    """The command."""
    parser = harness.parser(__doc__, "quick", "only", "dir")
    data = os.environ.get("MEMORY_CORE_DATA")
    real = Path(data) / "tau_bench" / "gpt-4o-airline.json.gz" if data else None
    parser.add_argument("--data", type=Path, default=real)
    parser.add_argument("--rounds", type=int)
    parser.add_argument(
        "--minutes", type=float, default=7, help="then no further round begins, once there are five"
    )
    parser.add_argument("--episodes", type=int)
    parser.add_argument("--peers", nargs="+", choices=[*CONTESTANTS], metavar="NAME")
    parser.add_argument("--serve", choices=[*CONTESTANTS], help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.rounds = given.rounds or (2 if given.quick else 15)
    given.episodes = given.episodes or (100 if given.quick else 2_000)
    if given.serve:
        asyncio.run(serve(given))
    else:
        harness.run(measure, given, show)


if __name__ == "__main__":
    main()
