"""The schema is created, migrated forward, and kept consistent by triggers, whichever program writes."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import ClassVar
from uuid import UUID

import pytest
from attrs import evolve, frozen

from memory_core.errors import CodecError, ConfigurationError, ReferenceNotFoundError
from memory_core.query import Query, any_of
from memory_core.records import (
    CORE_RECORD_TYPES,
    Episode,
    Index,
    Record,
    RecordTypes,
    Reference,
    Relationship,
    Unique,
)
from memory_core.storage import Receipt, StorageContext, WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.kinds import Folder, Leaf, Specimen
from memory_core.testing.data.samples import EPOCH, edge, episode
from memory_storage_turso.sql.schema import declaration
from memory_storage_turso.sql.tables import Tables


def context(*classes: type[Record]) -> StorageContext:
    return StorageContext(record_types=RecordTypes([*CORE_RECORD_TYPES, *classes]))


def note(**declared):
    """A version of one plugin's kind."""

    @frozen(kw_only=True)
    class Note(Record):
        kind: ClassVar[str] = "note"
        text: str = ""
        words: tuple[str, ...] = ()
        at: datetime = EPOCH
        weight: float = 0.0
        parent_id: UUID | None = None

    for name, value in declared.items():
        setattr(Note, name, value)
    return Note


async def test_what_is_made_once_is_not_made_again(opener, plain):
    store = await opener()
    await store.aclose()
    before = list(plain().iterdump())
    store = await opener()
    driver = store._shared.driver
    assert driver.stats()["writes"] == 0
    await store.aclose()
    assert list(plain().iterdump()) == before


async def test_indexes_are_added_and_filled_from_the_bodies(opener, plain):
    first = note(indexes=(Index("text"),))
    store = await opener(context(first))
    notes = [
        first(text=f"t{n}", words=("even",) if n % 2 == 0 else ("odd", "x"), weight=n / 4)
        for n in range(450)
    ]
    await store.commit([WriteBatch().put(*notes)])
    position = store.position()
    await store.aclose()

    second = note(
        indexes=(
            Index("text"), Index("words", multi=True), Index("at", datetime), Index("weight", float),
        ),
        default_order="at",
    )  # fmt: skip
    store = await opener(context(second))
    assert store.position() == position
    assert await store.count(Query(second).where(words="even")) == 225
    page = await store.query(Query(second).where(weight=any_of(1.0, 2.0)))
    assert {record.text for record in page} == {"t4", "t8"}
    assert len(await store.query(Query(second).where(words="odd").limit(5))) == 5
    added = second(text="new", words=("even",))
    await store.commit([WriteBatch().put(added, evolve(page.records[0], words=("changed",)))])
    assert await store.count(Query(second).where(words="changed")) == 1
    await store.aclose()

    # Gone again, and back: what was written in between counts.
    store = await opener(context(first))
    assert await store.count(Query(first).where(text="new")) == 1
    between = first(text="between", words=("even", "between"))
    await store.commit([WriteBatch().put(between)])
    await store.aclose()
    store = await opener(context(second))
    assert await store.count(Query(second).where(words="between")) == 1
    tables = {name for (name,) in plain().execute("SELECT name FROM sqlite_master")}
    assert "note$words" in tables


async def test_a_damaged_record_does_not_keep_a_store_from_being_opened_after_an_upgrade(
    opener, plain
):
    first = note(indexes=(Index("text"),))
    store = await opener(context(first))
    notes = [first(text=f"t{n}", words=("w",)) for n in range(10)]
    await store.commit([WriteBatch().put(*notes)])
    await store.aclose()
    connection = plain()
    damaged = "UPDATE note SET body = CAST(body || x'00' AS BLOB) WHERE id = ?"
    connection.execute(damaged, (notes[3].id.bytes,))
    connection.commit()
    second = note(indexes=(Index("text"), Index("words", multi=True)))
    store = await opener(context(second))
    with pytest.raises(CodecError) as caught:
        await store.get(second, [notes[3].id])
    assert caught.value.record_id == notes[3].id
    found = await store.query(Query(second).where(words="w"))
    assert {record.id for record in found} == {n.id for n in notes if n is not notes[3]}


