"""Do all calls of several processes look as if they had happened one after the other?

Processes with several tasks each put, delete, read and update (with expectations) the same records of one
store, and race for the same unique values. Each notes when a call began and ended, and what it returned. Then
an order of all calls is searched for that explains every result (``histories``). Run it by hand::

    python -m memory_core.testing.linearizability lmdb:./check --processes 4 --tasks 4 --operations 200000

``--fault stale`` returns old records at times, ``--fault lost`` acknowledges writes that it does not make:
then violations must be found, which proves that the check works.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID, uuid5

from attrs import asdict, astuple, field, frozen

from memory_core.cache import CacheConfig
from memory_core.errors import ConflictError, DuplicateError, MemoryCoreError
from memory_core.memory.composing import cached
from memory_core.plugins import PluginRegistry
from memory_core.query import Query
from memory_core.records import Episode, Record, Relationship, RelationshipType
from memory_core.storage import CommitResult, Receipt, Storage, WriteBatch
from memory_core.testing.checks.forking import Emit, ForkServer, Worker, open_target
from memory_core.testing.checks.histories import (
    DONE,
    UNKNOWN,
    Operation,
    Violation,
    violations_of,
)
from memory_core.testing.data.samples import EPOCH

__all__ = ["LinearizabilityReport", "LinearizabilityRun", "check", "main"]

R = TypeVar("R", bound=Record)

_WORK = "memory_core.testing.checks.linearizability:operate"
_NAMESPACE = UUID("6d5f7b0e-3f0e-4c0e-9d1c-0f3f4be0a7c2")
# The parent waits for a minute for a sign of life; a line of a child has at most PIPE_BUF bytes.
_SIGN_OF_LIFE = 200
_IN_A_LINE = 12


@frozen(kw_only=True)
class LinearizabilityRun:
    """The settings of a run.

    Attributes:
        processes: how many processes.
        tasks: concurrent tasks in each process.
        operations: the number of all calls.
        records: how many records they use; few, so that they meet.
        uniques: how many unique values they race for.
        rivals: how many records race for each.
        cache: the tiers of a cache in each process, or none.
        fault: ``"stale"``, ``"lost"``, or none.
        seed: of the random choices.
    """

    processes: int = 4
    tasks: int = 4
    operations: int = 2_000
    records: int = 40
    uniques: int = 10
    rivals: int = 4
    cache: tuple[str, ...] = ()
    fault: str = ""
    seed: int = 1


@frozen(kw_only=True)
class LinearizabilityReport:
    """The result of a run.

    Attributes:
        operations: the number of calls by name, rejected ones apart.
        unknown: how many of them may have been applied.
        overlapping: how many began before another call on the same record or unique value had returned.
        violations: at most one for each record and each unique value.
        seconds: how long the calls took.
    """

    operations: dict[str, int]
    unknown: int
    overlapping: int
    violations: list[Violation] = field(factory=list[Violation])
    seconds: float = 0.0


def _id(what: str, *parts: int) -> UUID:
    return uuid5(_NAMESPACE, f"{what} {parts}")


def _register(number: int, value: str) -> Episode:
    return Episode(
        id=_id("register", number),
        task_description="a register",
        start_time=EPOCH,
        metadata={"value": value},
    )


def _value_of(record: Record | None) -> str | None:
    return None if record is None else str(cast("Episode", record).metadata["value"])


def _ends(unique: int) -> tuple[Episode, Episode]:
    """The episodes between which there may be one edge."""
    first, second = (
        Episode(id=_id("end", unique, side), task_description="an end", start_time=EPOCH)
        for side in (0, 1)
    )
    return first, second


def _rival(unique: int, number: int) -> Relationship:
    first, second = _ends(unique)
    return Relationship(
        id=_id("rival", unique, number),
        from_episode_id=first.id,
        to_episode_id=second.id,
        relationship_type=RelationshipType.FOLLOWS,
        created_at=EPOCH,
    )


class _FaultyStorage:
    """A storage that returns old records, or acknowledges writes that it does not make, at times."""

    def __init__(self, storage: Storage, fault: str, chance: random.Random) -> None:
        self._storage = storage
        self._fault = fault
        self._chance = chance
        self._old: dict[UUID, Any] = {}

    async def get(self, kind: type[R], ids: Sequence[UUID]) -> list[R | None]:
        """Fetch records by id."""
        found = await self._storage.get(kind, ids)
        if self._fault != "stale":
            return found
        kept: list[R | None] = []
        for record_id, record in zip(ids, found, strict=True):
            old = self._old.setdefault(record_id, record)
            if self._chance.random() < 0.1:
                self._old[record_id] = record
            kept.append(old if self._chance.random() < 0.02 else record)
        return kept

    async def commit(self, batches: Sequence[WriteBatch]) -> Sequence[CommitResult]:
        """Apply batches."""
        if self._fault == "lost" and self._chance.random() < 0.02:
            return [Receipt(1, batch.ids) for batch in batches]
        return await self._storage.commit(batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class _Caller:
    """The calls of one process, and their history."""

    def __init__(
        self, emit: Emit, storage: Storage, settings: LinearizabilityRun, number: int
    ) -> None:
        self._emit = emit
        self._storage = storage
        self._run = settings
        self._number = number
        self._written = 0
        self._chance = random.Random(settings.seed * 1_000 + number)
        self.history: list[Operation] = []

    async def call(self) -> None:
        """Run all tasks."""
        share = self._run.operations // (self._run.processes * self._run.tasks)
        async with asyncio.TaskGroup() as group:
            for _ in range(self._run.tasks):
                group.create_task(self._task(share))

    async def _task(self, calls: int) -> None:
        while calls > 0:
            if self._chance.random() < 0.75:
                calls -= await self._use_register(self._chance.randrange(self._run.records))
            else:
                unique = self._chance.randrange(self._run.uniques)
                await self._race(unique, _rival(unique, self._chance.randrange(self._run.rivals)))
                calls -= 1
            await asyncio.sleep(0)

    async def _use_register(self, number: int) -> int:
        """Change or read a register; returns the number of calls."""
        name, record_id = f"record {number}", _id("register", number)
        choice, value = self._chance.random(), self._new_value()
        record = _register(number, value)
        if choice < 0.15:
            await self._change(name, "put", value, WriteBatch().put(record))
        elif choice < 0.25:
            await self._change(name, "delete", None, WriteBatch().delete(Episode, record_id))
        else:
            read = await self._read(name, record_id)
            if choice < 0.6:
                return 1
            # An update: write what follows from what was read, if nothing was written in between.
            batch = WriteBatch()
            if read is None:
                batch = batch.expect_absent(Episode, record_id)
            else:
                batch = batch.expect(_register(number, read))
            await self._change(name, "swap", (read, value), batch.put(record))
            return 2
        return 1

    async def _read(self, name: str, record_id: UUID) -> str | None:
        start = time.monotonic()
        (found,) = await self._storage.get(Episode, [record_id])
        value = _value_of(found)
        self._note(name, "get", None, value, start)
        return value

    async def _race(self, unique: int, rival: Relationship) -> None:
        """Take, give back or look at a unique value, as one of its rivals."""
        name, value = f"unique {unique}", str(rival.id)
        choice = self._chance.random()
        if choice < 0.35:
            await self._change(name, "claim", value, WriteBatch().put(rival))
        elif choice < 0.6:
            batch = WriteBatch().delete(Relationship, rival.id)
            await self._change(name, "release", value, batch)
        elif choice < 0.8:
            start = time.monotonic()
            (found,) = await self._storage.get(Relationship, [rival.id])
            self._note(name, "holds", value, found is not None, start)
        else:
            query = Query(Relationship).where(from_episode_id=rival.from_episode_id).limit(5)
            start = time.monotonic()
            # Two holders at a time are no value that there can be.
            holders = "+".join(str(record.id) for record in await self._storage.query(query))
            self._note(name, "get", None, holders or None, start)

    async def _change(self, register: str, name: str, value: Any, batch: WriteBatch) -> None:
        start = time.monotonic()
        try:
            (result,) = await self._storage.commit([batch])
        except MemoryCoreError as error:
            result = error
        match result, name:
            case Receipt(), _:
                self._note(register, name, value, DONE, start)
            case ConflictError(), "swap":
                self._note(register, "swap rejected", value, _value_of(result.stored), start)
            case DuplicateError(), "claim":
                self._note(register, "claim rejected", value, None, start)
            case MemoryCoreError(applied=None), _:
                self._note(register, name, value, UNKNOWN, start)
            case MemoryCoreError(retryable=False), _:
                raise result
            case _:
                # It was certainly not applied, for a reason that passes.
                return

    def _note(self, register: str, name: str, value: Any, found: Any, start: float) -> None:
        end = math.inf if found == UNKNOWN else time.monotonic()
        self.history.append(Operation(register, name, value, found, start, end))
        if len(self.history) % _SIGN_OF_LIFE == 0:
            self._emit("[]")

    def _new_value(self) -> str:
        self._written += 1
        return f"{self._number}.{self._written}"


def operate(emit: Emit, spec: str, location: str, settings: dict[str, Any], number: int) -> None:
    """Run in a child: call, and then send the history."""
    settings["cache"] = tuple(settings["cache"])
    run = LinearizabilityRun(**settings)
    history = asyncio.run(_operate(emit, spec, location, run, number))
    for first in range(0, len(history), _IN_A_LINE):
        emit(json.dumps([astuple(each) for each in history[first : first + _IN_A_LINE]]))


async def _operate(
    emit: Emit, spec: str, location: str, run: LinearizabilityRun, number: int
) -> list[Operation]:
    storage = await open_target(spec, location)
    if run.cache:
        storage = cached(storage, CacheConfig(tiers=run.cache), PluginRegistry())
    try:
        ends = [end for unique in range(run.uniques) for end in _ends(unique)]
        (result,) = await storage.commit([WriteBatch().put(*ends)])
        assert isinstance(result, Receipt), result
        faulty: Any = _FaultyStorage(storage, run.fault, random.Random(number))
        caller = _Caller(emit, faulty if run.fault else storage, run, number)
        await caller.call()
        return caller.history
    finally:
        await storage.aclose()


async def check(
    server: ForkServer, spec: str, location: str, run: LinearizabilityRun
) -> LinearizabilityReport:
    """Run the check; the store must be empty.

    Args:
        server: starts the processes.
        spec: as for ``open_target``.
        location: as for ``open_target``.
        run: the settings.

    Raises:
        RuntimeError: a process failed.
    """
    started = time.monotonic()
    workers = [
        server.start(_WORK, spec, location, asdict(run), number) for number in range(run.processes)
    ]
    histories = await asyncio.gather(*(asyncio.to_thread(_history, worker) for worker in workers))
    seconds = time.monotonic() - started
    operations = [operation for history in histories for operation in history]
    return LinearizabilityReport(
        operations=dict(Counter(operation.name for operation in operations)),
        unknown=sum(operation.found == UNKNOWN for operation in operations),
        overlapping=_overlapping(operations),
        violations=violations_of(operations),
        seconds=seconds,
    )


def _history(worker: Worker) -> list[Operation]:
    found = [Operation(*values) for line in worker.lines() for values in json.loads(line)]
    if worker.status:
        raise RuntimeError(f"a process ended with status {worker.status}")
    return found


def _overlapping(operations: Sequence[Operation]) -> int:
    count, ends = 0, dict[str, float]()
    for operation in sorted(operations, key=_start):
        count += operation.start <= ends.get(operation.register, -math.inf)
        if operation.end < math.inf:
            ends[operation.register] = max(ends.get(operation.register, 0.0), operation.end)
    return count


def _start(operation: Operation) -> float:
    return operation.start


def _described(report: LinearizabilityReport) -> Iterator[str]:
    total = sum(report.operations.values())
    yield f"{total} calls in {report.seconds:.0f} s: {json.dumps(report.operations)}"
    yield f"{report.overlapping} overlapped another call on the same value"
    yield f"{report.unknown} may have been applied"
    yield f"{len(report.violations)} violations"
    yield from map(str, report.violations)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 1 when the result is not as expected."""
    parser = argparse.ArgumentParser(
        prog="python -m memory_core.testing.linearizability",
        description=(__doc__ or "").split("\n", 1)[0],
    )
    parser.add_argument("url", help="an empty store; for one process, or that several may open")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--tasks", type=int, default=4, help="in each process")
    parser.add_argument("--operations", type=int, default=200_000, help="of all processes")
    parser.add_argument("--cache", default="", help="tiers of a cache, separated by commas")
    parser.add_argument("--fault", choices=("stale", "lost"), default="", help="plant a fault")
    given = parser.parse_args(arguments)
    run = LinearizabilityRun(
        processes=given.processes,
        tasks=given.tasks,
        operations=given.operations,
        cache=tuple(filter(None, given.cache.split(","))),
        fault=given.fault,
    )
    with ForkServer(location=given.url) as server:
        report = asyncio.run(check(server, "", given.url, run))
    for line in _described(report):
        sys.stdout.write(f"{line}\n")
    return int(bool(report.violations) != bool(given.fault))


if __name__ == "__main__":
    sys.exit(main())
