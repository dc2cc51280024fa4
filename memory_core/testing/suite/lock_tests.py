"""A process that was stopped while it holds the store's lock delays others for a bounded time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self, TypeVar

import pytest

from memory_core.errors import StorageUnavailableError
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import Capability, Storage, WriteBatch
from memory_core.testing.checks.forking import Emit, ForkServer, Worker, load
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import episode
from memory_core.testing.suite.closing_tests import counts_descriptors, descriptors, still_open
from memory_core.testing.suite.harness import Harness, only_if, put, stored, whole
from memory_core.testing.suite.process_tests import ProcessTests

__all__ = ["LockTests"]

T = TypeVar("T")

_MODULE = "memory_core.testing.suite.lock_tests"
_TIMEOUT = 1.0
# Above the timeout, for a machine under load; far below the time for which the lock is held.
_BOUND = 10.0
_AT_ONCE = 3.0
_HELD = 120.0


def _locks(suite: Any) -> bool:
    return suite.lock.__func__ is not Harness.lock.__func__


def _is_shared(suite: Any) -> bool:
    return _locks(suite) and suite.declares(Capability.MULTI_PROCESS)


class LockTests(ProcessTests):
    """Another process holds the lock that writers take, and does not go on."""

    @pytest.fixture
    def short_timeout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stores that this process opens wait for a second."""
        monkeypatch.setattr(type(self), "lock_timeout", _TIMEOUT)

    @only_if(_is_shared)
    @counts_descriptors
    @pytest.mark.usefixtures("short_timeout")
    async def test_a_locked_store_answers_in_time(
        self, fork_server: ForkServer, location: str
    ) -> None:
        before = descriptors()
        store = whole(await self.open(location, context=kit_context()))
        await put(store, episode(1))
        with await self._locked(fork_server, location):
            async with _Ticks() as ticks:
                assert await _within(_AT_ONCE, stored(store, episode(1)))
                writes = (store.commit([WriteBatch().put(episode(n))]) for n in range(2, 6))
                for error in await _within(_BOUND, asyncio.gather(*writes, return_exceptions=True)):
                    assert isinstance(error, StorageUnavailableError), error
                    assert (error.applied, error.retryable) == (False, True)
                await _cancelled(store.commit([WriteBatch().put(episode(6))]))
                await _cancelled(self.open(location, context=kit_context()))
                await _opened_or_told(self.open(location, context=kit_context()))
                assert await _within(_AT_ONCE, stored(store, episode(1)))
                writing = asyncio.ensure_future(store.commit([WriteBatch().put(episode(7))]))
                await asyncio.sleep(0)
                await _within(_BOUND, store.aclose())
                await asyncio.wait([writing], timeout=_AT_ONCE)
                assert writing.done(), "closing has left a call without an answer"
                assert isinstance(writing.exception(), StorageUnavailableError)
            assert ticks.longest < _AT_ONCE, "the event loop was blocked"
        # The lock is free again, and whatever was rejected has no effect.
        again = whole(await self.open(location, context=kit_context()))
        await put(again, episode(8))
        assert await again.count(Query(Episode)) == 2
        assert await stored(again, episode(1), episode(8))
        await again.aclose()
        assert await still_open(before) == []

    @only_if(_locks)
    @counts_descriptors
    @pytest.mark.usefixtures("short_timeout")
    async def test_a_locked_store_is_opened_or_refused_in_time(
        self, fork_server: ForkServer, location: str
    ) -> None:
        before = descriptors()
        store = whole(await self.open(location, context=kit_context()))
        await put(store, episode(1))
        await store.aclose()
        with await self._locked(fork_server, location):
            async with _Ticks() as ticks:
                await _cancelled(self.open(location, context=kit_context()))
                for _ in range(2):
                    await _opened_or_told(self.open(location, context=kit_context()))
            assert ticks.longest < _AT_ONCE, "the event loop was blocked"
        again = whole(await self.open(location, context=kit_context()))
        await put(again, episode(2))
        assert await stored(again, episode(1), episode(2))
        await again.aclose()
        assert await still_open(before) == []

    async def _locked(self, fork_server: ForkServer, location: str) -> AbstractContextManager[None]:
        """Hold the lock in another process."""
        worker = fork_server.start(f"{_MODULE}:hold", self._spec(), location)
        assert await asyncio.to_thread(next, worker.lines(), "ended") == "locked"
        return _holding(worker)


@contextmanager
def _holding(worker: Worker) -> Generator[None]:
    try:
        yield
    finally:
        worker.kill()
        list(worker.lines())


def hold(emit: Emit, spec: str, location: str) -> None:
    """A process that holds a store's lock until it is killed."""
    with load(spec).lock(location):
        emit("locked")
        time.sleep(_HELD)


class _Ticks:
    """Measures for how long at most the event loop does nothing else."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _tick(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.02)
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now


async def _within(seconds: float, call: Awaitable[T]) -> T:
    """The result of a call that must end within a time."""
    task = asyncio.ensure_future(call)
    await asyncio.wait([task], timeout=seconds)
    assert task.done(), f"not done after {seconds} seconds"
    return task.result()


async def _cancelled(call: Awaitable[Any]) -> None:
    """Cancel a call, which must end at once."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(_TIMEOUT / 4)
    task.cancel()
    await asyncio.wait([task], timeout=_AT_ONCE)
    assert task.done(), "a call that was cancelled goes on waiting"
    if not task.cancelled() and task.exception() is None and isinstance(task.result(), Storage):
        await task.result().aclose()


async def _opened_or_told(opening: Awaitable[Storage]) -> None:
    """Open a store, or hear in time that it is locked."""
    try:
        store = await _within(_BOUND, opening)
    except StorageUnavailableError:
        return
    assert await _within(_AT_ONCE, stored(store, episode(1)))
    await _within(_BOUND, store.aclose())
