"""A large namespace that is wiped gets another number; what has the old one is removed in steps."""

from __future__ import annotations

import asyncio
import threading
from random import Random
from typing import ClassVar

import pytest
from attrs import frozen

from memory_core.errors import StorageFullError
from memory_core.query import Query
from memory_core.records import CORE_RECORD_TYPES, Episode, Index, Record, RecordTypes, new_id
from memory_core.storage import ChangeOperation, WriteBatch
from memory_core.testing.data.samples import edge, episode, every_kind, specimens
from memory_core.testing.suite.harness import drain, follow, put, stored
from memory_storage_lmdb.write import wiping
from memory_storage_lmdb.write.writing import GroupWriter, Writer


@pytest.fixture(autouse=True)
def renumbering(monkeypatch):
    """Every namespace that is wiped gets another number."""
    monkeypatch.setattr(wiping, "_FEW", 1)


@pytest.fixture
def nothing_removed(monkeypatch):
    """What a wipe leaves stays, as if the process were killed after its first transaction."""

    def leave(self):
        return asyncio.create_task(asyncio.sleep(0))

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "empty_soon", leave)
        yield patch


def numbers_in(store):
    """The numbers of namespaces with which the keys of each database begin, except for empty ones."""
    shared = store._shared.store

    def read(txn):
        catalog = shared.catalog
        names = [name for row in catalog.layouts.values() for name, _, _ in row.databases()]
        cursors = ((name, txn.cursor(db=catalog.handles[name])) for name in names)
        found = {name: {key[:4] for key, _ in cursor.iternext()} for name, cursor in cursors}
        return {name: numbers for name, numbers in found.items() if numbers}

    return shared.environment.read(store._shared.reader._gate, read)


def wiped_numbers(store):
    shared = store._shared.store
    return shared.environment.read(store._shared.reader._gate, shared.catalog.read_wiped)


async def emptied(store):
    await asyncio.wait([store._shared.writer.empty_soon()])


@pytest.mark.parametrize("step", [0.02, 0.0])
async def test_nothing_is_left_and_the_feed_has_everything(opens, monkeypatch, step):
    monkeypatch.setattr(wiping, "_STEP_SECONDS", step)
    store = await opens(index_lag=5)
    other = store.scoped("other")
    await put(other, *specimens(3))
    await put(store, *specimens(3), episode(50), episode(51), edge(50, 50, 51))
    start = store.position()
    wiped = await store.wipe()
    left = numbers_in(store)
    assert len(set().union(*left.values())) == 1
    assert set(left) == {name for name in left if name.startswith(b"specimen/")}
    assert [info.name for info in await store.namespaces()] == ["other"]
    assert await stored(other, *specimens(3))
    changes, position = await follow(store, 0)
    assert position == wiped == store.position()
    put_before = {(change.kind, change.id) for change in changes if change.position <= start}
    gone = [change for change in changes if change.position > start]
    assert {(change.kind, change.id) for change in gone} == put_before
    assert {change.operation for change in gone} == {ChangeOperation.DELETE}
    await put(store, *every_kind())
    assert await stored(store, *every_kind())
    assert await store.wipe() > wiped
    assert await store.wipe() == store.position()


async def test_what_a_killed_process_leaves_is_removed_when_the_store_is_opened(
    opens, nothing_removed
):
    store = await opens()
    await put(store, *every_kind())
    await put(store.scoped("other"), *specimens(3))
    await store.wipe()
    await put(store, episode(1))
    before = numbers_in(store)[b"episode/records"]
    assert len(before) == 2
    await store.aclose()
    nothing_removed.undo()
    store = await opens()
    await emptied(store)
    assert len(numbers_in(store)[b"episode/records"]) == 1
    assert [wiped.emptied for wiped in wiped_numbers(store).values()] == [True]
    assert await stored(store, episode(1))
    assert await stored(store.scoped("other"), *specimens(3))


async def test_a_copy_shows_none_of_what_is_left(opens, nothing_removed, tmp_path):
    store = await opens()
    await put(store, *map(episode, range(40)))
    await store.wipe()
    await put(store, episode(50))
    await store.backup(tmp_path / "copy")
    copy = await opens(at=str(tmp_path / "copy"))
    for each in (store, copy):
        assert await each.count(Query(Episode)) == 1
        assert await drain(each, Query(Episode)) == [episode(50)]
        assert await each.get(Episode, [episode(3).id, episode(50).id]) == [None, episode(50)]


