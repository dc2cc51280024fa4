"""Closing a store leaves no descriptor open, whatever went wrong before."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from memory_core.errors import (
    ConflictError,
    MemoryCoreError,
    ReferenceNotFoundError,
    StorageClosedError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_core.query import Query
from memory_core.records import Episode, Limits
from memory_core.storage import Capability, Storage, WriteBatch
from memory_core.testing.checks.forking import Emit, ForkServer, open_target
from memory_core.testing.data.kinds import Specimen, kit_context
from memory_core.testing.data.samples import edge, episode, full_episode, sample_id, specimens
from memory_core.testing.suite.durability_tests import corrupts
from memory_core.testing.suite.harness import Test, drain, needs, only_if, put, rejected, whole
from memory_core.testing.suite.process_tests import ProcessTests, finish

__all__ = ["ClosingTests", "counts_descriptors", "descriptors", "still_open"]

_MODULE = "memory_core.testing.suite.closing_tests"
_DESCRIPTORS = Path("/proc/self/fd")
_SETTLES_IN = 5.0
_PAUSE = 0.01
_SMALL_LIMITS = Limits(max_record_bytes=100_000)
# Bytes that a file may have where the disk is "full", and the most batches that are written to fill it.
_DISK = 2 << 20
_MOST_BATCHES = 400


def counts_descriptors(test: Test) -> Test:
    """A test that counts this process's descriptors, where the system lists them."""
    missing = pytest.mark.skipif(not _DESCRIPTORS.is_dir(), reason="a system without /proc/self/fd")
    return missing(pytest.mark.usefixtures("without_collections")(test))


class ClosingTests(ProcessTests):
    """Descriptors are counted after a close, while errors and their tracebacks are still in use."""

    @pytest.fixture
    def without_collections(self) -> Iterator[None]:
        """Nothing is released because the garbage collector happened to run.

        It runs at the end: what was left open is reported here, and not during a later test.
        """
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
            gc.collect()

    @counts_descriptors
    @pytest.mark.parametrize("fault", ["nothing", "rejections", "cancellations", "load"])
    async def test_a_closed_store_leaves_no_descriptor(self, location: str, fault: str) -> None:
        before = descriptors()
        store = whole(await self.open(location, context=kit_context(limits=_SMALL_LIMITS)))
        errors = await _FAULTS[fault](store)
        await store.aclose()
        assert await still_open(before) == [], f"after {fault}: {errors}"

    @counts_descriptors
    async def test_an_opening_that_was_cancelled_leaves_no_descriptor(self, location: str) -> None:
        before = descriptors()
        for turns in range(60):
            opening = asyncio.ensure_future(self.open(location, context=kit_context()))
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])
            if not opening.cancelled() and not _is_busy(opening):
                await whole(opening.result()).aclose()
            assert await still_open(before) == [], f"cancelled after {turns} turns"

    @only_if(lambda suite: corrupts(suite) and not suite.checks_when_opened)
    @counts_descriptors
    async def test_damage_leaves_no_descriptor(self, location: str) -> None:
        before = descriptors()
        store = whole(await self.open(location, context=kit_context()))
        await put(store, full_episode(1), full_episode(2))
        await store.aclose()
        self.corrupt(location, "episode", full_episode(1).id)
        store = whole(await self.open(location, context=kit_context()))
        errors = [await _error_of(store.get(Episode, [full_episode(1).id]))]
        errors.append(await _error_of(drain(store, Query(Episode))))
        batch = WriteBatch().expect(full_episode(1))
        errors += await store.commit([batch])
        await store.aclose()
        assert await still_open(before) == [], errors

    @only_if(lambda suite: corrupts(suite) and suite.checks_when_opened)
    @counts_descriptors
    async def test_a_store_that_does_not_open_leaves_no_descriptor(self, location: str) -> None:
        before = descriptors()
        store = whole(await self.open(location, context=kit_context()))
        await put(store, full_episode(1))
        await put(store, full_episode(2))
        await store.aclose()
        self.corrupt(location, "episode", full_episode(1).id)
        errors = [await _error_of(self.open(location, context=kit_context())) for _ in range(2)]
        assert await still_open(before) == [], errors

    @needs(Capability.DURABLE)
    @counts_descriptors
    async def test_a_full_disk_leaves_no_descriptor(
        self, fork_server: ForkServer, location: str
    ) -> None:
        worker = fork_server.start(f"{_MODULE}:fill", self._spec(), location)
        said = await asyncio.to_thread(finish, worker)
        assert said[0] in {"full", "not full"}
        assert said[1:] == [], f"{said[0]}: left open"
        store = whole(await self.open(location, context=kit_context()))
        try:
            await put(store, episode(1))
        finally:
            await store.aclose()


def descriptors() -> Counter[str]:
    """What the descriptors of this process stand for."""
    found: Counter[str] = Counter()
    for descriptor in _DESCRIPTORS.iterdir():
        try:
            found[str(descriptor.readlink())] += 1
        except OSError:
            # That of the folder itself.
            continue
    return found


