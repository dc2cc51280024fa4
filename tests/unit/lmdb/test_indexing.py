"""When pending index entries are written, and what the feed keeps until then."""

import asyncio
from typing import ClassVar
from uuid import UUID

import pytest
from attrs import evolve, frozen

from memory_core.errors import CodecError, DuplicateError, StorageFullError
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
    new_id,
)
from memory_core.storage import Receipt, WriteBatch
from memory_core.testing.data.kinds import Specimen
from memory_core.testing.data.samples import edge, episode, sample_id, specimens
from memory_core.testing.suite.harness import (
    accepted,
    drain,
    follow,
    put,
    refused,
    rejected,
    remove,
    stored,
)
from memory_storage_lmdb.read import reading
from memory_storage_lmdb.store.journal import read_changes
from memory_storage_lmdb.store.layout import KindLayout
from memory_storage_lmdb.write import writing


async def upkeep(store):
    return (await store.stats()).sections["upkeep"]


def entries_of(store):
    """The number of entries in each of the databases of kinds and indexes that has some."""
    shared = store._shared.store

    def entries(txn):
        return {
            name: txn.stat(db)["entries"]
            for name, db in shared.catalog.handles.items()
            if txn.stat(db)["entries"]
        }

    return shared.environment.read(store._shared.reader._gate, entries)


async def settled(store):
    """Wait for the jobs that the writer thread has."""
    await store._shared.store.thread.run(lambda: None)


async def test_index_entries_of_small_commits_are_pending_up_to_the_lag(opens):
    store = await opens(index_lag=10)
    for number in range(9):
        await put(store, episode(number))
    assert (await upkeep(store))["waiting"] == 9
    await put(store, episode(9))
    await settled(store)
    assert await upkeep(store) == {
        "waiting": 0,
        "passes": 1,
        "failed_passes": 0,
        "dictionaries_trained": 0,
        "failed_trainings": 0,
    }
    assert await store.count(Query(Episode)) == 10


async def indexed(store):
    """Wait until no index entry is pending."""
    async with asyncio.timeout(30):
        while (await upkeep(store))["waiting"]:
            await settled(store)


async def test_pending_entries_are_written_when_writing_pauses(opens, monkeypatch):
    monkeypatch.setattr(writing, "_IDLE_SECONDS", 0.001)
    store = await opens()
    await put(store, episode(1))
    await put(store, episode(2))
    await indexed(store)
    assert len(await drain(store, Query(Episode).limit(1))) == 2


async def test_pending_entries_are_written_when_a_query_meets_too_many(opens, monkeypatch):
    monkeypatch.setattr(reading, "_MOST_PENDING", 20)
    monkeypatch.setattr(writing, "_PASS", 8)
    store = await opens()
    await put(store, *map(episode, range(15)))
    assert await store.count(Query(Episode).where(complexity="moderate")) == 15
    await settled(store)
    assert (await upkeep(store))["waiting"] == 15
    await put(store, *map(episode, range(15, 30)))
    assert await store.count(Query(Episode).where(complexity="moderate")) == 30
    await indexed(store)
    assert (await upkeep(store))["passes"] == 4
    assert await store.count(Query(Episode).where(complexity="moderate")) == 30


async def test_a_record_put_again_during_passes_leaves_no_old_entries(opens, monkeypatch):
    monkeypatch.setattr(writing, "_PASS", 3)
    store = await opens()
    groups = store._shared.writer.groups
    one = Specimen(id=sample_id("specimen", 1), name="first")
    await put(store, one)
    await put(store, *specimens(4, 10))
    for name in ("second", "third"):
        one = evolve(one, name=name)
        await put(store, one)
        await store._shared.store.thread.run(groups.index_some)
        assert await drain(store, Query(Specimen).where(name=name)) == [one]
    for _ in range(100):
        if not await store._shared.store.thread.run(groups.index_some):
            break
    else:
        pytest.fail("index entries stay pending")
    for name, count in {"first": 0, "second": 0, "third": 1}.items():
        assert await store.count(Query(Specimen).where(name=name)) == count
    assert await store.count(Query(Specimen)) == 5
    assert len(await drain(store, Query(Specimen).limit(2))) == 5


async def index_all(store):
    """Write the pending entries, a pass after the other."""
    shared = store._shared
    while await shared.store.thread.run(shared.writer.groups.index_some):
        pass


