"""Which files are stores, and what happens to those that are not: nothing."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import closing

import aiosqlite
import pytest

from memory_core.errors import NotAStoreError, StorageError, StoreNotFoundError
from memory_core.storage import StorageContext, WriteBatch
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import episode
from memory_core.testing.suite.harness import put, stored
from memory_core.testing.suite.location_tests import contents
from memory_storage_turso import TursoStorage
from memory_storage_turso.local.identity import check_store, create_store
from memory_storage_turso.sql.system import APPLICATION_ID

HOW = {
    "create": kit_context(),
    "not created": kit_context(create=False),
    "read only": kit_context(read_only=True),
}


def database(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE customers (name)", "INSERT INTO customers VALUES ('Ada')"],
        ["PRAGMA journal_mode = WAL", "CREATE TABLE customers (name)"],
        ["CREATE TABLE _meta (key, value)", "INSERT INTO _meta VALUES ('store_id', 'mine')"],
        ["CREATE TABLE _meta (name)"],
        ["CREATE TABLE episode (title)"],
        ["PRAGMA application_id = 0x0f055112", "CREATE TABLE t (a)"],
    ],
)
async def test_the_database_of_another_program(tmp_path, statements, how):
    path = tmp_path / "theirs.db"
    database(path, *statements)
    before = contents(tmp_path)
    with pytest.raises(NotAStoreError, match=r"theirs\.db: not a memory-core store"):
        await TursoStorage.open(str(path), context=HOW[how])
    assert contents(tmp_path) == before


@pytest.mark.parametrize("how", HOW)
async def test_a_database_whose_tables_are_in_its_log(tmp_path, how):
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as theirs:
        theirs.execute("PRAGMA journal_mode = WAL")
        theirs.execute("CREATE TABLE customers (name)")
        data, log = path.read_bytes(), path.with_name("theirs.db-wal").read_bytes()
        with pytest.raises(NotAStoreError, match="customers"):
            await TursoStorage.open(str(path), context=HOW[how])
        assert (path.read_bytes(), path.with_name("theirs.db-wal").read_bytes()) == (data, log)


async def test_a_store_of_an_earlier_version_whose_tables_are_in_its_log(tmp_path):
    path = tmp_path / "store.db"
    store = await TursoStorage.open(str(path), context=kit_context())
    await put(store, episode(1))
    await store.aclose()
    database(path, "PRAGMA application_id = 0")
    copy = tmp_path / "copy.db"
    # Everything but the first page's header goes into the log, as with a process that was just killed.
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        target.execute("PRAGMA journal_mode = WAL")
        for line in source.iterdump():
            target.execute(line)
        target.commit()
        killed = tmp_path / "killed.db"
        for end in ("", "-wal"):
            killed.with_name(f"killed.db{end}").write_bytes(
                copy.with_name(f"copy.db{end}").read_bytes()
            )
    for context in (kit_context(create=False), kit_context()):
        again = await TursoStorage.open(str(killed), context=context)
        assert await stored(again, episode(1))
        await again.aclose()


async def test_a_new_store_says_what_it_is(tmp_path):
    path = tmp_path / "store.db"
    await (await TursoStorage.open(str(path))).aclose()
    assert int.from_bytes(path.read_bytes()[68:72]) == APPLICATION_ID
    backup = tmp_path / "backup.db"
    store = await TursoStorage.open(str(path))
    await store.backup(backup)
    await store.aclose()
    assert int.from_bytes(backup.read_bytes()[68:72]) == APPLICATION_ID


@pytest.mark.parametrize("companion", ["-wal", "-shm", ".search"])
async def test_an_empty_file_beside_what_only_a_store_has(tmp_path, companion):
    path, beside = tmp_path / "store.db", tmp_path / f"store.db{companion}"
    path.touch()
    beside.mkdir() if companion == ".search" else beside.write_bytes(b"pages")
    before = contents(tmp_path)
    with pytest.raises(NotAStoreError, match=f"it is empty beside store.db{companion}"):
        await TursoStorage.open(str(path))
    assert contents(tmp_path) == before
    path.unlink()
    if companion == ".search":
        await (await TursoStorage.open(str(path))).aclose()


async def test_an_empty_file_alone_becomes_a_store(tmp_path):
    path = tmp_path / "store.db"
    path.touch(mode=0o640)
    store = await TursoStorage.open(str(path), context=kit_context())
    await put(store, episode(1))
    await store.aclose()
    assert path.stat().st_mode & 0o777 == 0o640


async def test_an_empty_database_becomes_a_store(tmp_path):
    path = tmp_path / "store.db"
    database(path, "PRAGMA journal_mode = WAL")
    with pytest.raises(NotAStoreError, match="empty database"):
        await TursoStorage.open(str(path), context=StorageContext(create=False))
    store = await TursoStorage.open(str(path), context=kit_context())
    await put(store, episode(1))
    await store.aclose()


async def test_a_clash_of_names_leaves_nothing_in_a_borrowed_database(tmp_path):
    path = tmp_path / "theirs.db"
    for statement in ("CREATE TABLE Pattern (a)", "CREATE TABLE _changes (a)"):
        path.unlink(missing_ok=True)
        database(path, statement)
        async with aiosqlite.connect(path) as connection:
            with pytest.raises(NotAStoreError, match="tables of another program"):
                await TursoStorage.wrap(connection)
            rows = await connection.execute_fetchall("SELECT sql FROM sqlite_master")
            assert list(rows) == [(statement,)]


async def test_a_borrowed_database_without_a_store(tmp_path):
    async with aiosqlite.connect(tmp_path / "theirs.db") as connection:
        await connection.execute("CREATE TABLE customers (name)")
        for context in (StorageContext(create=False), StorageContext(read_only=True)):
            with pytest.raises(StoreNotFoundError):
                await TursoStorage.wrap(connection, context=context)
        store = await TursoStorage.wrap(connection, context=kit_context())
        await put(store, episode(1))
        await store.aclose()
        reader = await TursoStorage.wrap(connection, context=kit_context(read_only=True))
        assert await stored(reader, episode(1))
        await reader.aclose()


async def test_a_damaged_store_is_damaged_and_not_another_programs(tmp_path):
    path = tmp_path / "store.db"
    await (await TursoStorage.open(str(path))).aclose()
    data = bytearray(path.read_bytes())
    data[100:200] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="corrupt"):
        await TursoStorage.open(str(path))
    assert path.read_bytes() == data


CREATING = """
    import asyncio, sys
    from memory_storage_turso import TursoStorage

    async def main(path):
        store = await TursoStorage.open(path)
        print((await store.stats()).store_id)
        await store.aclose()

    sys.stdin.readline()
    asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("exists", [False, True])
