"""A database that the caller has opened."""

from __future__ import annotations

import aiosqlite
import pytest

from memory_core.errors import (
    ConfigurationError,
    ReferenceNotFoundError,
    StorageClosedError,
    StorageUnavailableError,
    UnsupportedCapabilityError,
)
from memory_core.query import Query
from memory_core.records import Episode, Relationship
from memory_core.storage import Capability, Receipt, WriteBatch
from memory_core.testing.data.samples import edge, episode
from memory_storage_turso import TursoStorage


@pytest.fixture(params=["file", "memory"])
async def connection(request, tmp_path):
    path = ":memory:" if request.param == "memory" else tmp_path / "own.db"
    async with aiosqlite.connect(path) as opened:
        opened.row_factory = aiosqlite.Row
        await opened.execute("CREATE TABLE own (x)")
        await opened.commit()
        yield opened


async def test_a_store_beside_what_is_there(connection, tmp_path):
    store = await TursoStorage.wrap(connection)
    results = await store.commit(
        [
            WriteBatch().put(*(episode(n, tags=("t",)) for n in range(30))),
            WriteBatch().put(edge(1, 1, 77)),
            WriteBatch().put(edge(2, 1, 2)),
        ]
    )
    kinds = [Receipt, ReferenceNotFoundError, Receipt]
    assert [type(result) for result in results] == kinds
    await connection.execute("INSERT INTO own VALUES (1)")
    await connection.commit()
    assert await store.get(Episode, [episode(3).id]) == [episode(3, tags=("t",))]
    assert len(await store.query(Query(Episode).where(tags="t").limit(7))) == 7
    assert await store.count(Query(Relationship)) == 1
    assert (await store.changes(0)).position == 31
    assert store.position() is None
    stats = await store.stats()
    assert stats.size_bytes > 0
    assert stats.records["episode"] == 30
    with pytest.raises(UnsupportedCapabilityError):
        await store.backup(tmp_path / "copy.db")
    await store.aclose()
    await store.aclose()
    # The connection is still the caller's.
    async with connection.execute("SELECT count(*) FROM episode") as cursor:
        assert tuple(await cursor.fetchone()) == (30,)
    again = await TursoStorage.wrap(connection)
    assert await again.count(Query(Episode)) == 30
    await again.aclose()


async def test_what_it_can_do(connection):
    store = await TursoStorage.wrap(connection)
    [row] = await connection.execute_fetchall("PRAGMA database_list")
    durable = {Capability.DURABLE} if row[2] else set()
    assert store.capabilities == {
        Capability.BOUNDED_COUNTS,
        Capability.NAMESPACES,
        Capability.PARTS,
        *durable,
    }
    await store.scoped("other").commit([WriteBatch().put(episode(1))])
    await store.scoped("other").wipe()
    assert await store.namespaces() == []
    await store.aclose()
    with pytest.raises(StorageClosedError):
        await store.count(Query(Episode))


async def test_a_transaction_of_the_owner_is_left_alone(connection):
    store = await TursoStorage.wrap(connection)
    await connection.execute("INSERT INTO own VALUES (1)")
    with pytest.raises(StorageUnavailableError, match="transaction open"):
        await store.commit([WriteBatch().put(episode(1))])
    await connection.commit()
    assert isinstance((await store.commit([WriteBatch().put(episode(1))]))[0], Receipt)
    await store.aclose()


async def test_a_connection_that_was_closed():
    connection = await aiosqlite.connect(":memory:")
    store = await TursoStorage.wrap(connection)
    await store.commit([WriteBatch().put(episode(1))])
    await connection.close()
    with pytest.raises(StorageClosedError, match="closed by its owner"):
        await store.count(Query(Episode))
    await store.aclose()


async def test_a_connection_that_reads_bytes():
    async with aiosqlite.connect(":memory:") as connection:
        connection.text_factory = bytes
        with pytest.raises(ConfigurationError, match="text_factory"):
            await TursoStorage.wrap(connection)


async def test_it_has_no_statistics_of_statements_that_it_does_not_observe(tmp_path):
    async with aiosqlite.connect(tmp_path / "mine.db") as connection:
        store = await TursoStorage.wrap(connection)
        with pytest.raises(UnsupportedCapabilityError):
            store.prepared_cache_stats()
        assert "statements" not in (await store.stats()).sections
        await store.aclose()
