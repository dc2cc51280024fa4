"""Tests with processes: killed during commits, and several on one store."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from memory_core.errors import (
    CycleError,
    DuplicateError,
    MemoryCoreError,
    StorageUnavailableError,
)
from memory_core.memory import Memory
from memory_core.query import Query
from memory_core.records import Episode, Record, Relationship
from memory_core.storage import Capability, Receipt, Storage, SupportsNamespaces, WriteBatch
from memory_core.testing.checks.crash import crash
from memory_core.testing.checks.forking import Emit, ForkServer, Worker, open_target
from memory_core.testing.checks.linearizability import LinearizabilityRun, check
from memory_core.testing.data.kinds import Specimen, kit_context, one_more
from memory_core.testing.data.samples import edge, episode, every_kind, sample_id
from memory_core.testing.suite.concurrency_tests import has_cycle
from memory_core.testing.suite.harness import (
    Harness,
    drain,
    follow,
    needs,
    only_if,
    put,
    stored,
    whole,
)

__all__ = ["KILLS_VARIABLE", "ProcessTests", "finish"]

KILLS_VARIABLE = "MEMORY_CORE_KIT_KILLS"
"""Environment variable: how often a writer is killed, instead of the suite's ``kills``."""

_MODULE = "memory_core.testing.suite.process_tests"
_SERVER = pytest.StashKey[ForkServer]()
_PROCESSES = 3
_BATCHES = 40
_NODES = 10
_COUNTERS = 10
_MANY = 1_100
_PATIENCE = 60.0
_CREATIONS = 5
_CREATIONS_ON_SERVERS = 2
_BEGIN, _END = "begin", "end"
_LONGEST_LINE = 1_000