async def test_an_update_leaves_only_the_entries_that_it_adds_to_be_written(opens, monkeypatch):
    store = await opens()
    one = Specimen(id=sample_id("specimen", 1), name="first", labels=("l1", "l2"))
    await put(store, one, *specimens(4, 10))
    await index_all(store)
    before = entries_of(store)
    for labels in (("l2", "l3"), ("l3", "l4"), ("l4", "l5")):
        one = evolve(one, name=labels[1], labels=labels)
        await put(store, one)
        assert sum(entries_of(store).values()) < sum(before.values())
    await index_all(store)
    assert entries_of(store) == before
    one = evolve(one, labels=("l5",), note="more")
    await put(store, one)
    with monkeypatch.context() as patched:
        patched.setattr(KindLayout, "tail", None)  # which each entry takes
        await index_all(store)
    assert (await upkeep(store))["waiting"] == 0
    assert await drain(store, Query(Specimen).where(name="l5", labels="l5")) == [one]
    for gone in ("l1", "l2", "l3", "l4"):
        assert await store.count(Query(Specimen).where(labels=gone)) == 0
    await remove(store, Specimen, *(record.id for record in [one, *specimens(4, 10)]))
    assert entries_of(store) == {}


async def test_an_update_that_adds_nothing_leaves_what_the_one_before_has_added(opens):
    store = await opens()
    one = Specimen(id=sample_id("specimen", 1), name="first")
    await put(store, one)
    await index_all(store)
    for change in ({"name": "second"}, {"note": "more"}):
        one = evolve(one, **change)
        await put(store, one)
    await index_all(store)
    assert (await upkeep(store))["waiting"] == 0
    assert await drain(store, Query(Specimen).where(name="second")) == [one]


async def test_a_query_reads_each_pending_record_once(opens, monkeypatch):
    monkeypatch.setattr(writing, "_PASS", 10)
    store = await opens()
    await put(store, *specimens(30))
    read, values = [], KindLayout.values

    def counted(layout, key, data):
        read.append(key)
        return values(layout, key, data)

    monkeypatch.setattr(KindLayout, "values", counted)
    query = Query(Specimen).where(name="nobody")
    while True:
        assert await store.count(query) == 0
        shared = store._shared
        if not await shared.store.thread.run(shared.writer.groups.index_some):
            break
    assert await store.count(query) == 0
    assert len(read) == 30
    # Nothing is kept of those that are indexed.
    assert not any(store._shared.reader._pending._known.values())
    await put(store, *specimens(5))
    await remove(store, Specimen, specimens(1)[0].id)
    assert await store.count(query) == 0
    assert len(read) == 34


async def test_a_large_batch_is_indexed_at_once(opens):
    store = await opens(index_lag=10)
    await put(store, episode(100))
    await put(store, *map(episode, range(10)))
    assert (await upkeep(store))["waiting"] == 0
    assert len(await drain(store, Query(Episode).limit(3))) == 11


async def test_without_a_lag_every_commit_is_indexed(opens):
    store = await opens(index_lag=0)
    await put(store, episode(1))
    assert (await upkeep(store))["waiting"] == 0


async def test_another_handle_sees_pending_records_and_indexes_them(opens):
    store = await opens(index_lag=100)
    await put(store, *map(episode, range(5)))
    await store.aclose()
    again = await opens(index_lag=3)
    assert (await upkeep(again))["waiting"] == 5
    assert len(await drain(again, Query(Episode).limit(2))) == 5
    await put(again, episode(9))
    await settled(again)
    assert (await upkeep(again))["waiting"] == 0
    assert len(await drain(again, Query(Episode).limit(2))) == 6


async def test_a_record_deleted_while_pending_is_not_indexed(opens):
    store = await opens(index_lag=8)
    for record in specimens(3):
        await put(store, record)
    await remove(store, Specimen, specimens(3)[1].id)
    await put(store, *specimens(8, 50))
    assert (await upkeep(store))["waiting"] == 0
    assert await store.count(Query(Specimen)) == 10
    assert len(await drain(store, Query(Specimen).order_by("amount").limit(4))) == 10


async def test_the_feed_keeps_changes_with_pending_entries(opens):
    store = await opens(index_lag=10_000, change_feed_limit=5)
    for start in range(0, 1_200, 15):
        await put(store, *(episode(number) for number in range(start, start + 15)))
    assert await store.count(Query(Episode).where(complexity="moderate")) == 1_200
    page = await store.changes(0)
    assert page.trimmed
    changes, _ = await follow(store, store.position() - 5)
    assert len(changes) == 5


async def test_the_feed_is_trimmed_in_the_store(opens):
    store = await opens(index_lag=0, change_feed_limit=10)
    for start in range(0, 2_200, 100):
        await put(store, *(episode(number) for number in range(start, start + 100)))
    shared = store._shared.store
    kept = shared.environment.read(
        store._shared.reader._gate,
        lambda txn: len(list(read_changes(txn, shared.catalog.journal, 0))),
    )
    assert 10 <= kept <= 1_200
    page = await store.changes(store.position() - 10, 4)
    assert [change.position for change in page.changes] == [2_191, 2_192, 2_193, 2_194]
    assert page.position == 2_194


