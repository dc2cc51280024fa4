"""A store belongs to the event loop that opened it, and to the process."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from memory_core.errors import StorageClosedError, WrongEventLoopError
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import Capability, Storage, WriteBatch
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import episode, sample_id
from memory_core.testing.suite.harness import Harness, accepted, needs, only_if, put, stored, whole

__all__ = ["LoopTests"]

T = TypeVar("T")


async def _position(store: Storage) -> object:
    return store.position()


_PATIENCE = 10
_CALLS: dict[str, Callable[[Storage], Coroutine[Any, Any, Any]]] = {
    "commit": lambda store: store.commit([WriteBatch().put(episode(2))]),
    "get": lambda store: store.get(Episode, [sample_id("episode", 1)]),
    "query": lambda store: store.query(Query(Episode)),
    "count": lambda store: store.count(Query(Episode)),
    "changes": lambda store: store.changes(0),
    "stats": lambda store: store.stats(),
    "position": _position,
}


class LoopTests(Harness):
    """Calls from other event loops and other processes are rejected at once, and closing always ends."""

    async def test_a_call_from_another_loop_is_rejected_at_once(self, store: Storage) -> None:
        await put(store, episode(1))
        scoped = store.scoped("other")
        for handle in (store, scoped):
            said = await asyncio.to_thread(_in_a_loop, _errors_of(handle))
            assert said == dict.fromkeys(_CALLS, WrongEventLoopError)
        assert await stored(store, episode(1))
        assert await store.get(Episode, [sample_id("episode", 2)]) == [None]

    async def test_closing_from_another_loop_is_rejected_while_the_owner_runs(
        self, store: Storage
    ) -> None:
        await put(store, episode(1))
        said = await asyncio.to_thread(_in_a_loop, _error_of(store.aclose()))
        assert said is WrongEventLoopError
        await accepted(store, WriteBatch().put(episode(2)))
        assert await stored(store, episode(1), episode(2))

    def test_a_store_whose_loop_has_ended_is_closed_from_anywhere(self, location: str) -> None:
        threads = set(threading.enumerate())
        store = _in_a_loop(self._used(location))
        said = _in_a_loop(_errors_of(store))
        assert said == dict.fromkeys(_CALLS, WrongEventLoopError)
        for _ in range(2):
            _in_a_loop(store.aclose())
        said = _in_a_loop(_errors_of(store))
        assert said == dict.fromkeys(_CALLS, StorageClosedError)
        left = [
            thread
            for thread in threading.enumerate()
            if thread not in threads and not thread.name.startswith("asyncio_")
        ]
        for thread in left:
            thread.join(5)
        assert not [thread.name for thread in left if thread.is_alive()]
        if self.declares(Capability.DURABLE):
            assert _in_a_loop(self._read(location))

    @only_if(
        lambda suite: (
            suite.declares(Capability.DURABLE) and not suite.declares(Capability.MULTI_PROCESS)
        )
    )
    def test_a_store_that_was_forgotten_can_be_opened_again(self, location: str) -> None:
        """Nobody is kept out for good by a lock that no handle has any more, and a warning says so."""

        def use_and_forget() -> None:
            _in_a_loop(self._used(location))
            gc.collect()

        with pytest.warns(ResourceWarning, match="never closed"):
            use_and_forget()
        assert _in_a_loop(self._read(location))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_in_a_forked_child_every_call_is_rejected_and_closing_returns(
        self, location: str
    ) -> None:
        with asyncio.Runner() as runner:
            store = runner.run(self._used(location))
            child = os.fork()
            if not child:
                status = 1
                try:
                    said = _in_a_loop(_errors_of(store))
                    _in_a_loop(store.aclose())
                    status = 0 if said == dict.fromkeys(_CALLS, StorageClosedError) else 2
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert runner.run(stored(store, episode(1)))
            runner.run(put(store, episode(2)))
            runner.run(store.aclose())

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    @needs(Capability.DURABLE, Capability.MULTI_PROCESS)
    def test_what_a_forked_child_writes_outlives_the_parents_close(self, location: str) -> None:
        """Locks of a file belong to a process, so a child must take its own."""
        opened, closed = os.pipe(), os.pipe()
        with asyncio.Runner() as runner:
            store = runner.run(self._used(location))
            child = os.fork()
            if not child:
                status = 1
                try:
                    _in_a_loop(self._written_around(location, opened[1], closed[0]))
                    status = 0
                finally:
                    os._exit(status)
            os.close(opened[1])
            os.read(opened[0], 1)
            runner.run(store.aclose())
            os.write(closed[1], b"x")
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for end in (opened[0], *closed):
            os.close(end)
        assert _in_a_loop(self._read(location, 1, 2, 3))

    async def _written_around(self, location: str, opened: int, closed: int) -> None:
        store = whole(await self.open(location, context=kit_context()))
        await put(store, episode(2))
        os.write(opened, b"x")
        await asyncio.to_thread(os.read, closed, 1)
        await put(store, episode(3))
        await store.aclose()

    async def _used(self, location: str) -> Storage:
        store = whole(await self.open(location, context=kit_context()))
        await put(store, episode(1))
        return store

    async def _read(self, location: str, *numbers: int) -> bool:
        store = whole(await self.open(location, context=kit_context()))
        try:
            return await stored(store, *map(episode, numbers or (1,)))
        finally:
            await store.aclose()


def _in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop, whichever thread this is."""
    asyncio.set_event_loop(None)
    with asyncio.Runner() as runner:
        return runner.run(asyncio.wait_for(work, _PATIENCE))


async def _errors_of(store: Storage) -> dict[str, type[BaseException] | None]:
    return {name: await _error_of(call(store)) for name, call in _CALLS.items()}


async def _error_of(call: Coroutine[Any, Any, Any]) -> type[BaseException] | None:
    try:
        await call
    except Exception as error:  # noqa: BLE001  # which one it is, is what is tested
        return type(error)
    return None