class ProcessTests(Harness):
    """Crashes, and stores that several processes have open."""

    @pytest.fixture
    def fork_server(self, request: pytest.FixtureRequest) -> ForkServer:
        """Starts processes that can open this backend's stores; one for the whole class."""
        node: Any = request.node
        suite = node.getparent(pytest.Class)
        server = suite.stash.get(_SERVER, None)
        if server is None:
            suite.stash[_SERVER] = server = ForkServer(self._spec())
            suite.addfinalizer(server.close)
        return server

    @needs(Capability.DURABLE)
    async def test_a_killed_process_loses_nothing(
        self, fork_server: ForkServer, location: str
    ) -> None:
        kills = int(os.environ.get(KILLS_VARIABLE, self.kills))
        report = await crash(fork_server, self._spec(), location, kills)
        assert report.kills == kills
        assert report.acknowledged > 0

    @needs(Capability.DURABLE)
    async def test_processes_that_create_a_store_at_the_same_time_create_one(
        self, fork_server: ForkServer, tmp_path: Path
    ) -> None:
        """All of them open it, or all but one are told that it is open elsewhere."""
        for creation in range(_CREATIONS if self.has_files else _CREATIONS_ON_SERVERS):
            directory = tmp_path / f"creation {creation}"
            directory.mkdir()
            location = self.make_location(directory)
            try:
                await self._created_by_processes(fork_server, location)
            finally:
                self.remove_location(location)

    async def _created_by_processes(self, fork_server: ForkServer, location: str) -> None:
        with TemporaryDirectory() as signals:
            workers = [
                fork_server.start(f"{_MODULE}:create", self._spec(), location, number, signals)
                for number in range(_PROCESSES)
            ]
            await _signal(signals, _BEGIN)
            lines = [worker.lines() for worker in workers]
            said = await asyncio.gather(*(asyncio.to_thread(next, one, "failed") for one in lines))
            await _signal(signals, _END)
            for worker in workers:
                await asyncio.to_thread(finish, worker)
        opened = [number for number, line in enumerate(said) if line == "opened"]
        assert len(opened) == (_PROCESSES if self.declares(Capability.MULTI_PROCESS) else 1), said
        for line in said:
            assert line == "opened" or (line.startswith("refused") and location in line), said
        store = whole(await self.open(location, context=kit_context(create=False)))
        try:
            found = await drain(store, Query(Episode))
            assert {record.id for record in found} == {episode(number).id for number in opened}
            changes, _ = await follow(store, 0)
            assert {change.id for change in changes} == {record.id for record in found}
        finally:
            await store.aclose()

    @needs(Capability.MULTI_PROCESS)
    async def test_processes_lose_nothing(
        self, fork_server: ForkServer, store: Storage, location: str
    ) -> None:
        await put(store, *map(episode, range(_NODES)))
        start = (await follow(store, 0))[1]
        workers = [
            fork_server.start(f"{_MODULE}:contend", self._spec(), location, number)
            for number in range(_PROCESSES)
        ]
        said = await asyncio.gather(*(asyncio.to_thread(finish, worker) for worker in workers))
        won = [int(line.removeprefix("won ")) for line in itertools.chain(*said) if "won" in line]
        assert sorted(won) == list(range(_BATCHES)), "a unique value was accepted twice, or never"
        mine = [record for number in range(_PROCESSES) for record in _own(number)]
        assert await stored(store, *mine)
        assert await store.count(Query(Specimen)) == _BATCHES
        edges = await drain(store, Query(Relationship).limit(1_000))
        assert not has_cycle(edges)
        # The feed contains every change exactly once, in one order.
        changes, _ = await follow(store, start)
        positions = [change.position for change in changes]
        assert positions == sorted(set(positions))
        told = {change.id for change in changes}
        assert told == {record.id for record in [*mine, *edges]} | {
            record.id for record in await drain(store, Query(Specimen))
        }

    @needs(Capability.MULTI_PROCESS)
    async def test_updates_of_processes_lose_none(
        self, fork_server: ForkServer, store: Storage, location: str
    ) -> None:
        counter = Specimen(id=sample_id("specimen", 1), amount=0)
        await put(store, counter)
        workers = [
            fork_server.start(f"{_MODULE}:count_up", self._spec(), location, _COUNTERS)
            for _ in range(_PROCESSES)
        ]
        await asyncio.gather(*(asyncio.to_thread(finish, worker) for worker in workers))
        [last] = await store.get(Specimen, [counter.id])
        assert last is not None
        assert last.amount == _PROCESSES * _COUNTERS

    @only_if(lambda suite: suite.linearizable)
    async def test_an_order_of_all_calls_explains_their_results(
        self, fork_server: ForkServer, location: str
    ) -> None:
        await whole(await self.open(location, context=kit_context())).aclose()
        processes = _PROCESSES if self.declares(Capability.MULTI_PROCESS) else 1
        run = LinearizabilityRun(processes=processes, operations=1_500, records=8, uniques=4)
        report = await check(fork_server, self._spec(), location, run)
        assert report.violations == []
        assert set(report.operations) >= {"put", "delete", "get", "swap", "claim", "claim rejected"}

    @needs(Capability.MULTI_PROCESS, Capability.CHEAP_POSITION)
    async def test_what_another_process_committed_is_seen(
        self, fork_server: ForkServer, store: Storage, location: str
    ) -> None:
        await put(store, episode(0))
        seen = store.position()
        assert seen is not None
        worker = fork_server.start(f"{_MODULE}:announce", self._spec(), location)
        lines = worker.lines()
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            number, committed = map(int, line.split())
            position = store.position()
            assert position is not None
            assert position >= committed > seen
            record = episode(number, tags=(f"v{number}",))
            assert await stored(store, record), "a commit of another process is not seen"
            assert record in await drain(store, Query(Episode).where(tags=f"v{number}"))
            changes, _ = await follow(store, seen)
            assert record.id in {change.id for change in changes}
            seen = committed
        assert worker.status == 0
        assert await store.count(Query(Episode)) == 21

    @needs(Capability.DURABLE, Capability.NAMESPACES)
    async def test_a_wipe_that_is_killed_is_all_or_nothing(
        self, fork_server: ForkServer, location: str
    ) -> None:
        many, one = list(map(episode, range(_MANY))), episode(_MANY)
        for delay in (0.0, 0.005, 0.02, 0.1):
            store = whole(await self.open(location, context=kit_context()))
            await put(store, *every_kind())
            await put(store.scoped("wiped"), *many)
            await store.aclose()
            worker = fork_server.start(f"{_MODULE}:wipe", self._spec(), location)
            lines = worker.lines()
            assert await asyncio.to_thread(next, lines) == "opened"
            await asyncio.sleep(delay)
            worker.kill()
            said = await asyncio.to_thread(list, lines)
            store = whole(await self.open(location, context=kit_context()))
            try:
                handle = store.scoped("wiped")
                await put(handle, one)
                count = await handle.count(Query(Episode))
                assert count in ({1} if said else {1, _MANY + 1}), "half a namespace"
                found = await handle.get(Episode, [record.id for record in many])
                assert found == (many if count > 1 else [None] * _MANY)
                found = await drain(handle, Query(Episode).limit(500))
                assert len(found) == count
                assert await stored(store, *every_kind())
            finally:
                await store.aclose()

    @needs(Capability.MULTI_PROCESS, Capability.NAMESPACES)
    async def test_a_wipe_is_seen_by_a_process_that_uses_the_namespace(
        self, fork_server: ForkServer, store: Storage, location: str
    ) -> None:
        handle = store.scoped("wiped")
        assert isinstance(handle, SupportsNamespaces)
        await put(handle, *map(episode, range(_MANY)))
        with TemporaryDirectory() as signals:
            worker = fork_server.start(f"{_MODULE}:use_wiped", self._spec(), location, signals)
            lines = worker.lines()
            assert await asyncio.to_thread(next, lines) == "used"
            wiped = await handle.wipe()
            await _signal(signals, _BEGIN)
            assert await asyncio.to_thread(list, lines) == ["saw nothing"]
        assert worker.status == 0
        late = episode(_MANY + 1)
        assert await stored(handle, late)
        assert await handle.count(Query(Episode)) == 1
        assert [record.id for record in await drain(handle, Query(Episode))] == [late.id]
        changes, _ = await follow(handle, wiped)
        assert [change.id for change in changes] == [late.id]

    @needs(Capability.MULTI_PROCESS)
    async def test_the_death_of_another_process_is_survived(
        self, fork_server: ForkServer, store: Storage, location: str
    ) -> None:
        for death in range(3):
            worker = fork_server.start(
                "memory_core.testing.checks.crash:write_until_killed", self._spec(), location, death
            )
            lines = worker.lines()
            for number in range(15):
                await asyncio.to_thread(next, lines)
                await put(store, Specimen(id=sample_id("specimen", number), amount=death))
            worker.kill()
            await asyncio.to_thread(list, lines)
            await put(store, Specimen(id=sample_id("specimen", 99), amount=death))
            specimens = await drain(store, Query(Specimen).where(amount=death))
            assert len(specimens) == 16

    @classmethod
    def _spec(cls) -> str:
        return f"{cls.__module__}:{cls.__qualname__}"


