"""A worker process of ``staleness``: its records, operations and checks.

The records are episodes in groups, and an edge from each episode to another one of its writer. The version
of an episode tells whether it is there, and by what queries it is found; that of an edge is odd when it is
there. Edges are deleted by cascade, when one of their ends is deleted, sometimes in the batch that puts them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid5

from attrs import field, frozen

from memory_core.memory import Memory
from memory_core.query import MAX_LIMIT, Page, Query
from memory_core.records import Episode, Relationship
from memory_core.storage import WriteBatch
from memory_core.testing.checks.ledger import LaggingLedger, Ledger

__all__ = [
    "NEVER",
    "StalenessRun",
    "Versions",
    "Worker",
    "bucket",
    "edge_id",
    "edge_of",
    "episode_id",
    "episode_of",
    "is_deleted",
]

NEVER = "never"
"""The reason of an edge that is put and deleted by a cascade in the same batch: no read may ever return
it."""

_NAMESPACE = UUID("0b5ad6a0-4f5e-4c58-8f6a-3d5f3b9a3c11")
_TIME = datetime(2025, 1, 1, tzinfo=UTC)


def is_deleted(version: int) -> bool:
    """Whether the episode is absent in this version. Version 0 is before the first write."""
    return version % 5 == 0


def bucket(version: int) -> str:
    """A metadata value that a version implies, so that updates move episodes between queries."""
    return str(version % 3)


def episode_id(key: int) -> UUID:
    """The id of an episode."""
    return uuid5(_NAMESPACE, str(key))


def edge_id(key: int) -> UUID:
    """The id of the edge that leaves an episode."""
    return uuid5(_NAMESPACE, f"edge {key}")


def episode_of(key: int, version: int, groups: int) -> Episode:
    """The episode in a version in which it exists."""
    return Episode(
        id=episode_id(key),
        task_description=f"record {key}",
        start_time=_TIME,
        end_time=_TIME,
        tags=(f"group-{key % groups}",),
        metadata={"key": str(key), "version": str(version), "bucket": bucket(version)},
    )


def edge_of(key: int, end: int, version: str) -> Relationship:
    """A version of the edge from one episode to another."""
    return Relationship(
        id=edge_id(key),
        from_episode_id=episode_id(key),
        to_episode_id=episode_id(end),
        relationship_type="follows",
        reason=version,
        created_at=_TIME,
    )


@frozen
class Versions:
    """The versions of a record that a read may return, both ends included."""

    oldest: int
    newest: int

    def __contains__(self, version: int) -> bool:
        return self.oldest <= version <= self.newest

    def may_be_absent(self, wanted: str | None = None) -> bool:
        """Whether a query for some buckets may miss an episode."""
        return any(
            is_deleted(version) or (wanted is not None and bucket(version) != wanted)
            for version in range(self.oldest, self.newest + 1)
        )

    def may_be_there(self, wanted: str | None = None) -> bool:
        """Whether a query for some buckets may find an episode."""
        return any(
            not is_deleted(version) and (wanted is None or bucket(version) == wanted)
            for version in range(self.oldest, self.newest + 1)
        )


@frozen(kw_only=True)
class StalenessRun:
    """The settings of a run.

    Attributes:
        url: the store.
        processes: how many processes.
        operations: operations of each.
        keys: how many episodes there are.
        groups: how many groups they form, for queries.
        writes: share of batches that write or delete among the operations.
        queries: share of queries, pages and counts.
        page_size: episodes of a limited page.
        tasks: concurrent tasks in each process.
        capacity: entries of each process's cache.
        coherent: whether the caches look at the store's position.
        max_staleness: hide the store's position, as if it were on a server, and allow reads to miss what
            other processes wrote in these last seconds.
        tiers: the caches.
        seed: of the random choices.
    """

    url: str
    processes: int = 4
    operations: int = 2_000
    keys: int = 200
    groups: int = 10
    writes: float = 0.1
    queries: float = 0.2
    page_size: int = 4
    tasks: int = 4
    capacity: int = 300
    coherent: bool = True
    max_staleness: float | None = None
    tiers: tuple[str, ...] = ("adaptive",)
    seed: int = 1


@frozen
class Findings:
    """The results of a worker.

    Attributes:
        operations: the number of operations by type.
        violations: descriptions of reads that returned what they must not; the first few.
        counts: the numbers of violations, of edges deleted by a cascade, and of queries.
    """

    operations: Counter[str] = field(factory=Counter[str])
    violations: list[str] = field(factory=list[str])
    counts: Counter[str] = field(factory=Counter[str])


class Worker:
    """A process's share of the run.

    Args:
        settings: what to run.
        number: of the process, from 0.
        ledger: of the episodes, and then their edges.
        memory: the store behind the caches.
    """

    def __init__(self, settings: StalenessRun, number: int, ledger: Ledger, memory: Memory) -> None:
        self._run = settings
        self._number = number
        self._ledger = ledger
        self._memory = memory
        self._random = random.Random(settings.seed * 1_000 + number)
        bound = settings.max_staleness
        self._lagging = None if bound is None else LaggingLedger(ledger, bound, time.monotonic)
        self.findings = Findings()

    async def work(self, operations: int) -> None:
        """Run a number of operations."""
        share = operations // self._run.tasks
        async with asyncio.TaskGroup() as group:
            for task in range(self._run.tasks):
                group.create_task(self._task(task, share))

    async def _task(self, task: int, operations: int) -> None:
        run, writers = self._run, self._run.processes * self._run.tasks
        own = range(self._number * run.tasks + task, run.keys, writers)
        for done in range(operations):
            choice = self._random.random()
            if choice < run.writes and own:
                await self._write_and_look(own)
            elif choice < run.writes + run.queries:
                await self._ask(self._hot(run.groups))
            else:
                await self._read_something(self._hot(run.keys), edge=0.2)
            if done % 50 == 0:
                await asyncio.sleep(0)

    def _hot(self, most: int) -> int:
        # Squaring makes some keys hotter than others.
        return int(self._random.random() ** 2 * most)

    # Writing

    async def _write_and_look(self, own: range) -> None:
        """Write and read the result back: own writes are where a cache is most likely to be wrong."""
        keys = self._random.sample(own, min(len(own), self._random.choice((1, 1, 2, 3))))
        group, left = keys[0] % self._run.groups, bucket(self._ledger.begun(keys[0]))
        looks = self._random.random() < 0.3
        if looks:
            await self._pages(group, left)
        deleted = await self._write(keys, own)
        if looks:
            await self._pages(group, left)
        await self._read_something((deleted or keys)[0], edge=0.5)

    async def _write(self, keys: Sequence[int], own: range) -> list[int]:
        """Write a batch of some of this task's own episodes, and the edges that leave them.

        Returns:
            The keys that the batch deletes.
        """
        versions = {key: self._ledger.begun(key) + 1 for key in keys}
        deleted = [key for key, version in versions.items() if is_deleted(version)]
        puts = [item for item in versions.items() if item[0] not in deleted]
        batch = WriteBatch().put(*(episode_of(*item, self._run.groups) for item in puts))
        for key in keys:
            batch = self._with_edge(batch, key, own, deleted, versions)
        batch = batch.delete(Episode, *map(episode_id, deleted))
        for key in own:
            if self._has_edge(key) and {key, self._end(key, own)}.intersection(deleted):
                versions[self._of_edge(key)] = self._ledger.begun(self._of_edge(key)) + 1
                self.findings.counts["cascades"] += 1
        for record, version in versions.items():
            self._ledger.begin(record, version)
        await self._memory.write(batch)
        for record, version in versions.items():
            self._ledger.acknowledge(record, version)
        self.findings.operations["deletes" if deleted else "writes"] += 1
        return deleted

    def _with_edge(
        self,
        batch: WriteBatch,
        key: int,
        own: range,
        deleted: Sequence[int],
        versions: dict[int, int],
    ) -> WriteBatch:
        """Add the edge that leaves an episode to the batch, if both its ends exist by then."""
        end, record = self._end(key, own), self._of_edge(key)
        there = all(item in deleted or self._is_there(item, versions) for item in (key, end))
        if end == key or not there:
            return batch
        if {key, end}.intersection(deleted):
            # At the end of the batch it is deleted again.
            return batch.put(edge_of(key, end, NEVER))
        if self._has_edge(key) or self._random.random() < 0.3:
            return batch
        versions[record] = self._ledger.begun(record) + 1
        return batch.put(edge_of(key, end, str(versions[record])))

    def _is_there(self, key: int, versions: dict[int, int]) -> bool:
        return not is_deleted(versions.get(key, self._ledger.begun(key)))

    def _has_edge(self, key: int) -> bool:
        return self._ledger.begun(self._of_edge(key)) % 2 == 1

    def _of_edge(self, key: int) -> int:
        return self._run.keys + key

    @staticmethod
    def _end(key: int, own: range) -> int:
        return own[(own.index(key) + 1) % len(own)]

    # Reading

    def _oldest(self, records: Sequence[int]) -> dict[int, int]:
        """The oldest versions that a read which begins now may return."""
        ledger = self._ledger
        if self._lagging is None:
            return {record: ledger.acknowledged(record) for record in records}
        allowed = self._lagging.look()
        return {
            record: ledger.acknowledged(record) if self._is_own(record) else allowed[record]
            for record in records
        }

    def _is_own(self, record: int) -> bool:
        tasks = self._run.tasks
        key = record % self._run.keys
        return key % (self._run.processes * tasks) // tasks == self._number

    def _range(self, record: int, oldest: dict[int, int]) -> Versions:
        return Versions(oldest[record], self._ledger.begun(record))

    async def _read_something(self, key: int, *, edge: float) -> None:
        """Read an episode, or with a given probability the edge that leaves it."""
        await (self._read_edge(key) if self._random.random() < edge else self._read(key))

    async def _read(self, key: int) -> None:
        oldest = self._oldest((key,))
        episode = await self._memory.get_episode(episode_id(key))
        self.findings.operations["reads"] += 1
        self._check("get", key, oldest, episode)

    async def _read_edge(self, key: int) -> None:
        record = self._of_edge(key)
        oldest = self._oldest((record,))
        if self._random.random() < 0.5:
            edge = await self._memory.get(Relationship, edge_id(key))
        else:
            self.findings.counts["asked"] += 1
            query = Query(Relationship).where(from_episode_id=episode_id(key))
            edge = next(iter(await self._memory.query(query)), None)
        self.findings.operations["edges"] += 1
        allowed = self._range(record, oldest)
        if edge is None:
            right = allowed.oldest != allowed.newest or allowed.oldest % 2 == 0
        else:
            right = edge.reason != NEVER and int(edge.reason or -1) in allowed
        if not right:
            self._violation(f"edge {key}: {edge and edge.reason}, which must be of {allowed}")

    async def _ask(self, group: int) -> None:
        choice = self._random.randrange(4)
        wanted = str(self._random.randrange(3)) if choice > 1 else None
        if choice == 3:
            await self._pages(group, wanted)
            return
        query, keys = self._question(group, wanted)
        oldest = self._oldest(keys)
        if choice == 0:
            self.findings.operations["counts"] += 1
            self._check_count(oldest, await self._memory.count_episodes(query))
            return
        page = await self._memory.query_episodes(query)
        self.findings.operations["queries"] += 1
        found = {int(episode.metadata["key"]): episode for episode in page}
        for key in keys:
            self._check("query", key, oldest, found.get(key), wanted)

    def _question(self, group: int, wanted: str | None) -> tuple[Query[Episode], list[int]]:
        """The query for the episodes of a group, or a bucket of it, and the keys it may find, in order."""
        self.findings.counts["asked"] += 1
        keys = sorted(range(group, self._run.keys, self._run.groups), key=episode_id)
        query = Query(Episode).where(tags=f"group-{group}").order_by("id").limit(MAX_LIMIT)
        return (query if wanted is None else query.where(metadata=f"bucket={wanted}")), keys

    async def _pages(self, group: int, wanted: str | None) -> None:
        """Read a limited page, and sometimes the pages after it."""
        query, left = self._question(group, wanted)
        query = query.limit(self._run.page_size)
        self.findings.operations["pages"] += 1
        while True:
            oldest = self._oldest(left)
            page = await self._memory.query_episodes(query)
            left = self._check_page(left, oldest, page, wanted)
            if page.next_cursor is None or self._random.random() < 0.5:
                return
            self.findings.counts["asked"] += 1
            query = query.after(page.next_cursor)

    def _check_page(
        self,
        keys: list[int],
        oldest: dict[int, int],
        page: Page[Episode],
        wanted: str | None,
    ) -> list[int]:
        """Check a page; ``keys`` are the episodes that it may contain, in its order.

        Returns:
            The keys that the next page may contain.
        """
        found = {int(episode.metadata["key"]): episode for episode in page}
        ends = page.next_cursor is None
        reached = len(keys) if ends or not found else keys.index(list(found)[-1]) + 1
        for key in keys[:reached]:
            self._check("page", key, oldest, found.get(key), wanted)
        behind = keys[reached:]
        if not ends and not any(self._range(key, oldest).may_be_there(wanted) for key in behind):
            self._violation(f"page that goes on, where nothing follows {list(found)}")
        if len(found) > self._run.page_size or not (ends or len(found) == self._run.page_size):
            self._violation(f"page of {len(found)} that {'ends' if ends else 'goes on'}")
        return behind

    def _check(
        self,
        what: str,
        key: int,
        oldest: dict[int, int],
        episode: Episode | None,
        wanted: str | None = None,
    ) -> None:
        allowed = self._range(key, oldest)
        if episode is not None:
            version = int(episode.metadata["version"])
            right = version in allowed and (wanted is None or bucket(version) == wanted)
        else:
            version, right = -1, allowed.may_be_absent(wanted)
        if not right:
            self._violation(
                f"{what} of record {key}: version {version}, which must be of {allowed}"
            )

    def _check_count(self, oldest: dict[int, int], count: int) -> None:
        allowed = [self._range(key, oldest) for key in oldest]
        least = sum(not item.may_be_absent() for item in allowed)
        most = sum(item.may_be_there() for item in allowed)
        if not least <= count <= most:
            self._violation(f"count {count}, which must be from {least} to {most}")

    def _violation(self, description: str) -> None:
        self.findings.counts["violations"] += 1
        if len(self.findings.violations) < 10:
            self.findings.violations.append(f"process {self._number}: {description}")