async def test_changes_that_are_not_indexed_yet_are_not_trimmed(opens):
    store = await opens(index_lag=10_000, change_feed_limit=10)
    made = [episode(number).replace(tags=("old", f"n{number}")) for number in range(1_300)]
    for start in range(0, len(made), 100):
        await put(store, *made[start : start + 100])
    assert await store.count(Query(Episode).where(tags="old")) == len(made)
    assert await drain(store, Query(Episode).where(tags="n0")) == made[:1]


async def test_the_feed_from_the_middle_of_a_segment(opens):
    store = await opens()
    await put(store, *map(episode, range(400)))
    for since in (0, 1, 159, 160, 161, 250, 399, 400):
        page = await store.changes(since, 1_000)
        assert [change.position for change in page.changes] == list(range(since + 1, 401))


async def test_entries_of_references_and_uniques_are_never_pending(opens):
    store = await opens(index_lag=10_000)
    await put(store, episode(1), episode(2), edge(1, 1, 2))
    await refused(store, WriteBatch().put(edge(2, 1, 2)), DuplicateError)
    await remove(store, Episode, episode(1).id)
    assert await drain(store, Query(Relationship)) == []
    await put(store, episode(1), edge(2, 1, 2))


async def test_the_value_of_another_record_stays_taken(opens):
    """Versions that did not check a new constraint have left records with the same unique value."""
    store = await opens()
    first, second = Specimen(id=new_id(), code="x"), Specimen(id=new_id(), code="y")
    await put(store, first, second)
    shared = store._shared.store
    layout = shared.catalog.layouts["specimen"]
    (unique,) = layout.uniques
    database = shared.catalog.handles[unique.database]

    def give_to_second(txn):
        cursor = txn.cursor(db=database)
        [taken] = [key for key, holder in cursor.iternext() if holder == first.id.bytes]
        txn.put(taken, second.id.bytes, db=database)

    await shared.thread.run(shared.environment.write, give_to_second)
    await remove(store, Specimen, first.id)
    await rejected(store, WriteBatch().put(Specimen(code="x")), DuplicateError)


async def test_a_pass_that_fails_is_repeated(opens, monkeypatch):
    store = await opens(index_lag=3)
    groups = type(store._shared.writer.groups)
    real = groups.index_some

    def full(self):
        raise StorageFullError("no room")

    monkeypatch.setattr(groups, "index_some", full)
    for number in range(5):
        await put(store, episode(number))
        await settled(store)
    assert (await upkeep(store))["failed_passes"] == 3
    assert len(await drain(store, Query(Episode).limit(2))) == 5
    monkeypatch.setattr(groups, "index_some", real)
    await put(store, episode(5))
    await settled(store)
    assert (await upkeep(store))["waiting"] == 0
    assert len(await drain(store, Query(Episode).limit(2))) == 6


async def test_one_rejected_batch_has_its_group_applied_again(opens):
    store = await opens()
    await put(store, episode(1))
    batches = [WriteBatch().put(episode(number)) for number in range(10, 20)]
    batches[4] = WriteBatch().put(episode(50), edge(1, 50, 99))
    results = await asyncio.gather(*(store.commit([batch]) for batch in batches))
    assert [isinstance(result[0], Receipt) for result in results].count(False) == 1
    assert (await store.stats()).counters["groups_retried"] == 1
    assert await store.count(Query(Episode)) == 10
    assert await store.get(Episode, [episode(50).id]) == [None]
    positions = [result[0].position for result in results if isinstance(result[0], Receipt)]
    assert positions == list(range(2, 11))


def damage(store, kind, record_id, at):
    shared = store._shared.store
    layout = shared.catalog.layouts[kind]

    def job(txn):
        records = shared.catalog.handles[layout.database]
        (key,) = (key for key, _ in txn.cursor(db=records) if key.endswith(record_id.bytes))
        data = bytearray(txn.get(key, db=records))
        data[at] ^= 0xFF
        txn.put(key, bytes(data), db=records)

    return store._shared.store.thread.run(lambda: shared.environment.write(job))


@pytest.mark.parametrize("how", ["replaced", "deleted"])
async def test_a_damaged_record_leaves_no_entries(opens, how):
    store = await opens(index_lag=0)
    made = specimens(12)
    await put(store, *made)
    victim = made[5]
    # Its index values: without them its entries have to be searched for.
    await damage(store, "specimen", victim.id, 25)
    if how == "replaced":
        await put(store, Specimen(id=victim.id))
    await remove(store, Specimen, *(record.id for record in made))
    assert entries_of(store) == {}


