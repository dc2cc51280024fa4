"""A large namespace of a file that is wiped gets another number; what has the old one is removed in steps."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from functools import partial
from random import Random
from typing import ClassVar
from uuid import UUID

import aiosqlite
import pytest
from attrs import evolve, frozen

from memory_core.query import Query
from memory_core.records import (
    CORE_RECORD_TYPES,
    Episode,
    Index,
    OnDelete,
    Record,
    RecordTypes,
    Reference,
    Relationship,
    Unique,
    new_id,
)
from memory_core.storage import ChangeOperation, Parts, Receipt, StorageContext, WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.samples import edge, episode, every_kind, specimens
from memory_core.testing.suite.harness import drain, follow, put, stored
from memory_storage_turso import TursoStorage
from memory_storage_turso.engine import namespaces
from memory_storage_turso.engine.driver import Namespace
from memory_storage_turso.engine.namespaces import Namespaces


async def wiped(path, many, monkeypatch, names):
    """A store whose default namespace was wiped; the position of that, and the changes since before it."""
    monkeypatch.setattr(namespaces, "_MANY_RECORDS", many)
    storage = await TursoStorage.open(str(path), context=kit_context())
    try:
        for handle in map(storage.scoped, names):
            await handle.commit([WriteBatch().put(*every_kind())])
            # Records with entries, and records whose entries are pending.
            await handle.commit([WriteBatch().put(*(episode(number) for number in range(10, 210)))])
            await handle.commit([WriteBatch().put(edge(900, 10, 11), edge(901, 11, 12))])
        before = (await storage.stats()).position
        position = await storage.wipe()
        page = await storage.changes(before, 1_000)
        infos = await storage.namespaces()
        return (
            position,
            {(change.kind, change.id, change.operation) for change in page.changes},
            infos,
        )
    finally:
        await storage.aclose()


def rows_of(connection, table):
    """The rows of a table, as dictionaries."""
    cursor = connection.execute(f'SELECT * FROM "{table}"')
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def contents(path):
    """The rows of every table but the feed's with the names of namespaces, and the schema in no order."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        schema = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master"
        ).fetchall()
        names = [name for kind, name, _, _ in schema if kind == "table" and name != "_changes"]
        skipped = ("_meta", "_dictionaries")
        numbers = dict(connection.execute("SELECT ns, name FROM _namespaces WHERE wiping = 0"))
        rows = {
            name: sorted(
                (
                    (numbers.get(row["ns"]), *(row[key] for key in row if key not in {"ns", "rid"}))
                    if "ns" in row
                    else tuple(row.values())
                    for row in rows_of(connection, name)
                ),
                key=repr,
            )
            for name in names
            if name not in (*skipped, "_namespaces")
        }
        return set(schema), rows
    finally:
        connection.close()


@pytest.mark.parametrize(
    "names", [["default"], ["default", "other"], ["other", "default"]], ids="-".join
)
async def test_what_is_left_is_what_the_triggers_leave(tmp_path, monkeypatch, names):
    with monkeypatch.context() as patch:
        by_triggers = await wiped(tmp_path / "a.db", 10**9, patch, names)
        without = await wiped(tmp_path / "b.db", 1, patch, names)
    assert without == by_triggers
    assert len(without[1]) > 200
    assert [info.name for info in without[2]] == [name for name in names if name == "other"]
    schema, rows = contents(tmp_path / "b.db")
    expected_schema, expected = contents(tmp_path / "a.db")
    assert schema == expected_schema
    assert rows.keys() == expected.keys()
    for name, found in rows.items():
        # Bodies have times of their own.
        assert [row[:2] for row in found] == [row[:2] for row in expected[name]], name


