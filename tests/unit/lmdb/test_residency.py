"""A walk over a store larger than its bound does not leave the store in memory."""

from __future__ import annotations

import sys

import attrs
import pytest

from memory_core import CompressionConfig, Episode, Query, Receipt, WriteBatch
from memory_storage_lmdb.config import LmdbConfig
from memory_storage_lmdb.engine import environment
from memory_storage_lmdb.engine.environment import resident_file_bytes
from memory_storage_lmdb.storage import LmdbStorage

MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are read from /proc")
async def test_pages_that_were_read_are_let_go_of(tmp_path) -> None:
    bound = resident_file_bytes() + 4 * MIB
    config = LmdbConfig(
        durability="normal", resident_size=bound, compression=CompressionConfig(enabled=False)
    )
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
            # The writer's thread lets go of pages, as soon as it gets a turn.
            await store._store.shared.writer.run(lambda: None)
            most = max(most, resident_file_bytes())
            if page.next_cursor is None:
                break
            query = query.after(page.next_cursor)
        assert seen == 5_000
    figures = (await store.stats()).sections["map"]
    assert figures["releases"] > 0
    # Three walks over 60 MB: between two looks at most 2,000 records' pages come in.
    assert most < bound + 2_500 * 12_288
    await store.aclose()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are read from /proc")
async def test_a_commit_stands_where_the_maps_cannot_be_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "_MAPS", tmp_path / "forbidden")
    least = attrs.fields(LmdbConfig).resident_size.default
    monkeypatch.setattr(environment, "resident_file_bytes", lambda: least + 1)
    store = await LmdbStorage.open(str(tmp_path / "store"), config=LmdbConfig(durability="normal"))
    batch = WriteBatch().put(*(Episode(task_description="a") for _ in range(2_500)))
    assert [type(result) for result in await store.commit([batch])] == [Receipt]
    assert await store.count(Query(Episode)) == 2_500
    await store.aclose()
