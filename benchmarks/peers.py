"""The backends beside what people would use instead, and beside the least that has to be done, in one run.

    python -m benchmarks.peers [--data FILE] [--rounds N] [--minutes N] [--episodes N] [--dir FOLDER] [--json]
        [--quick] [--only PATH] [--peers NAME ...]

Needs the dependency group ``benchmarks``; `benchmarks.contestants` says who takes part. Stores episodes of
25 steps: transcripts that ``--data`` names, else tau-bench's airline runs in the folder that
``MEMORY_CORE_DATA`` names, else made ones; each is repeated under new ids. The contestants take turns,
block by block.

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
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks import harness
from benchmarks.contestants import CONTESTANTS, as_json, available
from benchmarks.decoding import samples
from benchmarks.harness import Block, Turns
from benchmarks.workload import TASKS, episode, step
from benchmarks.ycsb import Load, all_of
from memory_core import Episode
from memory_core.codec.json_objects import record_to_json
from memory_core.records import new_id

STEPS = 25
BATCH = 100
RUNNING = 10
"""So many episodes run."""
CALLS = {"put": 30, "tasks": TASKS, "log": 10, "get": 200, "page": 10, "related": 10, "load": 128}
"""How many calls a block has."""
COMPARED = ("turso", "lmdb", "turso unsynced", "lmdb unsynced")
NEVER_COLD = ("inmemory", "server", "jsonl")
"""No files; started before; reads the whole file: `benchmarks.jsonl_opening` measures that."""
LEAST = 5
"""So few rounds are always run, whatever they take."""
YCSB = {"A": (1, 8, 64), "B": (64,), "C": (64,), "D": (64,), "E": (64,), "F": (64,)}


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


class Comparison:
    """The contestants, and what is measured of them."""

    def __init__(self, given: argparse.Namespace, peers: Mapping[str, Any]) -> None:
        self.given, self.peers, self.turns = given, peers, Turns()
        self.stored = material(given.data, given.episodes)
        self.as_json = {one.id: as_json(one) for one in self.stored}
        self._rich = self.stored[:200]
        self._made = len(self.stored)
        domains = sorted({one.context.domain for one in self.stored})
        # Each has episodes of its own, as not all contestants take part in each.
        self.loads = {
            shape: Load([*self.stored], lambda: self.fresh(1)[0], domains) for shape in YCSB
        }
        self.running: dict[int, Episode] = {}
        self.begun: list[Episode] = []
        self.calls = {name: number // (5 if given.quick else 1) for name, number in CALLS.items()}

    def values(self, one: Episode) -> dict[str, Any]:
        """An episode as JSON, made in advance."""
        return self.as_json[one.id]

    def fresh(self, number: int) -> list[Episode]:
        """New episodes."""
        made = repeated(self._rich, number, self._made)
        self._made += number
        self.as_json.update((one.id, as_json(one)) for one in made)
        return made

    async def prepare(self) -> None:
        """Fill every contestant."""
        ids = [one.id for one in self.stored]
        for peer in self.peers.values():
            for start in range(0, len(ids), BATCH):
                await peer.batch(self.stored[start : start + BATCH])
            if peer.relate:
                for start in range(0, len(ids), BATCH):
                    await peer.relate(edges(ids, range(start, min(start + BATCH, len(ids)))))
        for length in (10, 100 if self.given.quick else 1_000):
            name = f"log at {length}"
            if harness.wanted(self.given, name):
                one = episode(0, length).replace(end_time=None, outcome=None, reward=None)
                self.running[length] = one
                for peer in self.peers.values():
                    if peer.start:
                        await peer.start(one)

    async def begin(self) -> None:
        """Begin episodes that run while they are read."""
        if not harness.wanted(self.given, "running, touched"):
            return
        ended = self.fresh(RUNNING)
        self.begun = [one.replace(end_time=None, outcome=None, reward=None) for one in ended]
        for peer in self.peers.values():
            for one in self.begun if peer.start else ():
                await peer.start(one)

    async def round(self, number: int) -> None:
        """One round of every path."""
        for path, tasks in {"batch put": 0, "put": 1, "8 tasks": 8, "64 tasks": TASKS}.items():
            for acknowledged in (False, True):
                count = BATCH if not tasks else self.calls["put" if tasks == 1 else "tasks"]
                few = self.fresh(count)
                work = partial(puts, some=few, tasks=tasks) if tasks else partial(batch, some=few)
                name = f"{path}, acknowledged" if acknowledged else path
                await self.turn(name, count, work, acknowledged=acknowledged)
        for length, one in self.running.items():
            count = self.calls["log"]
            first = length + 1 + number * count
            steps = [step(first + each, one.start_time) for each in range(count)]
            await self.turn(f"log at {length}", count, partial(logged, one=one, steps=steps), "log")
        chosen = random.choices(self.stored, k=self.calls["get"])
        for suffix, look in {"": None, ", touched": touch}.items():
            await self.turn(f"get{suffix}", len(chosen), partial(gets, some=chosen, look=look))
            asked = [one.context.domain for one in chosen[: self.calls["page"]]]
            await self.turn(
                f"page{suffix}", len(asked), partial(pages, domains=asked, look=look), "page"
            )
        if self.begun:
            run = random.choices(self.begun, k=self.calls["get"])
            work = partial(gets, some=run, look=touch)
            await self.turn("running, touched", len(run), work, "start")
        near = chosen[: self.calls["related"]]
        await self.turn("related", len(near), partial(related, some=near), "related")
        for shape, loads in YCSB.items():
            for tasks in loads:
                name = f"YCSB {shape}, {tasks} task{'s' * (tasks > 1)}"
                if harness.wanted(self.given, name):
                    drawn = self.loads[shape].draw(shape, self.calls["load"])
                    needed = {"E": "page", "F": "modify"}.get(shape, "get")
                    run = partial(all_of, operations=drawn, tasks=tasks)
                    await self.turn(name, len(drawn), run, needed)

    async def turn(
        self,
        path: str,
        units: int,
        work: Callable[[Any], Awaitable[object]],
        needs: str = "get",
        *,
        acknowledged: bool = False,
    ) -> None:
        """One round of a path, of the contestants that have it.

        Args:
            path: what is measured.
            units: how many calls or records that are.
            work: what a contestant does.
            needs: what it must have for it.
            acknowledged: whether to leave out of the time what the contestant has put off.
        """
        if harness.wanted(self.given, path):
            able = {name: peer for name, peer in self.peers.items() if getattr(peer, needs)}
            timed = work if acknowledged else partial(settled, work)
            blocks: dict[str, Block] = {name: partial(timed, peer) for name, peer in able.items()}
            after = {name: peer.settle for name, peer in able.items()}
            await self.turns.run(path, blocks, units, after)


async def settled(work: Callable[[Any], Awaitable[object]], peer: Any) -> None:
    """The work, and what it has put off."""
    await work(peer)
    await peer.settle()


def edges(ids: Sequence[UUID], places: range) -> list[tuple[UUID, UUID]]:
    """Two edges out of each of these episodes: to the next one, and to the seventh after it."""
    return [(ids[at], ids[(at + far) % len(ids)]) for at in places for far in (1, 7)]


async def batch(peer: Any, some: Sequence[Episode]) -> None:
    """A batch of puts."""
    await peer.batch(some)


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


async def cold(comparison: Comparison, folders: Mapping[str, Path], rounds: int) -> None:
    """Opening a store, and the first read."""

    async def opened(name: str, one: Episode) -> None:
        async with CONTESTANTS[name](folders[name], comparison.values) as peer:
            assert await peer.get(one) is not None

    for _ in range(rounds):
        one = random.choice(comparison.stored)
        for folder in folders.values():
            drop_from_cache(folder)
        blocks: dict[str, Block] = {name: partial(opened, name, one) for name in folders}
        await comparison.turns.run("cold", blocks)


async def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The rates of all rounds by path and contestant, and the ratios of files and LMDB to each."""
    folders = {name: folder / name.replace(" ", "-") for name in given.peers or available()}
    async with AsyncExitStack() as stack:
        peers: dict[str, Any] = {}
        comparison = Comparison(given, peers)
        for name, place in folders.items():
            place.mkdir()
            opened = CONTESTANTS[name](place, comparison.values)
            peers[name] = await stack.enter_async_context(opened)
        await comparison.prepare()
        await comparison.begin()
        end = time.monotonic() + 60 * given.minutes
        rounds = 0
        while rounds < given.rounds and (rounds < LEAST or time.monotonic() < end):
            await comparison.round(rounds)
            rounds += 1
    if harness.wanted(given, "cold"):
        kept = {name: each for name, each in folders.items() if name not in NEVER_COLD}
        await cold(comparison, kept, rounds)
    turns = comparison.turns
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
            if one in folders
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
        "--minutes", type=float, default=4, help="then no further round begins, once there are five"
    )
    parser.add_argument("--episodes", type=int)
    parser.add_argument("--peers", nargs="+", choices=[*CONTESTANTS], metavar="NAME")
    given = parser.parse_args()
    given.rounds = given.rounds or (2 if given.quick else 15)
    given.episodes = given.episodes or (100 if given.quick else 2_000)
    harness.run(measure, given, show)


if __name__ == "__main__":
    main()
