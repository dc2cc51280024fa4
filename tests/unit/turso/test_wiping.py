"""A large namespace of a file is wiped without triggers, and what is left is what they would leave."""

from __future__ import annotations

import sqlite3

import pytest

from memory_core.storage import WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.samples import edge, episode, every_kind
from memory_storage_turso import TursoStorage
from memory_storage_turso.engine import namespaces


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


def contents(path):
    """The rows of every table but the feed's, and the schema in no order."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        schema = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master"
        ).fetchall()
        names = [name for kind, name, _, _ in schema if kind == "table" and name != "_changes"]
        skipped = ("_meta", "_dictionaries")
        rows = {
            name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr)
            for name in names
            if name not in skipped
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
        assert [row[:3] for row in found] == [row[:3] for row in expected[name]], name


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
            "CREATE TRIGGER kept BEFORE DELETE ON episode BEGIN SELECT RAISE(ABORT, 'kept'); END"
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
