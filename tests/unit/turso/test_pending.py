"""Pending index entries are written in time, and queries find their records before that."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest
from attrs import evolve, frozen

from memory_core.errors import ConfigurationError
from memory_core.query import Query
from memory_core.records import Episode, Record
from memory_core.storage import Receipt, WriteBatch
from memory_core.testing.data.kinds import Specimen
from memory_core.testing.data.samples import EPOCH, episode
from memory_storage_turso import TursoStorage
from memory_storage_turso.engine import pending
from tests.servers.waiting import until


@frozen(kw_only=True, eq=False, repr=False)
class _Stranger(Record):
    kind: ClassVar[str] = "stranger"


def pending_of(connection) -> int:
    [(count,)] = connection.execute("SELECT count(*) FROM episode WHERE indexed$1 = 0").fetchall()
    return count


def entries(connection) -> int:
    [(count,)] = connection.execute('SELECT count(*) FROM "episode$tags"').fetchall()
    return count


async def test_entries_of_single_puts_are_pending_and_those_of_batches_are_not(store, plain):
    await store.commit([WriteBatch().put(*(episode(n, tags=("t",)) for n in range(200)))])
    connection = plain()
    assert (pending_of(connection), entries(connection)) == (0, 200)
    await store.commit([WriteBatch().put(episode(200, tags=("t",)))])
    assert (pending_of(connection), entries(connection)) == (1, 200)
    assert await store.count(Query(Episode).where(tags="t")) == 201


@pytest.mark.parametrize("number", [1, 20])
async def test_records_of_an_unknown_kind_have_no_pending_entries(store, plain, number):
    strangers = WriteBatch().put(*(_Stranger() for _ in range(number)))
    results = await store.commit([strangers, WriteBatch().put(episode(1, tags=("t",)))])
    assert [type(result) for result in results] == [ConfigurationError, Receipt]
    await store._shared.pending.index_pending()
    assert pending_of(plain()) == 0
    assert (await store.stats()).sections["indexing"]["waiting"] == 0


async def test_pending_entries_are_written_in_a_pause(store, plain, monkeypatch):
    monkeypatch.setattr(pending, "_PAUSE", 0.01)
    done = asyncio.Event()
    written_later = store._shared.pending
    run = written_later._run

    async def watched():
        await run()
        done.set()

    monkeypatch.setattr(written_later, "_run", watched)
    position = (await store.commit([WriteBatch().put(episode(1, tags=("t",)))]))[0].position
    await asyncio.wait_for(done.wait(), 60)
    connection = plain()
    assert (pending_of(connection), entries(connection)) == (0, 1)
    # It changes no record: the feed and the position know nothing of it.
    assert store.position() == position
    assert (await store.changes(position)).changes == ()
    assert (await store.stats()).sections["indexing"] == {
        "runs": 1, "indexed_later": 1, "waiting": 0,
    }  # fmt: skip


async def test_the_index_backlog_is_bounded(store, plain, monkeypatch):
    monkeypatch.setattr(pending, "_MOST", 16)
    monkeypatch.setattr(pending, "_AT_ONCE", 4)
    most = 0
    connection = plain()
    for number in range(100):
        await store.commit([WriteBatch().put(episode(number))])
        most = max(most, pending_of(connection))
    assert most <= 17
    figures = store._shared.pending.stats()
    assert figures["runs"] >= 5
    assert figures["indexed_later"] >= 80


async def test_a_query_that_meets_many_begins_to_index_them(store, plain, monkeypatch):
    monkeypatch.setattr(pending, "_MANY", 8)
    # Not because writing pauses.
    monkeypatch.setattr(pending, "_PAUSE", 600)
    for number in range(7):
        await store.commit([WriteBatch().put(episode(number))])
    written_later = store._shared.pending
    assert len(await store.query(Query(Episode))) == 7
    assert pending_of(plain()) == 7
    await store.commit([WriteBatch().put(episode(7))])
    assert await store.count(Query(Episode).where(tags="t")) == 0
    await until(lambda: written_later.runs == 1)
    assert pending_of(plain()) == 0


async def test_closing_leaves_no_pending_entries(opener, plain):
    store = await opener()
    await store.commit([WriteBatch().put(episode(1, tags=("t",)))])
    await store.aclose()
    connection = plain()
    assert (pending_of(connection), entries(connection)) == (0, 1)


async def test_what_a_killed_process_left_is_indexed(opener, plain, monkeypatch):
    store = await opener()
    await store.commit([WriteBatch().put(episode(1, tags=("t",)))])
    # As if it had been killed here.
    monkeypatch.setattr(store._shared.pending, "_records", 0)
    await store.aclose()
    assert pending_of(plain()) == 1
    again = await opener()
    assert await again.count(Query(Episode).where(tags="t")) == 1
    assert again._shared.pending._records == 1
    await again.aclose()
    assert (pending_of(plain()), entries(plain())) == (0, 1)


async def test_changes_of_pending_and_of_indexed_records(store):
    """The entries follow every change of a record, before and after it is indexed."""
    written_later = store._shared.pending

    async def labels(*expected: str) -> None:
        for label in ("a", "b", "c"):
            count = await store.count(Query(Specimen).where(labels=label))
            assert count == expected.count(label), label
            page = await store.query(Query(Specimen).where(labels=label))
            assert len(page) == count

    record = Specimen(labels=("a", "b"), seen_at=EPOCH)
    for index in (False, True):
        await store.commit([WriteBatch().put(record)])
        await labels("a", "b")
        if index:
            await written_later.index_pending()
        changed = Specimen(id=record.id, labels=("b", "c"), seen_at=None)
        await store.commit([WriteBatch().put(changed)])
        await labels("b", "c")
        await written_later.index_pending()
        await labels("b", "c")
        await store.commit([WriteBatch().delete(Specimen, record.id)])
        await labels()


async def test_a_failed_run_is_retried(opener, plain, caplog):
    store = await opener(busy_timeout=0.01)
    await store.commit([WriteBatch().put(episode(1))])
    connection = plain()
    connection.execute("BEGIN IMMEDIATE")
    written_later = store._shared.pending
    await written_later.index_pending()
    assert "index entries stay pending" in caplog.text
    connection.execute("ROLLBACK")
    await written_later.index_pending()
    assert pending_of(connection) == 0


async def test_a_run_writes_only_to_kinds_with_pending_records(store):
    driver, written_later = store._shared.driver, store._shared.pending
    await store.commit([WriteBatch().put(episode(1), Specimen(labels=("a",), seen_at=EPOCH))])
    for expected in (2, 0):
        before = driver.stats()["writes"]
        await written_later.index_pending()
        assert driver.stats()["writes"] - before == expected
    assert await store.count(Query(Specimen).where(labels="a")) == 1
    assert written_later.stats()["indexed_later"] == 2


async def test_two_processes_do_not_disturb_each_other(store, opener):
    other = await opener()
    for number in range(20):
        await (store if number % 2 else other).commit([WriteBatch().put(episode(number))])
        await (other if number % 3 else store)._shared.pending.index_pending()
    assert await store.count(Query(Episode)) == 20
    assert len(await other.query(Query(Episode))) == 20
    assert isinstance(other, TursoStorage)


@pytest.mark.parametrize("moved_back", [True, False])
async def test_a_record_whose_start_time_changed_is_found_by_tag_at_its_new_place_only(
    store, plain, moved_back
):
    """Its entry is ordered by that time, so the old one is another row of the index."""
    records = [episode(number, tags=("t",)) for number in range(200)]
    await store.commit([WriteBatch().put(*records)])
    moved = evolve(records[100], start_time=records[0 if moved_back else -1].start_time)
    await store.commit([WriteBatch().put(moved)])
    await store._shared.pending.index_pending()
    assert entries(plain()) == 200
    found = await store.query(Query(Episode).where(tags="t").limit(1_000))
    assert len(found.records) == len({record.id for record in found.records}) == 200
    assert moved in found.records
