"""Kinds that are declared differently than before: indexed again, never wiped."""

from typing import ClassVar
from uuid import UUID

import pytest
from attrs import frozen

from memory_core.errors import (
    CodecError,
    ConfigurationError,
    DeclarationChangedError,
    DuplicateError,
    ReferenceRestrictedError,
)
from memory_core.query import Query, at_least
from memory_core.records import (
    CORE_RECORD_TYPES,
    Episode,
    Index,
    OnDelete,
    Record,
    RecordTypes,
    Reference,
    Unique,
    new_id,
)
from memory_core.storage import WriteBatch
from memory_core.testing.data.samples import episode, sample_id
from memory_core.testing.suite.harness import accepted, drain, put, refused, remove, stored
from memory_storage_lmdb.write import filling


def note_class(order, declared, rules=()):
    """A version of a plugin's kind."""

    @frozen(kw_only=True)
    class Note(Record):
        kind: ClassVar[str] = "note"
        default_order: ClassVar[str] = order
        text: str = ""
        rank: int = 0
        code: str | None = None
        indexes: ClassVar = declared
        constraints: ClassVar = rules

    return Note


def upper(note):
    return note.text.upper()


V1 = note_class("rank", (Index("rank", int), Index("text")))
# Another index, other values of one, a constraint.
V2 = note_class(
    "rank", (Index("rank", int), Index("text", path=upper), Index("code")), (Unique("code"),)
)
# Another default order, whose keys have another size.
V3 = note_class("text", (Index("text"), Index("rank", int)))


def notes(cls, count):
    return [
        cls(id=sample_id("note", number), text=f"text {number % 3}", rank=number, code=f"c{number}")
        for number in range(count)
    ]


def types(*classes):
    return RecordTypes((*CORE_RECORD_TYPES, *classes))


@pytest.mark.parametrize("lag", [0, 1_000])
async def test_changed_indexes_are_filled_again(opens, lag):
    store = await opens(types=types(V1), index_lag=lag)
    await put(store, *notes(V1, 1_200), episode(1))
    await remove(store, V1, sample_id("note", 7))
    await store.aclose()

    store = await opens(types=types(V2))
    assert await store.count(Query(V2)) == 1_199
    assert await store.count(Query(V2).where(text="TEXT 1")) == 399
    assert await store.count(Query(V2).where(text="text 1")) == 0
    (found,) = await drain(store, Query(V2).where(code="c500"))
    assert found == V2(id=sample_id("note", 500), text="text 2", rank=500, code="c500")
    await refused(store, WriteBatch().put(V2(code="c500")), DuplicateError)
    await put(store, V2(id=sample_id("note", 500), code="new"))
    assert await drain(store, Query(V2).where(code="c500")) == []
    assert await stored(store, episode(1))
    await store.aclose()

    store = await opens(types=types(V3))
    page = await store.query(Query(V3).limit(2))
    assert [note.text for note in page.records] == ["text 2", "text 2"]
    assert await store.count(Query(V3).where(rank=at_least(1_000))) == 200
    assert len(await drain(store, Query(V3).limit(500))) == 1_199


async def test_filling_goes_on_after_a_crash(opens, monkeypatch):
    store = await opens(types=types(V1))
    await put(store, *notes(V1, 2_000))
    await store.aclose()
    real, steps = filling._next_records, []

    def crashing(*given):
        steps.append(given)
        if len(steps) == 3:
            raise RuntimeError("power cut")
        return real(*given)

    monkeypatch.setattr(filling, "_next_records", crashing)
    with pytest.raises(RuntimeError, match="power cut"):
        await opens(types=types(V2))
    monkeypatch.setattr(filling, "_next_records", real)
    # A process that does not need the kind can use the others.
    bystander = await opens(types=types())
    await put(bystander, episode(1))
    await bystander.aclose()
    store = await opens(types=types(V2))
    assert await store.count(Query(V2).where(text="TEXT 0")) == 667
    assert len(await drain(store, Query(V2).limit(700))) == 2_000


async def test_going_back_fills_again(opens):
    store = await opens(types=types(V1))
    made = notes(V1, 30)
    await put(store, *made)
    for cls in (V2, V3, V1):
        await store.aclose()
        store = await opens(types=types(cls))
        assert await store.count(Query(cls)) == 30
    assert await store.count(Query(V1).where(text="text 1")) == 10
    assert await stored(store, *made)