def create(emit: Emit, spec: str, location: str, process: int, signals: str) -> None:
    """A process that opens a missing store when others do, and keeps it open until all have answered."""
    _wait_for(signals, _BEGIN)
    asyncio.run(_create(emit, spec, location, process, signals))


async def _create(emit: Emit, spec: str, location: str, process: int, signals: str) -> None:
    try:
        store = await open_target(spec, location)
    except StorageUnavailableError as error:
        emit(f"refused {str(error)[:_LONGEST_LINE]!r}")
        return
    await put(store, episode(process))
    emit("opened")
    await asyncio.to_thread(_wait_for, signals, _END)
    await store.aclose()


async def _signal(signals: str, name: str) -> None:
    await asyncio.to_thread(Path(signals, name).touch)


def _wait_for(signals: str, name: str) -> None:
    while not Path(signals, name).exists():
        time.sleep(0.001)


def contend(emit: Emit, spec: str, location: str, process: int) -> None:
    """A process that writes records of its own, and others that every process wants to write."""
    asyncio.run(_contend(emit, spec, location, process))


async def _contend(emit: Emit, spec: str, location: str, process: int) -> None:
    store = await open_target(spec, location)
    random = Random(process)
    own = _own(process)
    for number in range(_BATCHES):
        await put(store, *own[2 * number : 2 * number + 2])
        specimen = Specimen(id=sample_id("specimen", 100 * process + number), code=f"code {number}")
        if await _accepted(store, specimen):
            emit(f"won {number}")
        source, target = random.sample(range(_NODES), 2)
        await _accepted(store, edge(1_000 * (process + 1) + number, source, target))
    await store.aclose()