async def test_what_was_encoded_before_a_wipe_is_not_lost(opens, nothing_removed):
    """Two openings of this process share the catalog: one reads it again after the other has encoded."""
    store, other = await opens(), await opens()
    await put(other, episode(1))
    await store.wipe()
    process = store._shared.store
    gate = threading.Event()
    process.thread.post(gate.wait)
    process.thread.post(process.catalog.reload)
    writing = asyncio.create_task(put(other, episode(2)))
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()
    await writing
    for handle in (store, other):
        assert await drain(handle, Query(Episode)) == [episode(2)]
        assert await handle.count(Query(Episode)) == 1


async def test_what_is_written_while_the_records_are_listed_is_wiped_as_well(opens, monkeypatch):
    store = await opens()
    await put(store, *map(episode, range(4)))
    real = Writer.wipe

    async def written_before(self, namespace, listing):
        await put(store, episode(9))
        await store.commit([WriteBatch().delete(Episode, episode(1).id)])
        return await real(self, namespace, listing)

    monkeypatch.setattr(Writer, "wipe", written_before)
    before = store.position()
    await store.wipe()
    assert await drain(store, Query(Episode)) == []
    changes, _ = await follow(store, before)
    gone = [change.id for change in changes if change.operation is ChangeOperation.DELETE]
    assert sorted(gone) == sorted(episode(number).id for number in (0, 1, 2, 3, 9))


async def test_a_wipe_whose_caller_is_gone_removes_the_records(opens, monkeypatch):
    store = await opens()
    await put(store, *map(episode, range(4)))
    real = GroupWriter.wipe

    def cancelled(self, namespace, listing):
        loop.call_soon_threadsafe(wiping.cancel)
        loop.call_soon_threadsafe(gone.set)
        gone.wait()
        return real(self, namespace, listing)

    loop, gone = asyncio.get_running_loop(), threading.Event()
    monkeypatch.setattr(GroupWriter, "wipe", cancelled)
    wiping = asyncio.create_task(store.wipe())
    with pytest.raises(asyncio.CancelledError):
        await wiping
    emptying = store._shared.writer._emptying
    assert emptying is not None
    await asyncio.wait([emptying])
    assert numbers_in(store) == {}
    assert await drain(store, Query(Episode)) == []


async def test_a_number_is_forgotten_with_its_changes(opens):
    store = await opens(change_feed_limit=10)
    await put(store, *map(episode, range(30)))
    await store.wipe()
    assert len(wiped_numbers(store)) == 1
    page = await store.changes(store.position() - 10)
    assert len(page.changes) == 10
    assert (await store.changes(store.position() - 11)).trimmed
    for number in range(8):
        await put(store, *map(episode, range(200 * number, 200 * (number + 1))))
    await emptied(store)
    assert wiped_numbers(store) == {}


async def test_the_feed_is_not_written_beyond_what_it_keeps(opens, location):
    store = await opens(change_feed_limit=50)
    await put(store, *map(episode, range(400)))
    end = await store.wipe()
    await store.aclose()
    # With another limit, what was never written is not in the feed either.
    store = await opens(change_feed_limit=100_000)
    assert (await store.changes(end - 51)).trimmed
    changes = (await store.changes(end - 50)).changes
    assert [change.position for change in changes] == list(range(end - 49, end + 1))


def note_class(*names):
    @frozen(kw_only=True)
    class Note(Record):
        kind: ClassVar[str] = "note"
        indexes: ClassVar = tuple(map(Index, names))
        text: str = ""
        other: str = ""

    return Note


async def test_a_kind_that_changes_is_not_indexed_in_what_a_wipe_has_left(opens, nothing_removed):
    earlier, later = note_class("text"), note_class("text", "other")
    store = await opens(types=RecordTypes((*CORE_RECORD_TYPES, earlier)))
    await put(store, *(earlier(id=new_id(), text=str(number)) for number in range(20)))
    await store.wipe()
    kept = earlier(id=new_id(), text="kept", other="here")
    await put(store, kept)
    await store.aclose()
    store = await opens(types=RecordTypes((*CORE_RECORD_TYPES, later)))
    assert len(set().union(*numbers_in(store).values())) == 1
    found = await drain(store, Query(later).where(other="here"))
    assert [record.id for record in found] == [kept.id]
    assert await store.count(Query(later)) == 1


async def test_a_full_store_is_wiped(opens):
    """Its pending index entries have no room."""
    store = await opens(max_map_size=4 * 2**20)

    async def fill():
        for number in range(10_000):
            await put(store, episode(number, metadata={"noise": noise(number)}))

    with pytest.raises(StorageFullError):
        await fill()
    await store.wipe()
    assert await store.count(Query(Episode)) == 0
    assert len(numbers_in(store)) == 0
    await put(store, episode(1, metadata={"noise": noise(1)}))
    assert len(await drain(store, Query(Episode))) == 1


def noise(number):
    return Random(number).randbytes(2_000).hex()