async def still_open(before: Counter[str]) -> list[str]:
    """The descriptors that were opened since and are not closed within a time.

    The time is counted in pauses: none passes while this process, with the threads that close them, waits for
    a processor.
    """
    pauses = 0
    while (left := list((descriptors() - before).elements())) and pauses < _SETTLES_IN / _PAUSE:
        pauses += 1
        await asyncio.sleep(_PAUSE)
    return left


def _is_busy(opening: asyncio.Future[Storage]) -> bool:
    """Whether an opening met the end of one that was cancelled, on a backend for one user at a time."""
    return isinstance(opening.exception(), StorageUnavailableError)


async def _error_of(call: Awaitable[Any]) -> MemoryCoreError:
    try:
        await call
    except MemoryCoreError as error:
        return error
    raise AssertionError("nothing failed")


async def _nothing(store: Storage) -> list[BaseException]:
    await put(store, *map(episode, range(20)), *specimens(20))
    await drain(store, Query(Episode))
    return []


async def _rejections(store: Storage) -> list[BaseException]:
    await put(store, episode(1), Specimen(code="x"))
    errors: list[BaseException] = [
        await rejected(store, WriteBatch().put(Specimen(code="x")), MemoryCoreError),
        await rejected(store, WriteBatch().put(edge(1, 1, 9)), ReferenceNotFoundError),
        await rejected(store, WriteBatch().expect(episode(1, tags=("other",))), ConflictError),
        await rejected(
            store, WriteBatch().put(episode(2, metadata={"x": "y" * 200_000})), MemoryCoreError
        ),
    ]
    # Many at once, as each is then a part of a group.
    batches = [WriteBatch().put(Specimen(code="x")) for _ in range(20)]
    results = await asyncio.gather(*(store.commit([batch]) for batch in batches))
    errors += [result for (result,) in results if isinstance(result, MemoryCoreError)]
    assert len(errors) == 24
    return errors


async def _cancellations(store: Storage) -> list[BaseException]:
    ids = [sample_id("episode", number) for number in range(30)]
    await put(store, *map(episode, range(30)))
    errors: list[BaseException] = []
    for turns in range(12):
        calls = [
            asyncio.ensure_future(call)
            for call in (
                store.commit([WriteBatch().put(episode(100 + turns))]),
                store.get(Episode, ids),
                store.query(Query(Episode).limit(7)),
                store.count(Query(Episode).where(tags="x")),
                store.changes(0),
            )
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        errors += [
            result
            for result in await asyncio.gather(*calls, return_exceptions=True)
            if isinstance(result, BaseException)
        ]
    assert all(isinstance(error, asyncio.CancelledError) for error in errors)
    return errors


async def _load(store: Storage) -> list[BaseException]:
    """Close while many calls are in flight; each is answered or told that the store is closed."""
    errors: list[BaseException] = []

    async def work(number: int) -> None:
        for turn in range(1_000):
            record = episode(1_000 * number + turn)
            try:
                await put(store, record)
                await store.get(Episode, [record.id])
                await store.query(Query(Episode).where(tags="x").limit(3))
            except StorageClosedError as error:
                errors.append(error)
                return
            await asyncio.sleep(0)
        raise AssertionError("it was not closed")

    tasks = [asyncio.create_task(work(number)) for number in range(8)]
    await asyncio.sleep(0.05)
    await store.aclose()
    _, pending = await asyncio.wait(tasks, timeout=_SETTLES_IN)
    assert not pending, "a call was never answered"
    for task in tasks:
        task.result()
    return errors


_FAULTS: Mapping[str, Callable[[Storage], Awaitable[list[BaseException]]]] = {
    "nothing": _nothing,
    "rejections": _rejections,
    "cancellations": _cancellations,
    "load": _load,
}


def fill(emit: Emit, spec: str, location: str) -> None:
    """A process that writes until its files may not grow further."""
    gc.disable()
    asyncio.run(_fill(emit, spec, location))


async def _fill(emit: Emit, spec: str, location: str) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = descriptors()
    store = await open_target(spec, location)
    acknowledged: list[Episode] = []
    failure: StorageFullError | None = None
    resource.setrlimit(resource.RLIMIT_FSIZE, (_DISK, hard))
    try:
        for number in range(_MOST_BATCHES):
            made = [
                episode(10 * number + part, metadata={"noise": os.urandom(2_000).hex()})
                for part in range(10)
            ]
            await put(store, *made)
            acknowledged += made
    except StorageFullError as error:
        failure = error
    found = await store.get(Episode, [record.id for record in acknowledged])
    assert found == acknowledged, "what was acknowledged is missing"
    # The disk is still full, so whatever is written when closing fails, too.
    await store.aclose()
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    emit("not full" if failure is None else "full")
    for name in await still_open(before):
        emit(name)
