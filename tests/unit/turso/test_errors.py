"""Every error of sqlite3 becomes an error of the framework, and leaves nothing half done."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from uuid import UUID

import pytest

from memory_core import errors
from memory_core.errors import (
    ConfigurationError,
    MemoryCoreError,
    SchemaVersionError,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
)
from memory_core.query import Query
from memory_core.records import Episode
from memory_core.storage import Receipt, WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.samples import episode, large_episode
from memory_storage_turso import TenancyConfig, TenantStorage, TursoConfig, TursoStorage
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.local.errors import failure_of
from memory_storage_turso.sql.system import SCHEMA_VERSION

CODES = sorted(
    name
    for name in dir(sqlite3)
    if name.startswith("SQLITE_")
    and isinstance(getattr(sqlite3, name), int)
    and getattr(sqlite3, name) != 0
)
PRIMARY = {
    "SQLITE_ERROR", "SQLITE_INTERNAL", "SQLITE_PERM", "SQLITE_ABORT", "SQLITE_BUSY", "SQLITE_LOCKED",
    "SQLITE_NOMEM", "SQLITE_READONLY", "SQLITE_INTERRUPT", "SQLITE_IOERR", "SQLITE_CORRUPT",
    "SQLITE_NOTFOUND", "SQLITE_FULL", "SQLITE_CANTOPEN", "SQLITE_PROTOCOL", "SQLITE_EMPTY",
    "SQLITE_SCHEMA", "SQLITE_TOOBIG", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_MISUSE",
    "SQLITE_NOLFS", "SQLITE_AUTH", "SQLITE_FORMAT", "SQLITE_RANGE", "SQLITE_NOTADB",
    "SQLITE_NOTICE", "SQLITE_WARNING",
}  # fmt: skip


def exceptions():
    """Every exception class of the module."""
    classes = [sqlite3.Warning, sqlite3.Error]
    for cls in classes:
        classes += cls.__subclasses__()
    return classes


def raised(cls, name):
    error = cls("some words")
    if name is not None:
        error.sqlite_errorname = name
        error.sqlite_errorcode = getattr(sqlite3, name, 0)
    return error


@pytest.mark.parametrize("cls", exceptions())
def test_every_class_and_every_code(cls):
    assert set(CODES) > PRIMARY
    for name in (None, *CODES, "SQLITE_OF_THE_FUTURE"):
        failure = failure_of(raised(cls, name), "store.db", index=3)
        if isinstance(failure, StatementError):
            assert failure.index == 3
            continue
        assert isinstance(failure, MemoryCoreError)
        assert type(failure).__name__ in errors.__all__
        assert "store.db" in str(failure)
        assert "some words" in str(failure)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SQLITE_BUSY", StorageUnavailableError),
        ("SQLITE_BUSY_SNAPSHOT", StorageUnavailableError),
        ("SQLITE_LOCKED_SHAREDCACHE", StorageUnavailableError),
        ("SQLITE_FULL", StorageFullError),
        ("SQLITE_NOTADB", StorageError),
        ("SQLITE_CORRUPT_INDEX", StorageError),
        ("SQLITE_IOERR_WRITE", StorageError),
        ("SQLITE_READONLY_DBMOVED", StorageError),
        ("SQLITE_CANTOPEN_ISDIR", ConfigurationError),
        ("SQLITE_CONSTRAINT_UNIQUE", StatementError),
        ("SQLITE_CONSTRAINT_TRIGGER", StatementError),
        ("SQLITE_ERROR", StatementError),
        ("SQLITE_TOOBIG", StatementError),
    ],
)
def test_what_a_code_means(name, kind):
    assert type(failure_of(raised(sqlite3.OperationalError, name), "store.db")) is kind


async def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, this is no database at all. " * 100)
    before = path.read_bytes()
    with pytest.raises(errors.NotAStoreError, match=r"letter\.txt: not a memory-core store"):
        await TursoStorage.open(str(path))
    assert path.read_bytes() == before


async def test_a_directory(tmp_path):
    with pytest.raises(ConfigurationError, match="is a directory"):
        await TursoStorage.open(str(tmp_path))


async def test_a_home_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="~nobody-of-this-name/store"):
        await TursoStorage.open("~nobody-of-this-name/store.db")


async def test_a_file_for_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"store\.db: cannot be opened"):
        await TursoStorage.open(str(tmp_path / "file" / "store.db"))


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_damaged_schema_that_a_message_quotes(opener, location, *, read_only):
    await (await opener()).aclose()
    content = Path(location).read_bytes()
    assert b"CREATE TRIGGER" in content
    Path(location).write_bytes(content.replace(b"CREATE TRIGGER", b"CREATE\xffTRIGGER"))
    with pytest.raises(StorageError, match="is corrupt"):
        await opener(kit_context(read_only=read_only))


async def test_a_damaged_database(opener, location):
    store = await opener()
    await store.commit([WriteBatch().put(*(large_episode(n, 3_000) for n in range(50)))])
    await store.aclose()
    with Path(location).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 20)

    async def look():
        store = await TursoStorage.open(location)
        try:
            await store.get(Episode, [large_episode(n, 3_000).id for n in range(50)])
        finally:
            await store.aclose()

    with pytest.raises(MemoryCoreError) as caught:
        await look()
    assert type(caught.value).__name__ in errors.__all__


async def test_a_newer_version_is_left_alone(opener, plain, location):
    store = await opener()
    await store.commit([WriteBatch().put(episode(1))])
    await store.aclose()
    connection = plain()
    connection.execute("UPDATE _meta SET value = 99 WHERE key = 'schema_version'")
    before = list(connection.iterdump())
    with pytest.raises(SchemaVersionError, match="99") as caught:
        await TursoStorage.open(location)
    assert (caught.value.found, caught.value.supported) == (99, SCHEMA_VERSION)
    assert location in str(caught.value)
    assert list(connection.iterdump()) == before


async def test_a_lock_that_is_not_given_up(opener, plain):
    store = await opener(busy_timeout=0.05)
    await store.commit([WriteBatch().put(episode(1))])
    connection = plain()
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailableError, match="locked"):
        await store.commit([WriteBatch().put(episode(2))])
    assert await store.get(Episode, [episode(2).id]) == [None]
    connection.execute("ROLLBACK")
    [receipt] = await store.commit([WriteBatch().put(episode(2))])
    assert isinstance(receipt, Receipt)


async def test_a_lock_that_is_given_up_in_time(opener, plain):
    store = await opener()
    connection = plain()
    connection.execute("BEGIN IMMEDIATE")
    commit = asyncio.create_task(store.commit([WriteBatch().put(episode(1))]))
    while not store._shared.driver._writer.waiting:
        await asyncio.sleep(0)
    connection.execute("COMMIT")
    [receipt] = await commit
    assert isinstance(receipt, Receipt)


async def test_a_database_that_may_not_grow(store):
    """A full disk as SQLite sees it: the commit is rejected whole, and the store stays usable."""
    await store.commit([WriteBatch().put(episode(1))])
    driver = store._shared.driver
    writer = driver._writer
    [(pages,)] = await writer.run(writer.session.execute, "PRAGMA page_count")
    await writer.run(writer.session.execute, f"PRAGMA max_page_count = {pages + 4}")
    position = store.position()
    many = [large_episode(n, 20_000) for n in range(2, 40)]
    with pytest.raises(StorageFullError, match="no room"):
        await store.commit([WriteBatch().put(*many), WriteBatch().put(episode(100))])
    assert store.position() == position
    assert await store.count(Query(Episode)) == 1
    await writer.run(writer.session.execute, "PRAGMA max_page_count = 1073741823")
    assert await store.get(Episode, [record.id for record in many]) == [None] * len(many)
    [receipt] = await store.commit([WriteBatch().put(*many)])
    assert isinstance(receipt, Receipt)
    assert await store.count(Query(Episode)) == 1 + len(many)


def test_a_file_system_that_takes_no_more(location):
    program = """
        import asyncio, resource, signal, sys
        from memory_core.errors import StorageError
        from memory_core.storage import WriteBatch
        from memory_core.testing.data.samples import episode, large_episode
        from memory_storage_turso import TursoStorage
        from memory_core.query import Query
        from memory_core.records import Episode

        async def main():
            store = await TursoStorage.open(sys.argv[1])
            await store.commit([WriteBatch().put(episode(1))])
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
            try:
                await store.commit([WriteBatch().put(*(large_episode(n, 20_000) for n in range(2, 400)))])
            except StorageError as error:
                print(type(error).__name__)
            print(await store.count(Query(Episode)))
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
            await store.commit([WriteBatch().put(episode(1000))])
            print(await store.count(Query(Episode)))
            await store.aclose()
        asyncio.run(main())
    """
    assert resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), location],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    error, during, after = done.stdout.split()
    assert error == "StorageFullError"
    assert (during, after) == ("1", "2")


async def test_a_file_that_may_not_be_written(opener, location, monkeypatch):
    store = await opener()
    writer = store._shared.driver._writer
    await writer.run(writer.session.execute, "PRAGMA query_only = ON")
    with pytest.raises(StorageError, match="cannot be written"):
        await store.commit([WriteBatch().put(episode(1))])
    await writer.run(writer.session.execute, "PRAGMA query_only = OFF")
    assert isinstance((await store.commit([WriteBatch().put(episode(1))]))[0], Receipt)


async def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ConfigurationError, match=r"aiohttp: pip install 'memory-core\[turso\]'"):
        await TursoStorage.open("turso+http://localhost:1")
    tenancy = TenancyConfig(admin_url="http://localhost:1")
    config = TursoConfig(database="{namespace}", tenancy=tenancy)
    with pytest.raises(ConfigurationError, match=r"aiohttp: pip install 'memory-core\[turso\]'"):
        await TenantStorage.open("turso+http://localhost:1", config=config)


@pytest.mark.parametrize("replicas", [(), ("turso+ws://localhost:2",)])
async def test_the_extra_of_websockets_is_named(monkeypatch, replicas):
    monkeypatch.setitem(sys.modules, "libsql_client", None)
    scheme = "turso+http" if replicas else "turso+ws"
    needed = r"libsql-client: pip install 'memory-core\[turso-ws\]'"
    with pytest.raises(ConfigurationError, match=needed):
        await TursoStorage.open(f"{scheme}://localhost:1", config=TursoConfig(replicas=replicas))


async def test_tables_of_another_program(opener, plain):
    plain().execute("CREATE TABLE Episode (title)")
    with pytest.raises(ConfigurationError, match="another program: Episode"):
        await opener()


async def test_a_body_that_is_not_binary(store, plain):
    await store.commit([WriteBatch().put(episode(1), episode(2))])
    plain().execute("UPDATE episode SET body = 'text' WHERE id = ?", (episode(1).id.bytes,))
    with pytest.raises(errors.CodecError) as caught:
        await store.get(Episode, [episode(1).id])
    assert caught.value.record_id == episode(1).id
    assert await store.get(Episode, [episode(2).id]) == [episode(2)]


def test_config_is_what_it_says():
    assert TursoConfig().change_feed_limit == 100_000
    assert isinstance(episode(1).id, UUID)


async def test_tables_that_another_program_dropped_are_an_error_of_the_store(tmp_path):
    path = tmp_path / "memory.db"
    store = await TursoStorage.open(str(path))
    await store.commit([WriteBatch().put(episode(1))])
    other = sqlite3.connect(path)
    other.execute("DROP TABLE _changes")
    other.close()
    with pytest.raises(StorageError, match="no such table: _changes"):
        store.position()
    with pytest.raises(StorageError, match="no such table: _changes"):
        await store.changes(0)
    await store.aclose()
