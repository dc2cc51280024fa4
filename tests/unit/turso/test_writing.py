"""Transactions: a rejected batch leaves nothing, a cancelled call leaves no transaction open."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from memory_core.errors import (
    DuplicateError,
    MemoryCoreError,
    RecordTooLargeError,
    ReferenceNotFoundError,
    ReferenceRestrictedError,
    StorageError,
)
from memory_core.query import Query
from memory_core.records import Episode, ExecutionStep, Limits, Relationship, Step, new_id
from memory_core.storage import Delete, Receipt, WriteBatch
from memory_core.testing import kit_context
from memory_core.testing.data.kinds import Folder, Leaf, Specimen
from memory_core.testing.data.samples import edge, episode, large_episode
from memory_storage_turso import TursoStorage
from memory_storage_turso.engine.driver import StatementError
from memory_storage_turso.sql.statement import Statement


def driver_of(store: TursoStorage):
    return store._shared.driver


def in_transaction(store: TursoStorage) -> bool:
    return driver_of(store)._writer.in_transaction


async def test_one_statement_a_put_and_a_delete(store):
    await store.commit([WriteBatch().put(episode(0))])
    seen: list[list[Statement]] = []
    driver = driver_of(store)
    write = driver.write

    async def watched(batches, closing=(), relies=None):
        taken = [list(batch) for batch in batches]
        seen.extend(taken)
        return await write(taken, closing, relies)

    driver.write = watched
    batch = WriteBatch().put(episode(1), edge(1, 0, 1)).delete(Episode, episode(0).id)
    await store.commit([batch])
    [statements] = seen
    assert [statement.sql.split(" INTO ")[0].split(" WHERE ")[0] for statement in statements] == [
        "INSERT OR FAIL",
        "INSERT OR FAIL",
        'DELETE FROM "episode"',
    ]


async def test_a_put_is_whole_by_itself(store, plain):
    """Also outside a transaction: the row, its index entries and its change."""
    await store.commit([WriteBatch().put(Specimen())])
    record = Specimen(labels=("a", "b"), code="x")
    table = store._shared.tables["specimen"]
    [operation] = store._shared.codec.prepare(WriteBatch().put(record))
    connection = plain()
    statement = table.put(1, operation, indexed=True)
    connection.execute(statement.sql, statement.args)
    assert await store.get(Specimen, [record.id]) == [record]
    assert await store.count(Query(Specimen).where(labels="a")) == 1
    assert store.position() == 2
    # And one that breaks a rule leaves nothing.
    other = Specimen(labels=("a",), code="x")
    [operation] = store._shared.codec.prepare(WriteBatch().put(other))
    statement = table.put(1, operation, indexed=True)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement.sql, statement.args)
    assert await store.count(Query(Specimen).where(labels="a")) == 1
    assert store.position() == 2


@pytest.mark.parametrize("size", [1, 3, 200])
async def test_a_rejected_batch_leaves_its_neighbours(store, size):
    await store.commit([WriteBatch().put(episode(0))])

    def batch(number):
        return WriteBatch().put(*(episode(number * 1000 + n) for n in range(size)))

    missing = WriteBatch().put(*batch(2).operations[0:0], episode(7777), edge(1, 7777, 8888))
    results = await store.commit([batch(1), missing, batch(3)])
    assert [type(result) for result in results] == [Receipt, ReferenceNotFoundError, Receipt]
    assert await store.count(Query(Episode)) == 1 + 2 * size
    assert results[0].position == 1 + size
    assert results[2].position == 1 + 2 * size == store.position()
    assert not in_transaction(store)
    assert driver_of(store).stats()["rewrites"] == 1


async def test_nothing_is_replayed_where_nothing_fails(store):
    await store.commit([WriteBatch().put(episode(n)) for n in range(20)])
    assert driver_of(store).stats()["rewrites"] == 0


@pytest.mark.parametrize("at", [0, 150, 299])
async def test_a_record_that_cannot_be_encoded(opener, at):
    store = await opener(kit_context(limits=Limits(max_record_bytes=2_000)))
    records = [episode(n) for n in range(300)]
    records[at] = large_episode(9_999, 20_000)
    results = await store.commit(
        [
            WriteBatch().put(episode(1000)),
            WriteBatch().put(*records),
            WriteBatch().put(episode(1001)),
        ]
    )
    assert isinstance(results[1], RecordTooLargeError)
    assert [isinstance(result, Receipt) for result in results] == [True, False, True]
    assert await store.count(Query(Episode)) == 2
    [alone] = await store.commit([WriteBatch().put(*records)])
    assert isinstance(alone, RecordTooLargeError)
    assert not in_transaction(store)
    [again] = await store.commit([WriteBatch().put(*records[:at], *records[at + 1 :])])
    assert isinstance(again, Receipt)


@pytest.mark.parametrize(
    ("number", "steps", "here"),
    [(1, 0, True), (4, 200, True), (1, 201, False), (5, 0, False), (60, 0, False)],
)
async def test_few_records_are_encoded_before_the_writer_has_them(
    store, monkeypatch, number, steps, here
):
    await store.commit([WriteBatch().put(episode(0))])  # the namespace has its number
    codec, threads = store._shared.thread.codec, list[int]()
    serialize = codec.serialize

    def watched(record):
        threads.append(threading.get_ident())
        return serialize(record)

    monkeypatch.setattr(codec, "serialize", watched)
    logged = [ExecutionStep(number=each + 1, tool="t") for each in range(steps)]
    # Put at the same time, they form one group.
    puts = (store.commit([WriteBatch().put(episode(each, steps=logged))]) for each in range(number))
    await asyncio.gather(*puts)
    assert len(threads) == number
    assert (threading.get_ident() in threads) is here


async def test_errors_name_what_was_refused(store):
    a, b, c = episode(1), episode(2), episode(3)
    await store.commit([WriteBatch().put(a, b, c, edge(1, 1, 2))])
    twin = edge(2, 1, 2)
    [duplicate] = await store.commit([WriteBatch().put(c, twin)])
    assert isinstance(duplicate, DuplicateError)
    assert duplicate.fields == ("from_episode_id", "to_episode_id", "relationship_type")
    assert isinstance(duplicate.__cause__, StatementError)
    stray = Leaf(folder_id=episode(9).id)
    [missing] = await store.commit([WriteBatch().put(stray)])
    assert isinstance(missing, ReferenceNotFoundError)
    assert (missing.kind, missing.field, missing.target_kind) == ("leaf", "folder_id", "folder")
    assert missing.target_id == episode(9).id


async def test_the_record_that_is_held_is_named(store):
    """Also where the delete reaches it by other records."""
    keeper = Specimen()
    root, inner = Folder(name="root"), Folder(name="inner")
    chain = [root]
    for number in range(5):
        chain.append(Folder(name=f"{number}", parent_id=chain[-1].id))
    held = Folder(name="keeps", keeper_id=keeper.id)
    await store.commit([WriteBatch().put(keeper, *chain, inner, held)])
    [refused] = await store.commit([WriteBatch().delete(Specimen, keeper.id)])
    assert isinstance(refused, ReferenceRestrictedError)
    assert (refused.kind, refused.record_id) == ("specimen", keeper.id)
    [receipt] = await store.commit([WriteBatch().delete(Folder, root.id)])
    assert isinstance(receipt, Receipt)
    assert await store.count(Query(Folder)) == 2
    # Each of the chain is in the feed.
    page = await store.changes(receipt.position - len(chain))
    assert {change.id for change in page.changes} == {folder.id for folder in chain}


async def test_steps_cascade(store):
    whole = large_episode(1, 2_000)
    steps = [Step(episode_id=whole.id, step=step) for step in whole.steps]
    await store.commit([WriteBatch().put(whole, *steps)])
    await store.commit([WriteBatch().delete(Episode, whole.id)])
    assert await store.count(Query(Step)) == 0


async def test_a_cancelled_commit_is_finished_or_never_begun(store):
    driver = driver_of(store)
    entered, release = threading.Event(), threading.Event()

    def hold():
        entered.set()
        release.wait()

    await store.commit([WriteBatch().put(episode(0))])
    holding = asyncio.create_task(driver._writer.run(hold))
    await asyncio.sleep(0)
    entered.wait()
    commit = asyncio.create_task(store.commit([WriteBatch().put(episode(1))]))
    waiting = asyncio.create_task(store.commit([WriteBatch().put(episode(2))]))
    while not driver._writer.waiting:
        await asyncio.sleep(0)
    later = asyncio.create_task(store.commit([WriteBatch().put(episode(3))]))
    await asyncio.sleep(0)
    for task in (commit, waiting, later):
        task.cancel()
    results = await asyncio.gather(commit, waiting, later, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
    release.set()
    await holding
    [receipt] = await store.commit([WriteBatch().put(episode(4))])
    found = await store.get(Episode, [episode(n).id for n in range(5)])
    # What was with the writer is there, what was not is not, and nothing is open.
    assert [record is not None for record in found] == [True, True, True, False, True]
    assert receipt.position == 4
    assert not in_transaction(store)


async def test_a_cancelled_read_leaves_nothing_open(store):
    await store.commit([WriteBatch().put(*(episode(n) for n in range(50)))])
    for attempt in range(30):
        task = asyncio.create_task(store.query(Query(Episode)))
        for _ in range(attempt % 6):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        # A reader that was quick had answered already; before the first turn none has.
        assert task.cancelled() or (attempt % 6 and len(task.result()) == 50)
    assert len(await store.query(Query(Episode))) == 50
    for reader in driver_of(store)._readers:
        # Behind what was cancelled and is still under way.
        assert not await reader.run(lambda reader=reader: reader.session.connection.in_transaction)


async def test_a_job_that_fails_inside_leaves_nothing_open(store):
    """Any exception rolls back, also of code outside this package."""
    driver = driver_of(store)

    def batch():
        yield Statement("INSERT INTO _namespaces (name) VALUES ('half')")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await driver.write([batch()])
    assert not in_transaction(store)
    [result] = await driver.read(
        [Statement("SELECT count(*) FROM _namespaces WHERE name = 'half'")]
    )
    assert result.rows == [(0,)]


async def test_a_rejected_commit_is_rolled_back(store):
    """Only the COMMIT finds a broken deferred foreign key."""
    driver = driver_of(store)
    await driver.write(
        [
            [
                Statement("CREATE TABLE above (id INTEGER PRIMARY KEY)"),
                Statement(
                    "CREATE TABLE below (id INTEGER REFERENCES above DEFERRABLE INITIALLY DEFERRED)"
                ),
            ]
        ]
    )
    with pytest.raises(StatementError, match="FOREIGN KEY"):
        await driver.write([[Statement("INSERT INTO below VALUES (?)", (7,))]])
    assert not in_transaction(store)
    [result] = await driver.read([Statement("SELECT count(*) FROM below")])
    assert result.rows == [(0,)]


async def test_a_closing_statement_that_fails_takes_all_with_it(store):
    driver = driver_of(store)
    good = [Statement("INSERT INTO _namespaces (name) VALUES ('n')")]
    for batches in ([good], [good, good[:0]]):
        with pytest.raises(StatementError):
            await driver.write(batches, [Statement("SELECT nothing FROM nowhere")])
        assert not in_transaction(store)
    [result] = await driver.read([Statement("SELECT count(*) FROM _namespaces WHERE name = 'n'")])
    assert result.rows == [(0,)]


async def test_a_run_of_statements_names_the_one_that_failed(store):
    driver = driver_of(store)
    insert = "INSERT INTO _namespaces (name) VALUES (?)"
    names = ["a", "b", "c", "a", "d"]
    outcome = await driver.write([[Statement(insert, (name,)) for name in names]])
    [failed] = outcome.results
    assert isinstance(failed, StatementError)
    assert failed.index == 3
    mixed = [Statement(insert, ("x",)), Statement("SELECT 1"), Statement(insert, ("x",))]
    outcome = await driver.write([mixed, [Statement(insert, ("y",))]])
    assert isinstance(outcome.results[0], StatementError)
    assert outcome.results[0].index == 2
    assert isinstance(outcome.results[1], list)


async def test_a_failed_batch_still_runs_what_closes_the_group(store):
    driver = driver_of(store)
    outcome = await driver.write([[Statement("nonsense")]], [Statement("SELECT 41 + 1")])
    assert isinstance(outcome.results[0], StatementError)
    assert outcome.closing[0].rows == [(42,)]


async def test_the_feed_is_trimmed_and_never_goes_back(opener, plain):
    store = await opener(change_feed_limit=10)
    records = [episode(n) for n in range(30)]
    for record in records:
        await store.commit([WriteBatch().put(record)])
    [(kept,)] = plain().execute("SELECT count(*) FROM _changes").fetchall()
    assert kept <= 12
    assert (await store.changes(0)).trimmed
    assert not (await store.changes(20)).trimmed
    await store.commit([WriteBatch().delete(Episode, *(record.id for record in records))])
    assert store.position() == 60
    await store.wipe()
    await store.aclose()
    again = await opener(change_feed_limit=1)
    assert again.position() == 60
    for _ in range(3):
        await again.commit([WriteBatch().put(episode(1))])
    assert again.position() == 63
    assert (await again.changes(62)).changes[0].position == 63


async def test_wipe_deletes_records_that_refer_to_each_other(store):
    keeper = Specimen()
    folders = [Folder(name=f"{n}", keeper_id=keeper.id, emblem_id=keeper.id) for n in range(3)]
    other = store.scoped("other")
    await other.commit([WriteBatch().put(keeper, *folders)])
    await store.commit([WriteBatch().put(keeper, *folders, episode(1))])
    start = store.position()
    position = await store.wipe()
    assert [info.name for info in await store.namespaces()] == ["other"]
    page = await store.changes(start)
    assert {change.operation.value for change in page.changes} == {"delete"}
    assert len(page.changes) == 5
    assert page.position == position
    # The mark is gone with it: references hold again.
    [refused] = await other.commit([WriteBatch().delete(Specimen, keeper.id)])
    assert isinstance(refused, ReferenceRestrictedError)


@pytest.mark.parametrize("size", [1, 20])
async def test_an_unknown_error_of_a_record_is_typed(store, monkeypatch, size):
    def broken(self):
        raise RuntimeError("in the record's own code")

    monkeypatch.setattr(Specimen, "index_values", broken)
    [result] = await store.commit([WriteBatch().put(*(Specimen() for _ in range(size)))])
    assert isinstance(result, StorageError)
    assert "in the record's own code" in str(result)
    monkeypatch.undo()
    assert await store.count(Query(Specimen)) == 0
    assert issubclass(type(result), MemoryCoreError)


class _Panic(BaseException):
    """What pyo3 raises where code in Rust panics is no ``Exception``."""


@pytest.mark.parametrize("number", [17, 64, 200])
@pytest.mark.parametrize("together", [True, False])
async def test_a_panic_of_a_record_loses_no_other(store, monkeypatch, number, together):
    records = [Specimen(code=f"l{each}") for each in range(number)]
    values = Specimen.index_values

    def panicking(self):
        if self.id == records[-1].id:
            raise _Panic("in the record's own code")
        return values(self)

    monkeypatch.setattr(Specimen, "index_values", panicking)
    parts = [records] if together else [[each] for each in records]
    results = await store.commit([WriteBatch().put(*part) for part in parts])
    monkeypatch.undo()
    for part, result in zip(parts, results, strict=True):
        found = await store.get(Specimen, [each.id for each in part])
        assert found == (part if isinstance(result, Receipt) else [None] * len(part))
    assert isinstance(results[-1], StorageError)
    assert "in the record's own code" in str(results[-1])


@pytest.mark.parametrize("others", [0, 3])
async def test_a_refused_record_waits_for_nobody_and_is_encoded_once(opener, plain, others):
    store = await opener(kit_context(limits=Limits(max_record_bytes=2_000)))
    await store.commit([WriteBatch().put(episode(0))])  # the namespace has its number
    await store._shared.pending.index_pending()
    bodies = store._shared.thread.codec.compressor.bodies
    bad = store.commit([WriteBatch().put(large_episode(1, 20_000))])
    if not others:
        holder = plain()
        holder.execute("BEGIN IMMEDIATE")
    good = [store.commit([WriteBatch().put(episode(each + 1))]) for each in range(others)]
    [refused], *written = await asyncio.gather(bad, *good)
    assert isinstance(refused, RecordTooLargeError)
    assert all(isinstance(result, Receipt) for [result] in written)
    assert store._shared.thread.codec.compressor.bodies == bodies + others
    assert (await store.stats()).sections["indexing"]["waiting"] == others


@pytest.mark.parametrize("others", [1, 3, 40])
async def test_an_operation_that_is_nonsense_fails_alone(store, others):
    good = [store.commit([WriteBatch().put(episode(each))]) for each in range(others)]
    nonsense = store.commit([WriteBatch((Delete([], new_id()),))])
    *written, [refused] = await asyncio.gather(*good, nonsense)
    assert isinstance(refused, StorageError)
    assert all(isinstance(result, Receipt) for [result] in written)


async def test_relationships_survive_a_put_of_their_ends(store):
    """A put that deleted the old row would delete them, too."""
    await store.commit([WriteBatch().put(episode(1), episode(2), edge(1, 1, 2))])
    for size in (1, 200):
        again = [episode(n, tags=("again",)) for n in range(size + 1)]
        await store.commit([WriteBatch().put(*again)])
    assert await store.count(Query(Relationship)) == 1
    assert await store.count(Query(Episode).where(tags="again")) == 201