async def test_an_interrupted_migration_goes_on(opener, monkeypatch):
    from memory_storage_turso.engine import opening

    first = note(indexes=())
    store = await opener(context(first))
    await store.commit([WriteBatch().put(*(first(text=f"t{n}") for n in range(500)))])
    await store.aclose()
    second = note(indexes=(Index("text"),))

    def interrupted(self, objects):
        raise KeyboardInterrupt

    monkeypatch.setattr(opening.Migration, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        await opener(context(second))
    monkeypatch.undo()
    store = await opener(context(first))
    assert await store.count(Query(first)) == 500
    await store.aclose()
    store = await opener(context(second))
    assert await store.count(Query(second).where(text="t77")) == 1


async def test_a_constraint_that_the_records_break(opener, plain):
    first = note(indexes=(Index("text"),))
    store = await opener(context(first))
    await store.commit([WriteBatch().put(first(text="same"), first(text="same"))])
    await store.aclose()
    strict = note(indexes=(Index("text"),), constraints=(Unique("text"),))
    with pytest.raises(ConfigurationError, match="break what their kind declares"):
        await opener(context(strict))
    store = await opener(context(first))
    assert await store.count(Query(first).where(text="same")) == 2


async def test_a_reference_that_points_at_nothing(opener):
    first = note(indexes=(Index("parent_id", UUID),))
    store = await opener(context(first))
    stray = first(parent_id=episode(9).id)
    await store.commit([WriteBatch().put(stray)])
    await store.aclose()
    strict = note(
        indexes=(Index("parent_id", UUID),), references=(Reference("parent_id", "episode"),)
    )
    with pytest.raises(ConfigurationError, match=str(stray.id)):
        await opener(context(strict))
    store = await opener(context(first))
    assert await store.count(Query(first)) == 1


async def test_a_kind_that_comes_to_refer_to_itself(opener):
    """Its table is rebuilt; the triggers that other kinds have on it are made again."""
    first = note(indexes=(Index("text"), Index("parent_id", UUID)))

    @frozen(kw_only=True)
    class Remark(Record):
        kind: ClassVar[str] = "remark"
        note_id: UUID
        indexes: ClassVar[tuple[Index, ...]] = (Index("note_id", UUID),)
        references: ClassVar[tuple[Reference, ...]] = (Reference("note_id", "note"),)

    store = await opener(context(first, Remark))
    root = first(text="root")
    child = first(text="child", parent_id=root.id)
    leaf = first(text="leaf", parent_id=child.id)
    remark = Remark(note_id=leaf.id)
    await store.commit([WriteBatch().put(root, child, leaf, remark)])
    await store.aclose()
    second = note(
        indexes=(Index("text"), Index("parent_id", UUID)),
        references=(Reference("parent_id", "note"),),
    )
    # Opened by a process that does not know the other kind.
    store = await opener(context(second))
    assert await store.count(Query(second)) == 3
    await store.commit([WriteBatch().delete("note", root.id)])
    assert await store.count(Query(second)) == 0
    await store.aclose()
    store = await opener(context(second, Remark))
    assert await store.count(Query(Remark)) == 0


async def test_a_kind_that_comes_later_is_counted(opener):
    store = await opener(context())
    await store.commit([WriteBatch().put(episode(1))])
    await store.aclose()
    later = note(indexes=(Index("text"),))
    store = await opener(context(later))
    assert await store.count(Query(later)) == 0
    await store.commit([WriteBatch().put(later(text="first"))])
    assert await store.count(Query(later)) == 1


async def test_a_kind_that_is_not_known_here_is_kept(opener):
    store = await opener()
    folder, whole = Folder(name="f"), episode(1)
    await store.commit(
        [WriteBatch().put(folder, whole, Leaf(folder_id=folder.id, episode_id=whole.id))]
    )
    await store.aclose()
    store = await opener(context())
    [info] = await store.namespaces()
    assert info.records["leaf"] == 1
    await store.commit([WriteBatch().delete(Episode, whole.id)])
    await store.aclose()
    store = await opener()
    assert await store.count(Query(Leaf)) == 0
    assert await store.count(Query(Folder)) == 1
    await store.aclose()
    store = await opener(context())
    await store.wipe()
    await store.aclose()
    store = await opener()
    assert await store.namespaces() == []


async def test_names_that_collide_with_columns_and_tables(opener):
    @frozen(kw_only=True)
    class Changes(Record):
        kind: ClassVar[str] = "_changes".strip("_")
        body: str = ""
        ns: tuple[str, ...] = ()
        Body: str = ""
        rid: int = 0
        order: str = ""
        indexes: ClassVar[tuple[Index, ...]] = (
            Index("body"), Index("ns", multi=True), Index("Body"), Index("rid", int), Index("order"),
        )  # fmt: skip
        constraints: ClassVar[tuple[Unique, ...]] = (Unique("body", "Body"),)

    store = await opener(context(Changes))
    record = Changes(body="b", ns=("n", "m"), Body="B", rid=5, order="o")
    await store.commit([WriteBatch().put(record)])
    assert await store.get(Changes, [record.id]) == [record]
    query = Query(Changes).where(body="b", ns="m", Body="B", rid=5, order="o")
    assert (await store.query(query.order_by("order"))).records == (record,)
    [twin] = await store.commit([WriteBatch().put(Changes(body="b", Body="B"))])
    assert twin.fields == ("body", "Body")


def test_a_kind_that_sqlite_keeps_to_itself():
    @frozen(kw_only=True)
    class Bad(Record):
        kind: ClassVar[str] = "sqlite_stat1"

    with pytest.raises(ConfigurationError, match="sqlite_"):
        Tables(RecordTypes([Bad]))


def test_a_declaration_is_stable():
    tables = Tables(kit_context().record_types)
    again = Tables(kit_context().record_types)
    assert [declaration(table, tables) for table in tables] == [
        declaration(table, again) for table in again
    ]


class TestAnotherProgram:
    """With sqlite3's own settings: foreign keys off."""

    async def test_deletes_cascade(self, store, plain):
        await store.commit([WriteBatch().put(episode(1), episode(2), edge(1, 1, 2))])
        start = store.position()
        plain().execute("DELETE FROM episode WHERE id = ?", (episode(1).id.bytes,))
        assert await store.count(Query(Relationship)) == 0
        page = await store.changes(start)
        assert {(change.kind, change.id) for change in page.changes} == {
            ("episode", episode(1).id),
            ("relationship", edge(1, 1, 2).id),
        }

    async def test_references_hold(self, store, plain):
        keeper = Specimen()
        folder = Folder(keeper_id=keeper.id, emblem_id=keeper.id)
        await store.commit([WriteBatch().put(keeper, folder)])
        with pytest.raises(sqlite3.IntegrityError, match="memory_core:restrict"):
            plain().execute("DELETE FROM specimen")
        with pytest.raises(sqlite3.IntegrityError, match="memory_core:reference"):
            plain().execute("UPDATE folder SET keeper_id = x'00'")
        plain().execute("UPDATE folder SET keeper_id = NULL")
        plain().execute("DELETE FROM specimen")
        # The column overrides the body.
        assert await store.get(Folder, [folder.id]) == [
            evolve(folder, keeper_id=folder.keeper_id, emblem_id=None)
        ]

    async def test_values_stay_indexed(self, store, plain):
        record = Specimen(labels=("a", "b"), seen_at=EPOCH)
        await store.commit([WriteBatch().put(record)])
        await store._shared.pending.index_pending()
        connection = plain()
        connection.execute("""UPDATE specimen SET labels = '["b","c"]'""")
        for label, count in (("a", 0), ("b", 1), ("c", 1)):
            assert await store.count(Query(Specimen).where(labels=label)) == count
        connection.execute("UPDATE specimen SET seen_at = seen_at + 1")
        assert len(await store.query(Query(Specimen).where(labels="c"))) == 1
        connection.execute("UPDATE specimen SET labels = NULL")
        assert await store.count(Query(Specimen).where(labels="c")) == 0
        [(left,)] = connection.execute('SELECT count(*) FROM "specimen$labels"').fetchall()
        assert left == 0

    async def test_ids_do_not_change(self, store, plain):
        await store.commit([WriteBatch().put(episode(1))])
        for change in ("id = x'00'", "ns = 2"):
            with pytest.raises(sqlite3.IntegrityError, match="memory_core:moved"):
                plain().execute(f"UPDATE episode SET {change}")

    async def test_cycles_are_refused(self, store, plain):
        await store.commit(
            [WriteBatch().put(*(episode(n) for n in range(4)), edge(1, 1, 2), edge(2, 2, 3))]
        )
        with pytest.raises(sqlite3.IntegrityError, match="memory_core:cycle"):
            plain().execute(
                "UPDATE relationship SET from_episode_id = ?, to_episode_id = ? WHERE id = ?",
                (episode(3).id.bytes, episode(2).id.bytes, edge(1, 1, 2).id.bytes),
            )

    async def test_a_copy_of_a_row_is_a_put(self, store, plain):
        await store.commit([WriteBatch().put(episode(1, tags=("t",)))])
        start = store.position()
        connection = plain()
        connection.execute("CREATE TEMP TABLE kept AS SELECT * FROM episode")
        connection.execute("DELETE FROM episode")
        connection.execute("UPDATE kept SET indexed$1 = 1, rid = NULL")
        connection.execute("INSERT INTO episode SELECT * FROM kept")
        assert await store.get(Episode, [episode(1).id]) == [episode(1, tags=("t",))]
        assert await store.count(Query(Episode).where(tags="t")) == 1
        page = await store.changes(start)
        assert [change.operation.value for change in page.changes] == ["delete", "put"]


@pytest.mark.parametrize("room_first", [True, False])
async def test_a_delete_that_takes_both_is_not_held(opener, room_first):
    """A record that the same delete deletes does not forbid it, by whichever reference it is reached."""

    @frozen(kw_only=True)
    class Area(Record):
        kind: ClassVar[str] = "area"

    @frozen(kw_only=True)
    class Room(Record):
        kind: ClassVar[str] = "room"
        area_id: UUID
        indexes: ClassVar[tuple[Index, ...]] = (Index("area_id", UUID),)
        references: ClassVar[tuple[Reference, ...]] = (Reference("area_id", "area"),)

    @frozen(kw_only=True)
    class Tenant(Record):
        kind: ClassVar[str] = "tenant"
        area_id: UUID
        indexes: ClassVar[tuple[Index, ...]] = (Index("area_id", UUID),)
        references: ClassVar[tuple[Reference, ...]] = (Reference("area_id", "area"),)

    @frozen(kw_only=True)
    class Lease(Record):
        kind: ClassVar[str] = "lease"
        tenant_id: UUID
        room_id: UUID
        indexes: ClassVar[tuple[Index, ...]] = (Index("tenant_id", UUID), Index("room_id", UUID))
        references: ClassVar[tuple[Reference, ...]] = (
            Reference("tenant_id", "tenant"),
            Reference("room_id", "room", "restrict"),
        )

    # The order of kinds is that of their triggers.
    store = await opener(context(Area, *((Room, Tenant) if room_first else (Tenant, Room)), Lease))
    area = Area()
    room, tenant = Room(area_id=area.id), Tenant(area_id=area.id)
    lease = Lease(tenant_id=tenant.id, room_id=room.id)
    [stray] = await store.commit([WriteBatch().put(lease)])
    assert isinstance(stray, ReferenceNotFoundError)
    await store.commit([WriteBatch().put(area, room, tenant, lease)])
    [held] = await store.commit([WriteBatch().delete(Room, room.id)])
    assert not isinstance(held, Receipt)
    [receipt] = await store.commit([WriteBatch().delete(Area, area.id)])
    assert isinstance(receipt, Receipt)
    assert [await store.count(Query(cls)) for cls in (Area, Room, Tenant, Lease)] == [0, 0, 0, 0]
