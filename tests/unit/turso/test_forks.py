"""A forked child closes the connections that it inherits before it opens their file."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from memory_core.errors import StorageError
from memory_core.storage import StorageContext, WriteBatch
from memory_core.testing.data.samples import episode
from memory_storage_turso import TursoStorage
from memory_storage_turso.local import forks

pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3e7) SELECT max(i) FROM n"


async def opened(path: Path) -> TursoStorage:
    return await TursoStorage.open(str(path), context=StorageContext())


def in_a_child(work) -> str:
    """What a coroutine function returns in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            asyncio.set_event_loop(None)
            with asyncio.Runner() as runner:
                os.write(writer, repr(runner.run(work())).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def files(path: Path) -> int:
    """How many descriptors of this process are of a store's files."""
    links = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(str(link).startswith(str(path)) for link in links)


def test_a_child_has_only_its_own_connections(tmp_path: Path):
    path = tmp_path / "store.db"

    async def descriptors() -> int:
        store = await opened(path)
        await store.commit([WriteBatch().put(episode(2))])
        count = files(path)
        await store.aclose()
        return count

    with asyncio.Runner() as runner:
        store = runner.run(opened(path))
        runner.run(store.commit([WriteBatch().put(episode(1))]))
        own = files(path)
        assert in_a_child(descriptors) == str(own)
        runner.run(store.aclose())


@pytest.mark.parametrize("sql", ["BEGIN", LONG])
def test_a_child_that_was_forked_during_a_call_does_not_open_the_file(
    tmp_path: Path, monkeypatch, sql
):
    monkeypatch.setattr(forks, "_PATIENCE", 0.2)
    path = tmp_path / "store.db"

    async def error() -> str:
        try:
            await opened(path)
        except StorageError as error:
            return str(error)
        return ""

    with asyncio.Runner() as runner:
        store = runner.run(opened(path))
        connection = store._shared.driver._readers[-1]

        async def begin() -> asyncio.Task[object]:
            task = asyncio.create_task(connection.run(connection._opened.execute, sql))
            await asyncio.wait([task], timeout=0.1)
            return task

        task = runner.run(begin())
        assert task.done() == (sql != LONG)
        started = time.monotonic()
        said = in_a_child(error)
        assert "a call was in-flight on this file when the process was forked" in said
        assert time.monotonic() - started < 5
        connection._opened.interrupt()
        runner.run(asyncio.wait([task]))
        assert (task.exception() is None) == (sql != LONG)
        runner.run(connection.run(connection._opened.rollback))
        runner.run(store.aclose())


def test_another_file_may_be_in_use(tmp_path: Path):
    path, other = tmp_path / "store.db", tmp_path / "other.db"

    async def opens_and_closes() -> str:
        await (await opened(other)).aclose()
        return "done"

    with asyncio.Runner() as runner:
        store = runner.run(opened(path))
        connection = store._shared.driver._readers[-1]
        runner.run(connection.run(connection._opened.execute, "BEGIN"))
        assert in_a_child(opens_and_closes) == "'done'"
        runner.run(connection.run(connection._opened.rollback))
        runner.run(store.aclose())
