"""A store belongs to the event loop that opened it: other loops, loops that have ended, and forks."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from memory_core.errors import StorageClosedError, WrongEventLoopError
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.samples import episode, large_episode
from memory_storage_turso import TursoStorage


async def _opened(path: Path) -> TursoStorage:
    store = await TursoStorage.open(str(path), context=kit_context())
    await store.commit([WriteBatch().put(episode(1))])
    return store


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _use(store: TursoStorage) -> list[type[BaseException]]:
    """The errors of all that a handle can be asked."""
    calls = [
        store.commit([WriteBatch().put(episode(2))]),
        store.get(Episode, [episode(1).id]),
        store.query(Query(Episode)),
        store.count(Query(Episode)),
        store.changes(0),
        store.stats(),
        store.namespaces(),
        store.wipe(),
    ]
    found = [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)]
    for call in (store.position, lambda: store.scoped("other")):
        try:
            call()
        except Exception as error:  # noqa: BLE001  # it is looked at
            found.append(type(error))
    return found


def test_another_loop_is_told_at_once_and_may_close_when_the_owner_has_ended(tmp_path):
    before, threads = _descriptors(), threading.active_count()
    store = asyncio.run(_opened(tmp_path / "s.db"))
    for _ in range(3):
        assert asyncio.run(_use(store)) == [WrongEventLoopError] * 10
    asyncio.run(store.aclose())
    assert (_descriptors(), threading.active_count()) == (before, threads)
    asyncio.run(store.aclose())
    assert asyncio.run(_use(store)) == [StorageClosedError] * 10


def test_a_loop_that_still_runs_keeps_its_store(tmp_path):
    async def owner() -> None:
        store = await _opened(tmp_path / "s.db")

        def elsewhere() -> None:
            async def close() -> None:
                await store.aclose()

            with pytest.raises(WrongEventLoopError):
                asyncio.run(close())

        await asyncio.to_thread(elsewhere)
        assert await store.get(Episode, [episode(1).id]) == [episode(1)]
        await store.aclose()

    asyncio.run(owner())


def test_what_was_in_flight_when_the_loop_ended_keeps_nothing_open(tmp_path):
    """The writer's thread finishes its job, has no loop to tell, and ends all the same."""
    before, threads = _descriptors(), threading.active_count()

    async def leave() -> TursoStorage:
        store = await _opened(tmp_path / "s.db")
        batches = [WriteBatch().put(*map(large_episode, range(n, n + 50))) for n in (0, 50)]
        writing = [asyncio.create_task(store.commit([batch])) for batch in batches]
        await asyncio.wait(writing, timeout=0.01)
        return store

    store = asyncio.run(leave())
    asyncio.run(store.aclose())
    assert (_descriptors(), threading.active_count()) == (before, threads)

    async def again() -> None:
        reopened = await TursoStorage.open(str(tmp_path / "s.db"), context=kit_context())
        assert await reopened.count(Query(Episode)) >= 1
        await reopened.aclose()

    asyncio.run(again())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_is_told_at_once_and_closes_at_once(tmp_path):
    loop = asyncio.new_event_loop()
    store = loop.run_until_complete(_opened(tmp_path / "s.db"))
    child = os.fork()
    if not child:
        status = 1
        try:
            assert asyncio.run(_use(store)) == [StorageClosedError] * 10
            asyncio.run(asyncio.wait_for(store.aclose(), 5))
            store.drain()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loop.run_until_complete(store.get(Episode, [episode(1).id])) == [episode(1)]
    loop.run_until_complete(store.aclose())
    loop.close()
