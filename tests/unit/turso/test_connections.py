"""Connections: their settings, their threads, and what they leave when they are closed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import weakref
from pathlib import Path

import pytest

from memory_core.errors import ConfigurationError, StorageClosedError
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import WriteBatch
from memory_core.testing.data.samples import episode
from memory_storage_turso import PoolConfig, TursoConfig, TursoStorage
from memory_storage_turso.engine import reading
from tests.servers.waiting import until


def connections_of(store):
    driver = store._shared.driver
    return [driver._writer, *driver._readers]


async def pragma(connection, name):
    [(value,)] = await connection.run(connection.session.execute, f"PRAGMA {name}")
    return value


@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
async def test_every_connection_has_every_setting(opener, durability, synchronous):
    store = await opener(durability=durability, busy_timeout=1.5, readers=3)
    connections = connections_of(store)
    assert len(connections) == 4
    for connection in connections:
        assert await pragma(connection, "journal_mode") == "wal"
        assert await pragma(connection, "synchronous") == synchronous
        assert await pragma(connection, "foreign_keys") == 1
        assert await pragma(connection, "busy_timeout") == 1500
    assert [await pragma(connection, "query_only") for connection in connections] == [0, 1, 1, 1]


async def test_a_write_takes_its_lock_at_once(store):
    """A transaction that reads first and writes later may find the file locked half-way."""
    seen = []
    writer = connections_of(store)[0]
    await writer.run(writer.session.connection.set_trace_callback, seen.append)
    await store.commit([WriteBatch().put(episode(1))])
    begins = [sql for sql in seen if sql.startswith("BEGIN")]
    assert set(begins) == {"BEGIN IMMEDIATE"}


async def test_one_job_for_an_operation(store, monkeypatch):
    # A busy machine may take longer for ten records than the event loop may be held.
    monkeypatch.setattr(reading, "_SECONDS_AT_ONCE", 60.0)
    await store.commit([WriteBatch().put(*(episode(n) for n in range(10)))])
    jobs = []
    for connection in connections_of(store):
        run = connection.run

        def counted(job, *args, run=run):
            jobs.append(job)
            return run(job, *args)

        connection.run = counted
    for operation in (
        lambda: store.commit([WriteBatch().put(*(episode(n) for n in range(20)))]),
        lambda: store.get(Episode, [episode(n).id for n in range(50)]),
        lambda: store.query(Query(Episode).limit(5)),
        lambda: store.count(Query(Episode)),
        lambda: store.changes(0),
    ):
        jobs.clear()
        await operation()
        assert len(jobs) == 1
    jobs.clear()
    assert await store.get(Episode, [episode(n).id for n in range(10)])
    assert not jobs


async def test_reads_are_spread_over_the_readers(opener):
    store = await opener(readers=3)
    await store.commit([WriteBatch().put(episode(1))])
    release = threading.Event()
    driver = store._shared.driver
    held = [asyncio.create_task(driver.read_then([], lambda _: release.wait())) for _ in range(2)]
    try:
        await asyncio.sleep(0)
        # Two of three are busy: the third still answers.
        assert await store.count(Query(Episode)) == 1
    finally:
        release.set()
        await asyncio.gather(*held)


async def test_closing_leaves_no_thread_and_no_file(location):
    threads, files = set(threading.enumerate()), open_files()
    store = await TursoStorage.open(location)
    batch = WriteBatch().put(*(episode(n) for n in range(300)))
    await store.commit([batch])
    await store.count(Query(Episode))
    await store.aclose()
    await store.aclose()
    assert set(threading.enumerate()) <= threads
    assert open_files() == files


async def test_another_connection_closes_as_a_file_is_opened(location, monkeypatch):
    """It removes the log and its index, each between two looks at it."""
    access = os.access

    def removed(path, mode, **options):
        if str(path).endswith(("-wal", "-shm")):
            Path(path).unlink(missing_ok=True)
        return access(path, mode, **options)

    store = await TursoStorage.open(location)
    await store.commit([WriteBatch().put(episode(1))])
    await store.aclose()
    for name in ("-wal", "-shm"):
        Path(f"{location}{name}").touch()
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", removed)
        store = await TursoStorage.open(location)
    assert await store.count(Query(Episode)) == 1
    await store.aclose()


async def test_closing_twice_at_once(location):
    store = await TursoStorage.open(location)
    await asyncio.gather(store.aclose(), store.aclose())
    with pytest.raises(StorageClosedError):
        await store.count(Query(Episode))
    with pytest.raises(StorageClosedError):
        store.position()


async def test_a_cancelled_close_still_closes(location):
    files = open_files()
    store = await TursoStorage.open(location)
    await store.commit([WriteBatch().put(episode(1))])
    closing = asyncio.create_task(store.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await store.aclose()
    assert open_files() == files


def test_an_interpreter_exits_without_a_close(location):
    program = """
        import asyncio, sys
        from memory_storage_turso import TursoStorage
        async def main():
            global kept
            kept = await TursoStorage.open(sys.argv[1])
        asyncio.run(main())
        print("end")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), location],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "end\n"