def numbers_in(path):
    """By table, the numbers of the namespaces that it has rows of; and the old ones, with their state."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [
            str(name)
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master t WHERE type = 'table' AND name NOT LIKE '\\_%' "
                "ESCAPE '\\' AND EXISTS (SELECT 1 FROM pragma_table_info(t.name) WHERE name = 'ns')"
            )
        ]
        found = {
            name: {ns for (ns,) in connection.execute(f'SELECT DISTINCT ns FROM "{name}"')}
            for name in tables
        }
        old = connection.execute("SELECT ns, wiping FROM _namespaces WHERE wiping > 0").fetchall()
    return {name: numbers for name, numbers in found.items() if numbers}, dict(old)


@pytest.fixture
def renumbering(monkeypatch):
    """Every namespace that is wiped gets another number."""
    monkeypatch.setattr(namespaces, "_MANY_RECORDS", 1)
    monkeypatch.setattr(namespaces, "_PAUSE_SECONDS", 0.0)


@pytest.fixture
def nothing_removed(monkeypatch, renumbering):
    """What a wipe leaves stays, as if the process were killed after its first transaction."""

    def leave(self):
        return asyncio.create_task(asyncio.sleep(0))

    with monkeypatch.context() as patch:
        patch.setattr(Namespaces, "remove_soon", leave)
        yield patch


@pytest.mark.parametrize("at_once", [1, 7, 1_000])
@pytest.mark.usefixtures("renumbering")
async def test_nothing_is_left_and_the_feed_has_everything(opener, location, monkeypatch, at_once):
    monkeypatch.setattr(namespaces, "_AT_ONCE", at_once)
    store = await opener()
    other = store.scoped("other")
    await put(other, *specimens(3))
    await put(store, *specimens(3), *every_kind(), episode(50), episode(51), edge(50, 50, 51))
    await put(store, *map(episode, range(60, 230)))
    start = store.position()
    wiped = await store.wipe()
    left, old = numbers_in(location)
    assert len(set().union(*left.values())) == 1
    assert set(left) == {name for name in left if name.startswith("specimen")}
    assert list(old.values()) == [2]
    assert [info.name for info in await store.namespaces()] == ["other"]
    assert await stored(other, *specimens(3))
    changes, position = await follow(store, 0)
    assert position == wiped == store.position()
    put_before = {(change.kind, change.id) for change in changes if change.position <= start}
    gone = [change for change in changes if change.position > start]
    assert {(change.kind, change.id) for change in gone} == put_before
    assert len(gone) == len(put_before) == wiped - start
    assert {change.operation for change in gone} == {ChangeOperation.DELETE}
    await put(store, *every_kind())
    assert await stored(store, *every_kind())
    assert await store.wipe() > wiped
    assert await store.wipe() == store.position()
    changes, _ = await follow(store, wiped)
    assert len(changes) == 2 * len(every_kind())


async def test_what_a_killed_process_leaves_is_removed_when_the_store_is_opened(
    opener, location, nothing_removed
):
    store = await opener()
    await put(store, *every_kind())
    await put(store.scoped("other"), *specimens(3))
    await store.wipe()
    await put(store, episode(1))
    assert len(numbers_in(location)[0]["episode"]) == 2
    await store.aclose()
    nothing_removed.undo()
    reading = await TursoStorage.open(location, context=evolve(kit_context(), read_only=True))
    assert await drain(reading, Query(Episode)) == [episode(1)]
    await reading.aclose()
    assert len(numbers_in(location)[0]["episode"]) == 2
    store = await opener()
    position = store.position()
    await asyncio.wait([store._shared.namespaces.remove_soon()])
    left, old = numbers_in(location)
    assert len(left["episode"]) == 1
    assert list(old.values()) == [2]
    assert store.position() == position
    assert await stored(store, episode(1))
    assert await stored(store.scoped("other"), *specimens(3))


async def test_closing_does_not_wait_for_what_a_wipe_leaves(
    opener, location, nothing_removed, monkeypatch
):
    store = await opener()
    await put(store, *map(episode, range(40)))
    await store.wipe()
    nothing_removed.undo()
    monkeypatch.setattr(namespaces, "_AT_ONCE", 1)
    monkeypatch.setattr(namespaces, "_PAUSE_SECONDS", 0.01)
    store._shared.namespaces.remove_soon()
    await store.aclose()
    with closing(sqlite3.connect(location)) as connection:
        assert connection.execute("SELECT count(*) FROM episode").fetchone()[0] > 20


@frozen(kw_only=True)
class Node(Record):
    """Refers to another of its kind."""

    kind: ClassVar[str] = "node"
    indexes: ClassVar = (Index("parent", UUID),)
    references: ClassVar = (Reference("parent", "node", OnDelete.CASCADE),)
    parent: UUID | None = None


@pytest.mark.parametrize("order", ["oldest first", "newest first", "any"])
async def test_long_chains_of_references_are_removed(opener, location, monkeypatch, order):
    """SQLite follows a thousand of them."""
    monkeypatch.setattr(namespaces, "_PAUSE_SECONDS", 0)
    ids = [new_id() for _ in range(2_100)]
    if order == "newest first":
        ids.reverse()
    elif order == "any":
        Random(1).shuffle(ids)
    parents = [None, *ids[:-1]]
    nodes = [Node(id=each, parent=parent) for each, parent in zip(ids, parents, strict=True)]
    store = await opener(StorageContext(record_types=RecordTypes((*CORE_RECORD_TYPES, Node))))
    await put(store, *nodes)
    await store.wipe()
    assert await store.count(Query(Node)) == 0
    with closing(sqlite3.connect(location)) as connection:
        assert connection.execute("SELECT count(*) FROM node").fetchone() == (0,)


async def test_a_namespace_that_cannot_be_removed_keeps_no_other(
    opener, location, nothing_removed, caplog
):
    store = await opener()
    other = store.scoped("other")
    for handle in (store, other):
        await put(handle, *map(episode, range(20)))
        await handle.wipe()
    with closing(sqlite3.connect(location)) as connection:
        connection.execute(
            "CREATE TRIGGER foreign_guard BEFORE DELETE ON episode WHEN OLD.ns = 1 "
            "BEGIN SELECT RAISE(ABORT, 'kept by another program'); END"
        )
        connection.commit()
        nothing_removed.undo()
        await asyncio.wait([store._shared.namespaces.remove_soon()])
        assert "kept by another program" in caplog.text
        found = connection.execute("SELECT ns, count(*) FROM episode GROUP BY ns").fetchall()
        assert found == [(1, 20)]
        connection.execute("DROP TRIGGER foreign_guard")
        connection.commit()
        await asyncio.wait([store._shared.namespaces.remove_soon()])
        assert connection.execute("SELECT count(*) FROM episode").fetchone() == (0,)


async def test_a_wipe_whose_caller_is_gone_removes_the_records(opener, location, monkeypatch):
    monkeypatch.setattr(namespaces, "_MANY_RECORDS", 1)
    store = await opener()
    await put(store, *map(episode, range(40)))
    numbered = store._shared.namespaces
    real = numbered._wipe

    async def cancelled(name):
        wiping.cancel()
        return await real(name)

    monkeypatch.setattr(numbered, "_wipe", cancelled)
    wiping = asyncio.create_task(store.wipe())
    with pytest.raises(asyncio.CancelledError):
        await wiping
    with closing(sqlite3.connect(location)) as connection:
        for _ in range(500):
            if not connection.execute("SELECT count(*) FROM episode").fetchone()[0]:
                break
            await asyncio.sleep(0.01)
        assert connection.execute("SELECT count(*) FROM episode").fetchone() == (0,)
    assert await store.count(Query(Episode)) == 0


async def finds_only(store, kept, gone, *, stale):
    """Check that no read finds what is gone, also where it begins with the old number."""
    numbers = store._shared.namespaces.numbers
    parts = Parts(Relationship, "from_episode_id", lambda _: True)
    ids = [record.id for record in gone if isinstance(record, Episode)]
    none = [None] * len(ids)
    for read, found in (
        (partial(store.count, Query(Episode)), 1),
        (partial(store.count, Query(Episode).where(complexity="moderate")), 1),
        (partial(drain, store, Query(Episode)), [kept]),
        (partial(store.get, Episode, [ids[0], kept.id]), [None, kept]),
        (partial(store.get, Episode, ids), none),
        (partial(store.get_with_parts, Episode, ids[:1], parts), [None]),
        (partial(store.get_with_parts, Episode, ids, parts), none),
    ):
        if stale:
            numbers["default"] = Namespace(1, "default")
        assert await read() == found
    assert (await store.stats()).records["episode"] == 1
    assert [info.records["episode"] for info in await store.namespaces()] == [1]


async def test_nothing_of_what_is_left_is_found(opener, nothing_removed, tmp_path):
    """Neither in a copy, nor by a process that knows the old number."""
    store, other = await opener(), await opener()
    many = [*map(episode, range(40)), edge(1, 1, 2)]
    await put(other, *many)
    assert await other.count(Query(Episode)) == 40
    await store.wipe()
    await put(store, episode(50))
    await store.backup(tmp_path / "copy.db")
    copy = await TursoStorage.open(str(tmp_path / "copy.db"), context=kit_context())
    for each in (other, store, copy):
        await finds_only(each, episode(50), many, stale=each is other)
    await copy.aclose()


async def test_what_another_process_writes_after_a_wipe_is_found(opener, nothing_removed):
    store, other = await opener(), await opener()
    await put(other, episode(1))
    await store.wipe()
    # A group of which one is rejected runs twice.
    results = await other.commit(
        [
            WriteBatch().put(episode(2)),
            WriteBatch().put(edge(3, 1, 2)),
            WriteBatch().put(*map(episode, range(10, 200))),
        ]
    )
    assert [type(result).__name__ for result in results] == [
        "Receipt",
        "ReferenceNotFoundError",
        "Receipt",
    ]
    await store.wipe()
    await other.commit([WriteBatch().delete(Episode, episode(2).id).put(episode(4))])
    await store.wipe()
    assert await other.wipe() == store.position()
    await put(other, episode(5))
    for each in (store, other):
        assert await drain(each, Query(Episode)) == [episode(5)]
        assert await each.get(Episode, [episode(5).id]) == [episode(5)]


async def test_a_wipe_between_the_two_runs_of_a_group_loses_nothing(opener, nothing_removed):
    store, other = await opener(), await opener()
    await put(other, episode(1))
    session = other._shared.driver._writer.session
    rollback = session.rollback
    wiped = threading.Event()
    loop = asyncio.get_running_loop()

    def then_wiped():
        rollback()
        if not wiped.is_set():
            wiped.set()
            asyncio.run_coroutine_threadsafe(store.wipe(), loop).result()

    session.rollback = then_wiped
    results = await other.commit(
        [
            WriteBatch().put(episode(2)),
            WriteBatch().put(edge(3, 90, 91)),
            WriteBatch().put(episode(3)),
        ]
    )
    assert wiped.is_set()
    assert [isinstance(result, Receipt) for result in results] == [True, False, True]
    assert await drain(store, Query(Episode).order_by("start_time", descending=False)) == [
        episode(2),
        episode(3),
    ]


@pytest.mark.usefixtures("renumbering")
async def test_a_number_is_forgotten_with_its_changes(opener, location):
    store = await opener(change_feed_limit=40)
    await put(store, *map(episode, range(30)))
    await store.wipe()
    assert (await store.changes(store.position() - 41)).trimmed
    assert len((await store.changes(store.position() - 40)).changes) == 40
    assert list(numbers_in(location)[1]) == [1]
    await put(store.scoped("other"), *map(episode, range(30)))
    await store.scoped("other").wipe()
    assert list(numbers_in(location)[1]) == [3]


@pytest.mark.usefixtures("renumbering")
async def test_the_feed_is_not_written_beyond_what_it_keeps(opener):
    store = await opener(change_feed_limit=50)
    await put(store, *map(episode, range(400)))
    end = await store.wipe()
    assert end == 800
    await store.aclose()
    # With another limit, what was never written is not in the feed either.
    store = await opener(change_feed_limit=100_000)
    assert (await store.changes(end - 51)).trimmed
    changes = (await store.changes(end - 50)).changes
    assert [change.position for change in changes] == list(range(end - 49, end + 1))


async def test_a_rule_that_is_new_is_not_checked_in_what_a_wipe_has_left(
    opener, location, nothing_removed
):
    @frozen(kw_only=True)
    class Note(Record):
        kind: ClassVar[str] = "note"
        indexes: ClassVar = (Index("text"),)
        text: str = ""

    @frozen(kw_only=True)
    class UniqueNote(Record):
        kind: ClassVar[str] = "note"
        indexes: ClassVar = (Index("text"),)
        constraints: ClassVar = (Unique("text"),)
        text: str = ""

    store = await opener(StorageContext(record_types=RecordTypes((*CORE_RECORD_TYPES, Note))))
    await put(store, *(Note(id=new_id(), text="same") for _ in range(20)))
    await store.wipe()
    await put(store, kept := Note(id=new_id(), text="same"))
    await store.aclose()
    store = await opener(StorageContext(record_types=RecordTypes((*CORE_RECORD_TYPES, UniqueNote))))
    assert len(numbers_in(location)[0]["note"]) == 1
    [found] = await drain(store, Query(UniqueNote).where(text="same"))
    assert found.id == kept.id


async def test_what_cannot_be_removed_keeps_no_kind_from_changing(
    opener, location, nothing_removed, caplog
):
    @frozen(kw_only=True)
    class Note(Record):
        kind: ClassVar[str] = "note"
        text: str = ""

    @frozen(kw_only=True)
    class IndexedNote(Record):
        kind: ClassVar[str] = "note"
        indexes: ClassVar = (Index("text"),)
        text: str = ""

    store = await opener(StorageContext(record_types=RecordTypes((*CORE_RECORD_TYPES, Note))))
    await put(store, *map(episode, range(20)), Note(id=new_id(), text="wiped"))
    await store.wipe()
    await put(store, kept := Note(id=new_id(), text="same"))
    await store.aclose()
    with closing(sqlite3.connect(location)) as connection:
        connection.execute(
            "CREATE TRIGGER guard BEFORE DELETE ON episode BEGIN SELECT RAISE(ABORT, 'kept'); END"
        )
    store = await opener(
        StorageContext(record_types=RecordTypes((*CORE_RECORD_TYPES, IndexedNote)))
    )
    [found] = await drain(store, Query(IndexedNote).where(text="same"))
    assert found.id == kept.id
    assert await drain(store, Query(IndexedNote)) == [found]
    assert "records of a wiped namespace stay in the store" in caplog.text


@pytest.mark.usefixtures("renumbering")
async def test_over_a_connection_of_the_caller(location):
    async with aiosqlite.connect(location) as connection:
        store = await TursoStorage.wrap(connection, context=kit_context())
        await put(store, *map(episode, range(30)), edge(1, 0, 1))
        await store.wipe()
        assert not numbers_in(location)[0]
        await put(store, episode(3))
        assert await drain(store, Query(Episode)) == [episode(3)]
        assert await store.get(Episode, [episode(2).id, episode(3).id]) == [None, episode(3)]
        await store.aclose()


async def test_other_connections_go_on_after_a_large_wipe(tmp_path, monkeypatch):
    monkeypatch.setattr(namespaces, "_MANY_RECORDS", 1)
    path = str(tmp_path / "store.db")
    storage = await TursoStorage.open(path, context=kit_context())
    other = await TursoStorage.open(path, context=kit_context())
    try:
        await storage.commit([WriteBatch().put(*map(episode, range(30)), edge(1, 0, 1))])
        await other.commit([WriteBatch().put(episode(40))])
        await storage.wipe()
        position = (await storage.stats()).position
        [receipt] = await other.commit([WriteBatch().put(*map(episode, range(3)), edge(1, 0, 1))])
        assert receipt.position == position + 4
        assert (await other.stats()).records["episode"] == 3
        [receipt] = await storage.commit([WriteBatch().delete(type(episode(0)), episode(0).id)])
        # With the edge that refers to it.
        assert receipt.position == position + 6
        assert (await storage.stats()).records["relationship"] == 0
    finally:
        await storage.aclose()
        await other.aclose()


async def test_triggers_of_other_programs_run_for_each_record(tmp_path, monkeypatch):
    monkeypatch.setattr(namespaces, "_MANY_RECORDS", 1)
    path = tmp_path / "store.db"
    storage = await TursoStorage.open(str(path), context=kit_context())
    try:
        await storage.commit([WriteBatch().put(*map(episode, range(30)))])
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE audit (id)")
        connection.execute(
            "CREATE TRIGGER audited AFTER DELETE ON episode BEGIN INSERT INTO audit VALUES (OLD.id); END"
        )
        connection.commit()
        await storage.wipe()
        assert connection.execute("SELECT count(*) FROM audit").fetchone() == (30,)
        connection.close()
    finally:
        await storage.aclose()


@pytest.mark.parametrize("many", [1, 10**9])
async def test_a_wipe_that_fails_changes_nothing(tmp_path, monkeypatch, many):
    monkeypatch.setattr(namespaces, "_MANY_RECORDS", many)
    path = tmp_path / "store.db"
    storage = await TursoStorage.open(str(path), context=kit_context())
    try:
        await storage.commit([WriteBatch().put(*map(episode, range(30)))])
        before = contents(path)
        connection = sqlite3.connect(path)
        connection.execute(
            "CREATE TRIGGER kept BEFORE DELETE ON Episode BEGIN SELECT RAISE(ABORT, 'kept'); END"
        )
        connection.commit()
        with pytest.raises(Exception, match="kept"):
            await storage.wipe()
        connection.execute("DROP TRIGGER kept")
        connection.commit()
        connection.close()
        assert contents(path) == before
    finally:
        await storage.aclose()