async def test_a_record_that_cannot_be_read_stays_as_it_is(opens):
    store = await opens(types=types(V1))
    made = notes(V1, 5)
    await put(store, *made)
    shared = store._shared.store

    def spoil(txn):
        records = shared.catalog.handles[b"note/records"]
        (key,) = (key for key, _ in txn.cursor(db=records) if key.endswith(made[2].id.bytes))
        data = txn.get(key, db=records)
        txn.put(key, data[:-1] + bytes([data[-1] ^ 1]), db=records)

    await shared.thread.run(lambda: shared.environment.write(spoil))
    await store.aclose()
    store = await opens(types=types(V2))
    assert len(await drain(store, Query(V2).where(text="TEXT 0"))) == 2
    with pytest.raises(CodecError, match=str(made[2].id)):
        await store.get(V2, [made[2].id])
    await remove(store, V2, made[2].id)
    assert await store.get(V2, [made[2].id]) == [None]
    assert len(await drain(store, Query(V2))) == 4


async def test_two_declarations_in_one_process_are_rejected(opens):
    await opens(types=types(V1))
    with pytest.raises(ConfigurationError, match="note"):
        await opens(types=types(V2))
    await opens(types=types())


async def test_a_process_with_an_old_declaration_gets_an_error(opens):
    store = await opens(types=types(V1))
    await put(store, *notes(V1, 3))
    shared = store._shared.store

    def redeclare(txn):
        """What another process with a newer plugin does."""
        declared = {"note": filling.Declaration.of(V3)}
        decode = store._shared.reader.decode
        filling._declare(txn, shared.catalog, types(V3), declared, decode)

    await shared.thread.run(lambda: shared.environment.write(redeclare))
    for use in (
        store.query(Query(V1)),
        store.count(Query(V1)),
        store.commit([WriteBatch().put(V1())]),
        store.changes(0),
    ):
        with pytest.raises(DeclarationChangedError, match="note") as caught:
            await use
        assert (caught.value.kind, caught.value.retryable) == ("note", False)


@frozen(kw_only=True)
class Badge(Record):
    """A kind that a plugin brings and takes away."""

    kind: ClassVar[str] = "badge"
    main_id: UUID | None = None
    strict_id: UUID | None = None
    loose_id: UUID | None = None
    indexes: ClassVar = (Index("main_id", UUID), Index("strict_id", UUID), Index("loose_id", UUID))
    references: ClassVar = (
        Reference("main_id", "episode", OnDelete.CASCADE),
        Reference("strict_id", "episode", OnDelete.RESTRICT),
        Reference("loose_id", "episode", OnDelete.SET_NULL),
    )


async def test_kinds_without_their_plugin_are_kept_whole(opens):
    one, two, three = (sample_id("episode", number) for number in (1, 2, 3))
    badges = [Badge(id=new_id(), main_id=one, loose_id=two), Badge(id=new_id(), strict_id=three)]
    free = Badge(id=new_id(), loose_id=two)
    store = await opens(types=types(Badge), index_lag=1_000)
    await put(store, *map(episode, (1, 2, 3)), *badges, free)
    await store.aclose()

    store = await opens(types=types(), index_lag=1)
    await put(store, episode(4), episode(5))
    await refused(store, WriteBatch().delete(Episode, three), ReferenceRestrictedError)
    await accepted(store, WriteBatch().delete(Episode, one, two))
    with pytest.raises(ConfigurationError):
        await store.get(Badge, [free.id])
    changes = (await store.changes(0)).changes
    assert {change.kind for change in changes} == {"episode", "badge"}
    await store.aclose()

    store = await opens(types=types(Badge))
    assert await store.get(Badge, [badges[0].id, free.id]) == [None, Badge(id=free.id)]
    assert await drain(store, Query(Badge).where(loose_id=None)) == [
        Badge(id=free.id),
        badges[1],
    ]
    assert await store.count(Query(Badge).where(loose_id=two)) == 0
    await remove(store, Badge, badges[1].id)
    await remove(store, Episode, three)
    assert await store.wipe() == store.position()


async def test_a_reference_set_to_null_stays_so_when_its_kind_changes(opens):
    store = await opens(types=types(Badge))
    badge = Badge(id=new_id(), loose_id=sample_id("episode", 1))
    await put(store, episode(1), badge)
    await remove(store, Episode, sample_id("episode", 1))
    await store.aclose()

    @frozen(kw_only=True)
    class Changed(Record):
        kind: ClassVar[str] = "badge"
        main_id: UUID | None = None
        strict_id: UUID | None = None
        loose_id: UUID | None = None
        indexes: ClassVar = (*Badge.indexes, Index("has_main", bool, path=has_main))
        references: ClassVar = Badge.references

    store = await opens(types=types(Changed))
    assert await store.get(Changed, [badge.id]) == [Changed(id=badge.id)]
    assert await drain(store, Query(Changed).where(loose_id=None)) == [Changed(id=badge.id)]
    assert await store.count(Query(Changed).where(has_main=False)) == 1
    again = Changed(id=badge.id, strict_id=None)
    await put(store, again)
    assert await stored(store, again)


def has_main(badge):
    return badge.main_id is not None