async def test_processes_that_create_a_store_at_once_make_one(tmp_path, exists):
    path = tmp_path / "folder" / "store.db"
    if exists:
        path.parent.mkdir()
        path.touch()
    command = [sys.executable, "-c", textwrap.dedent(CREATING), str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {(await asyncio.to_thread(process.communicate))[0] for process in processes}
    assert len(said) == 1
    assert all(process.returncode == 0 for process in processes)


def test_a_process_that_is_killed_while_it_creates_leaves_nothing_in_the_way(tmp_path):
    program = """
        import os, sqlite3, sys
        from memory_storage_turso.local import identity

        class Killing(sqlite3.Connection):
            def execute(self, sql, *args):
                if sql == "COMMIT":
                    os.kill(os.getpid(), 9)
                return super().execute(sql, *args)

        identity.sqlite3.connect = lambda *args, **kw: sqlite3.dbapi2.connect(*args, factory=Killing, **kw)
        identity.create_store(__import__("pathlib").Path(sys.argv[1]), 1.0)
    """
    path = tmp_path / "store.db"
    command = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    assert subprocess.run(command, check=False).returncode == -9
    assert path.stat().st_size == 0

    async def opened():
        store = await TursoStorage.open(str(path), context=kit_context())
        await store.commit([WriteBatch().put(episode(1))])
        await store.aclose()

    asyncio.run(opened())
    assert path.stat().st_size


def test_a_store_that_is_written_to_meanwhile_is_a_store(tmp_path) -> None:
    path = tmp_path / "memory.db"
    create_store(path, 5)
    ended = threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE filler (text)")
            while not ended.is_set():
                connection.execute("INSERT INTO filler VALUES (zeroblob(20000))")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.execute("DELETE FROM filler")
                connection.execute("VACUUM")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(check_store(path, may_create=False) for _ in range(500))
    finally:
        ended.set()
        writer.join()
