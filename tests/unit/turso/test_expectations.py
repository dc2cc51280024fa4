"""Expectations on a local file: decoded and compared in the transaction, on the writer's thread."""

from __future__ import annotations

from typing import ClassVar

import aiosqlite
import pytest
from attrs import evolve, frozen

from memory_core.errors import (
    CodecError,
    ConflictError,
    ReferenceRestrictedError,
    StorageError,
)
from memory_core.records import Episode, ExecutionStep, Record, RecordTypes, Run, Step
from memory_core.storage import Receipt, StorageContext, WriteBatch
from memory_core.testing.data.samples import episode, large_episode
from memory_storage_turso import TursoStorage


async def test_a_dictionary_that_another_process_has_trained(opener, store):
    other = await opener()
    for start in range(0, 400, 50):
        batch = WriteBatch().put(*map(large_episode, range(start, start + 50)))
        assert isinstance((await store.commit([batch]))[0], Receipt)
    assert (await store.stats()).sections["compression"]["with_dictionary"] > 0
    assert (await other.stats()).sections["compression"]["dictionaries"] == 0
    newest = large_episode(399)
    [error] = await other.commit([WriteBatch().expect(evolve(newest, tags=("x",)))])
    assert isinstance(error, ConflictError)
    assert error.stored == newest
    assert (await other.stats()).sections["compression"]["dictionaries"] == 1
    [receipt] = await other.commit([WriteBatch().expect(newest).put(episode(500))])
    assert isinstance(receipt, Receipt)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another batch"])
async def test_a_damaged_record_is_no_conflict(store, plain, *, beside):
    await store.commit([WriteBatch().put(episode(1))])
    plain().execute("UPDATE episode SET body = x'0102' WHERE id = ?", (episode(1).id.bytes,))
    batches = [WriteBatch().expect(episode(1)).put(episode(2))]
    if beside:
        batches.append(WriteBatch().put(episode(3)))
    error, *others = await store.commit(batches)
    assert isinstance(error, CodecError)
    assert error.record_id == episode(1).id
    assert all(isinstance(other, Receipt) for other in others)
    assert await store.get(Episode, [episode(2).id, episode(3).id]) == [
        None,
        episode(3) if beside else None,
    ]


async def test_receipts_beside_expectations_have_their_own_positions(store):
    results = await store.commit(
        [
            WriteBatch().put(episode(1), episode(2)),
            WriteBatch().expect(episode(1), episode(2)).put(episode(3)),
            WriteBatch().expect(episode(3)),
        ]
    )
    assert [result.position for result in results] == [2, 3, 3]


async def test_pending_entries_are_of_puts_only(store):
    await store.commit([WriteBatch().put(episode(1))])
    await store.commit([WriteBatch().expect(episode(1)).expect_absent(Episode, episode(2).id)])
    assert (await store.stats()).sections["indexing"]["waiting"] == 1


async def test_an_expectation_deletes_nothing_when_a_reason_is_looked_up(store):
    """What holds back a delete is searched in the batch's own operations, too."""
    run = Run(episode_id=episode(1).id)
    held = Step(episode_id=episode(2).id, step=ExecutionStep(number=1, tool="x"), run_id=run.id)
    await store.commit([WriteBatch().put(episode(1), episode(2))])
    batch = WriteBatch().put(run, held).expect(held).delete(Episode, episode(1).id)
    [error] = await store.commit([batch])
    assert isinstance(error, ReferenceRestrictedError)
    assert (error.kind, error.record_id) == ("run", run.id)


@frozen(kw_only=True, eq=False)
class Touchy(Record):
    """A record whose comparison fails."""

    kind: ClassVar[str] = "touchy"
    name: str

    def __eq__(self, other: object) -> bool:
        if other is None:
            return False
        raise ZeroDivisionError("not to be compared")

    __hash__ = None


async def test_a_comparison_that_fails_rejects_its_own_batch_only(tmp_path):
    context = StorageContext(record_types=RecordTypes([Episode, Touchy]))
    store = await TursoStorage.open(str(tmp_path / "touchy.db"), context=context)
    touchy = Touchy(name="a")
    await store.commit([WriteBatch().put(touchy)])
    error, beside = await store.commit([WriteBatch().expect(touchy), WriteBatch().put(episode(1))])
    assert isinstance(error, StorageError)
    assert "could not be compared" in str(error)
    assert isinstance(beside, Receipt)
    await store.aclose()


async def test_a_connection_of_the_caller(tmp_path):
    async with aiosqlite.connect(tmp_path / "own.db") as connection:
        store = await TursoStorage.wrap(connection)
        await store.commit([WriteBatch().put(episode(1))])
        changed = episode(1, tags=("changed",))
        stood, refused, beside = await store.commit(
            [
                WriteBatch().expect(episode(1)).put(changed),
                WriteBatch().expect(episode(1)).put(episode(2)),
                WriteBatch().expect_absent(Episode, episode(2).id).put(episode(3)),
            ]
        )
        assert isinstance(stood, Receipt)
        assert isinstance(refused, ConflictError)
        assert refused.stored == changed
        assert isinstance(beside, Receipt)
        await store.aclose()