def count_up(emit: Emit, spec: str, location: str, times: int) -> None:
    """A process whose tasks add one each."""
    asyncio.run(_count_up(spec, location, times))


async def _count_up(spec: str, location: str, times: int) -> None:
    store = await open_target(spec, location)
    memory, counter = Memory(store), sample_id("specimen", 1)
    await asyncio.gather(*(memory.update(Specimen, counter, one_more) for _ in range(times)))
    await store.aclose()


def wipe(emit: Emit, spec: str, location: str) -> None:
    """A process that wipes a namespace, and is killed meanwhile."""
    asyncio.run(_wipe(emit, spec, location))


async def _wipe(emit: Emit, spec: str, location: str) -> None:
    handle = (await open_target(spec, location)).scoped("wiped")
    assert isinstance(handle, SupportsNamespaces)
    emit("opened")
    await handle.wipe()
    emit("wiped")
    await asyncio.sleep(_PATIENCE)


def use_wiped(emit: Emit, spec: str, location: str, signals: str) -> None:
    """A process that uses a namespace before and after another one wipes it."""
    asyncio.run(_use_wiped(emit, spec, location, signals))


async def _use_wiped(emit: Emit, spec: str, location: str, signals: str) -> None:
    store = await open_target(spec, location)
    handle = store.scoped("wiped")
    await put(handle, episode(_MANY))
    assert await stored(handle, episode(0), episode(_MANY))
    assert await handle.count(Query(Episode)) == _MANY + 1
    emit("used")
    await asyncio.to_thread(_wait_for, signals, _BEGIN)
    assert await handle.get(Episode, [episode(0).id, episode(_MANY).id]) == [None, None]
    assert await drain(handle, Query(Episode)) == []
    assert await handle.count(Query(Episode)) == 0
    await put(handle, episode(_MANY + 1))
    assert await stored(handle, episode(_MANY + 1))
    emit("saw nothing")
    await store.aclose()


async def _accepted(store: Storage, record: Record) -> bool:
    """Try to write a record that other processes write, too; returns whether it was accepted."""
    (result,) = await store.commit([WriteBatch().put(record)])
    if isinstance(result, MemoryCoreError) and not isinstance(result, DuplicateError | CycleError):
        raise result
    return isinstance(result, Receipt)


def _own(process: int) -> list[Episode]:
    return [episode(1_000 * (process + 1) + number) for number in range(2 * _BATCHES)]


def announce(emit: Emit, spec: str, location: str) -> None:
    """A process that reports every commit."""
    asyncio.run(_announce(emit, spec, location))


async def _announce(emit: Emit, spec: str, location: str) -> None:
    store = await open_target(spec, location)
    for number in range(1, 21):
        receipt = await put(store, episode(number, tags=(f"v{number}",)))
        emit(f"{number} {receipt.position}")
    await store.aclose()


def finish(worker: Worker) -> list[Any]:
    """The lines of a worker once it has ended, which it must without an error."""
    said = list(worker.lines())
    assert worker.status == 0, (
        f"a process ended with status {worker.status}; its traceback is in the captured stderr"
    )
    return said