@pytest.mark.parametrize("at", [0, 1, 3, 10, 17, 25, -1])
@pytest.mark.parametrize("lag", [0, 100])
async def test_a_damaged_record_is_named_and_can_be_replaced(opens, at, lag):
    store = await opens(index_lag=lag)
    made = specimens(12)
    await put(store, *made)
    victim = made[5]
    await damage(store, "specimen", victim.id, at)
    with pytest.raises(CodecError, match=str(victim.id)):
        await store.get(Specimen, [victim.id])
    assert await stored(store, *made[:5], *made[6:])
    if lag == 0:
        await put(store, victim)
        assert await stored(store, victim)
    await remove(store, Specimen, victim.id)
    assert await store.get(Specimen, [victim.id]) == [None]
    assert len(await drain(store, Query(Specimen).limit(5))) == 11
    await put(store, victim)
    assert len(await drain(store, Query(Specimen).order_by("name").limit(5))) == 12


async def test_queries_on_threads_read_a_pending_record_once(opens, monkeypatch):
    monkeypatch.setattr(reading, "_INLINE_SECONDS", -1.0)
    read, values = [], KindLayout.values

    def counted(layout, key, data):
        read.append(key)
        return values(layout, key, data)

    monkeypatch.setattr(KindLayout, "values", counted)
    store = await opens()
    await put(store, *specimens(100))
    query = Query(Specimen).where(name=specimens(1)[0].name)
    assert await drain(store, query)
    read.clear()
    await put(store, *specimens(3, 200))
    assert await drain(store, query)
    # By the event loop, which gave up, and by the thread.
    assert set(read) == {b"\0\0\0\1" + each.id.bytes for each in specimens(3, 200)}
    assert store._shared.reader.counters["reads_on_threads"] >= 2


async def test_a_damaged_record_does_not_keep_others_from_the_indexes(opens):
    store = await opens(index_lag=50)
    made = specimens(12)
    for record in made:
        await put(store, record)
    await damage(store, "specimen", made[3].id, 30)
    await put(store, *specimens(50, 200))
    assert (await upkeep(store))["waiting"] == 0
    assert await store.count(Query(Specimen).where(name=made[4].name)) >= 1


async def test_all_entries_go_with_their_records(opens):
    store = await opens(index_lag=2)
    records = [*specimens(40), *map(episode, range(10)), *(edge(n, n, n + 1) for n in range(9))]
    for start in range(0, len(records), 7):
        await put(store, *records[start : start + 7])
    await store.commit(
        [
            WriteBatch().delete(type(record), record.id)
            for record in records
            if record.kind != "episode"
        ]
    )
    await accepted(
        store, WriteBatch().delete(Episode, *(sample_id("episode", n) for n in range(10)))
    )
    assert entries_of(store) == {}
    assert not any((await store.stats()).records.values())


@frozen(kw_only=True)
class Marked(Record):
    kind: ClassVar = "marked"
    default_order: ClassVar = "emblem_id"
    emblem_id: UUID | None = None
    name: str = ""
    indexes: ClassVar = (Index("emblem_id", UUID), Index("name"))
    references: ClassVar = (Reference("emblem_id", "episode", OnDelete.SET_NULL),)


async def test_a_record_put_and_set_to_null_in_one_commit_is_indexed_by_what_is_left(opens):
    """All entries bear the value of the default order, which is the reference here."""
    types = RecordTypes((*CORE_RECORD_TYPES, Marked))
    store = await opens(types=types, index_lag=1_000)
    emblem = episode(1)
    await put(store, emblem)
    marked = [Marked(id=new_id(), emblem_id=emblem.id, name="n") for _ in range(150)]
    # So large a commit is indexed at once.
    await accepted(store, WriteBatch().put(*marked).delete(Episode, emblem.id))
    assert (await upkeep(store))["waiting"] == 0
    assert len(await drain(store, Query(Marked).where(name="n").limit(40))) == 150
    await accepted(store, WriteBatch().delete(Marked, *(record.id for record in marked)))
    assert entries_of(store) == {}


async def test_a_wiped_namespace_leaves_no_entries(opens):
    store = await opens(index_lag=20)
    other = store.scoped("other")
    await put(other, *specimens(5))
    await put(store, *specimens(40), *map(episode, range(10)), edge(1, 1, 2))
    position = await store.wipe()
    assert position == store.position() == 5 + 51 + 51
    assert await store.count(Query(Specimen)) == 0
    assert await drain(store, Query(Episode)) == []
    assert len(await drain(other, Query(Specimen))) == 5
    await put(store, *specimens(40))
    assert len(await drain(store, Query(Specimen).limit(9))) == 40