async def test_a_child_process_is_told_to_open_its_own(store):
    await store.commit([WriteBatch().put(episode(1))])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.position()
        except StorageClosedError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as answers:
        assert b"fork" in answers.read()
    assert store.position() == 1


@pytest.mark.parametrize("location", ["", ":memory:", ":anything:"])
async def test_memory_is_not_a_file(location):
    """Two connections to a database in memory are two databases."""
    with pytest.raises(ConfigurationError, match="inmemory:"):
        await TursoStorage.open(location)


async def test_a_folder_is_made(tmp_path):
    store = await TursoStorage.open(str(tmp_path / "not" / "yet" / "store.db"))
    await store.aclose()
    assert (tmp_path / "not" / "yet" / "store.db").is_file()


async def test_the_position_sees_every_connection(store, opener):
    other = await opener()
    for number in range(5):
        writer, reader = (store, other) if number % 2 else (other, store)
        [receipt] = await writer.commit([WriteBatch().put(episode(number))])
        assert reader.position() == writer.position() == receipt.position


async def test_the_position_is_read_once_a_change(store):
    await store.commit([WriteBatch().put(episode(1))])
    driver = store._shared.driver
    store.position()
    before = driver.stats()["position_reads"]
    for _ in range(100):
        store.position()
    assert driver.stats()["position_reads"] == before
    await store.commit([WriteBatch().put(episode(2))])
    assert store.position() == 2
    assert driver.stats()["position_reads"] == before + 1


class JobError(Exception):
    """An error that can be referred to weakly."""


class Rows(list[int]):
    """Rows that can be referred to weakly."""


@pytest.mark.parametrize("fails", [False, True])
async def test_a_thread_keeps_nothing_of_its_last_job(store, fails):
    [reader, *_] = store._shared.driver._readers

    def job(asked):
        if fails:
            raise JobError(asked)
        return Rows(asked)

    asked = Rows(range(10))
    kept = [weakref.ref(asked)]
    try:
        result = await reader.run(job, asked)
        kept.append(weakref.ref(result))
        del result
    except JobError as error:
        kept.append(weakref.ref(error))
    del asked
    # Not only once garbage is collected.
    await until(lambda: not any(each() is not None for each in kept), 10)


async def test_an_open_position_does_not_hold_back_checkpoints(store, location):
    """A reader that stays in its snapshot would let the log grow without end."""
    await store.commit([WriteBatch().put(*(episode(n) for n in range(50)))])
    store.position()
    await store.count(Query(Episode))
    with sqlite3.connect(location) as connection:
        busy, log, moved = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    assert (busy, log, moved) == (0, 0, 0)


@pytest.mark.parametrize(("size", "commits"), [(1, 1_600), (100, 60), (500, 12)])
async def test_the_log_is_copied_beside_the_writer(opener, location, size, commits):
    """Commits that come meanwhile keep it from being begun again, until SQLite copies their part itself."""
    store = await opener(durability="normal")
    for first in range(0, size * commits, size):
        many = WriteBatch().put(*(episode(n) for n in range(first, first + size)))
        await store.commit([many])
    await store._shared.pending.index_pending()
    await until(lambda: store._shared.driver._checkpoints._task is None)
    assert store._shared.driver.stats()["checkpoints"] > 0
    assert Path(f"{location}-wal").stat().st_size < 9_000 * 4_120


def test_options_are_checked():
    for wrong in (
        {"durability": "fast"},
        {"busy_timeout": -1},
        {"readers": 0},
        {"readers": 1.5},
        {"change_feed_limit": 0},
        {"wire_compression": "maybe"},
        {"pool": None},
        {"retry": {"attempts": 1}},
        {"replicas": "turso+http://localhost:1"},
        {"replicas": [1]},
        {"auth_token": 5},
        {"database": b"x"},
    ):
        with pytest.raises(ConfigurationError):
            TursoConfig(**wrong)


def test_replicas_may_be_a_list():
    assert TursoConfig(replicas=["turso+http://localhost:1"]).replicas == (
        "turso+http://localhost:1",
    )


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"pool": PoolConfig(max_size=3)}, "pool"),
        ({"database": "x"}, "database"),
        ({"replicas": ["turso+http://localhost:1"]}, "replicas"),
    ],
)
async def test_options_of_servers_are_not_ignored_by_a_file(location, options, name):
    with pytest.raises(ConfigurationError, match=rf"^{name} is an option of servers"):
        await TursoStorage.open(location, config=TursoConfig(**options))
    assert not Path(location).exists()


async def test_options_of_files_are_not_ignored_by_a_server():
    with pytest.raises(ConfigurationError, match=r"^readers is an option of local files"):
        await TursoStorage.open("turso+http://localhost:1", config=TursoConfig(readers=3))


def test_a_token_is_not_shown():
    assert "s3cret" not in repr(TursoConfig(auth_token="s3cret"))


def open_files() -> set[str]:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return set()
    found = set()
    for entry in folder.iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith("/") and "store.db" in target:
            found.add(target)
    return found
