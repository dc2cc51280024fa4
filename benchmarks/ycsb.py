"""Mixed loads of the shapes A to F of YCSB, on anything that can be read and written.

Cooper et al., Benchmarking Cloud Serving Systems with YCSB, 2010: A half reads, half updates; B 95 % reads;
C reads; D 95 % reads of the latest, 5 % new records; E 95 % pages, 5 % new records; F half reads, half
read, changed and written. Which record is read follows Zipf's distribution with the exponent .99. ``agent``
is a mix of ours: 60 % reads, 15 % pages, 10 % new episodes, 5 % updates, 10 % logged steps.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect
from collections.abc import Callable, Iterator, MutableSequence, Sequence
from itertools import accumulate, count
from random import Random
from typing import Any

from benchmarks.workload import step
from memory_core import Episode

SHAPES: dict[str, dict[str, float]] = {
    "A": {"read": 0.5, "update": 0.5},
    "B": {"read": 0.95, "update": 0.05},
    "C": {"read": 1},
    "D": {"latest": 0.95, "insert": 0.05},
    "E": {"page": 0.95, "insert": 0.05},
    "F": {"read": 0.5, "modify": 0.5},
    "agent": {"read": 0.6, "page": 0.15, "insert": 0.1, "update": 0.05, "log": 0.1},
}
SKEW = 0.99
DOMAINS = ("web", "airline", "retail", "infra")

Operation = tuple[str, Any]


class Load:
    """Draws operations on the episodes of a store; the same for each contestant.

    Args:
        stored: the episodes, oldest first; new ones are appended, and changed ones replaced.
        make: a new episode.
        domains: what pages are asked for.
        running: running episodes, for shapes that log steps.
    """

    def __init__(
        self,
        stored: MutableSequence[Any],
        make: Callable[[], Episode],
        domains: Sequence[str] = DOMAINS,
        running: Sequence[Episode] = (),
    ) -> None:
        self._stored, self._make, self._domains = stored, make, domains
        self._steps = [(one, count(one.step_count + 1)) for one in running]
        self._chance = Random(11)
        ranks = range(1, len(stored) + 1)
        self._weights = array("d", accumulate(1 / rank**SKEW for rank in ranks))

    def draw(self, shape: str, number: int) -> list[Operation]:
        """So many operations of a shape. What they insert is read by later draws only."""
        parts, known = SHAPES[shape], len(self._stored)
        kinds = self._chance.choices(list(parts), list(parts.values()), k=number)
        return [(kind, self._subject(kind, known)) for kind in kinds]

    def endless(self, shape: str) -> Iterator[Operation]:
        """Operations of a shape, one by one."""
        while True:
            yield from self.draw(shape, 64)

    def _subject(self, kind: str, known: int) -> Any:
        if kind == "page":
            return self._chance.choice(self._domains)
        if kind == "insert":
            made = self._make()
            self._stored.append(made)
            return made
        if kind == "log":
            one, numbers = self._chance.choice(self._steps)
            return one, step(next(numbers), one.start_time)
        rank = bisect(self._weights, self._chance.random() * self._weights[-1])
        place = known - 1 - rank if kind == "latest" else rank
        if kind == "update":
            changed = self._stored[place].replace(metadata={"run": str(self._chance.random())})
            self._stored[place] = changed
            return changed
        return self._stored[place]


async def perform(peer: Any, operation: Operation) -> None:
    """One operation."""
    kind, subject = operation
    if kind in ("read", "latest"):
        await peer.get(subject)
    elif kind == "page":
        await peer.page(subject)
    elif kind == "modify":
        await peer.modify(subject, "modified")
    elif kind == "log":
        await peer.log(*subject, {})
    else:
        await peer.put(subject)


async def all_of(peer: Any, operations: Sequence[Operation], tasks: int) -> None:
    """Operations, by so many tasks."""

    async def task(mine: Sequence[Operation]) -> None:
        for operation in mine:
            await perform(peer, operation)

    await asyncio.gather(*(task(operations[start::tasks]) for start in range(tasks)))
