"""A walk over a store larger than the bound does not leave the store in memory."""

from __future__ import annotations

import sys

import lmdb
import pytest

from memory_core import CompressionConfig, Episode, Query, Receipt, WriteBatch
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.engine import environment
from memory_storage_lmdb.engine.environment import resident_file_bytes
from memory_storage_lmdb.storage import LmdbStorage

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="resident pages are counted in /proc")
async def test_pages_that_were_read_are_released(tmp_path, monkeypatch) -> None:
    bound = resident_file_bytes() + 4 * MIB
    monkeypatch.setattr(environment, "_MOST_RESIDENT", bound)
    config = LmdbConfig(durability="normal", compression=CompressionConfig(enabled=False))
    store = await LmdbStorage.open(str(tmp_path), config=config)
    text = "x" * 8_000
    for _ in range(20):
        batch = WriteBatch().put(*(Episode(task_description=text) for _ in range(250)))
        assert not isinstance((await store.commit([batch]))[0], Exception)
    most = 0
    for _ in range(3):
        query = Query(Episode).order_by("id").limit(200)
        seen = 0
        while True:
            page = await store.query(query)
            seen += len(page)
            # The writer's thread releases pages as soon as it gets a turn.
            await store._shared.store.thread.run(lambda: None)
            most = max(most, resident_file_bytes())
            if page.next_cursor is None:
                break
            query = query.after(page.next_cursor)
        assert seen == 5_000
    assert (await store.stats()).sections["map"]["releases"] > 0
    # Three walks over 60 MB: between two looks at most 2,000 records' pages come in.
    assert most < bound + 2_500 * 12_288
    await store.aclose()


@pytest.fixture
def crowded(monkeypatch):
    """Pages are to be released after every commit."""
    monkeypatch.setattr(environment, "_USED_BETWEEN_LOOKS", 1)
    monkeypatch.setattr(environment, "resident_file_bytes", lambda: environment._MOST_RESIDENT + 1)


async def commit(store, count=1):
    batch = WriteBatch().put(*(Episode(task_description="a") for _ in range(count)))
    assert [type(result) for result in await store.commit([batch])] == [Receipt]
    await store._shared.store.thread.run(lambda: None)


async def test_a_long_read_is_not_interrupted(tmp_path, crowded) -> None:
    store = await LmdbStorage.open(str(tmp_path), config=LmdbConfig(durability="normal"))
    gate = store._shared.environment.gate()
    gate.reading += 1
    await commit(store)
    assert (await store.stats()).sections["map"]["releases"] == 0
    gate.reading -= 1
    await commit(store)
    assert (await store.stats()).sections["map"]["releases"] == 1
    await store.aclose()


async def test_a_commit_stands_when_pages_cannot_be_released(
    tmp_path, monkeypatch, crowded, caplog
) -> None:
    store = await LmdbStorage.open(str(tmp_path), config=LmdbConfig(durability="normal"))
    env = store._shared.environment._env

    class Refusing:
        def __getattr__(self, name):
            return getattr(env, name)

        def set_mapsize(self, size):
            raise lmdb.Error(f"no map of {size} bytes")

    monkeypatch.setattr(store._shared.environment, "_env", Refusing())
    await commit(store, 25)
    assert "no map of" in caplog.text
    assert await store.count(Query(Episode)) == 25
    monkeypatch.undo()
    await store.aclose()


def test_systems_that_do_not_count_resident_pages(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "_STATM", tmp_path / "missing")
    assert resident_file_bytes() == 0
