"""Tests of batches: all or nothing, in order, one result each."""

from __future__ import annotations

from attrs import evolve

from memory_core.errors import (
    ConfigurationError,
    DuplicateError,
    InvalidValueError,
    MemoryCoreError,
    RecordTooLargeError,
    ReferenceNotFoundError,
)
from memory_core.query import Query
from memory_core.records import Episode, Record, Relationship, new_id
from memory_core.storage import Receipt, Storage, WriteBatch
from memory_core.testing.data.kinds import Folder, Specimen
from memory_core.testing.data.samples import edge, episode, sample_id, specimens
from memory_core.testing.suite.harness import (
    Harness,
    accepted,
    drain,
    follow,
    put,
    rejected,
    stored,
)

__all__ = ["BatchTests"]


class BatchTests(Harness):
    """``commit``."""

    async def test_nothing_to_commit(self, store: Storage) -> None:
        assert await store.commit([]) == []
        before = await accepted(store, WriteBatch().put(episode(1)))
        empty = await accepted(store, WriteBatch())
        assert empty.ids == ()
        assert empty.position == before.position

    async def test_receipt_has_the_ids_in_order(self, store: Storage) -> None:
        gone, first, second = new_id(), episode(1), specimens(1)[0]
        batch = WriteBatch().put(second, first).delete(Episode, gone).put(first)
        receipt = await accepted(store, batch)
        assert receipt.ids == (second.id, first.id, gone, first.id)

    async def test_a_batch_is_all_or_nothing(self, store: Storage) -> None:
        await put(store, episode(1, tags=("before",)), episode(2), edge(1, 1, 2))
        batch = (
            WriteBatch()
            .put(episode(1, tags=("after",)), episode(3))
            .delete(Episode, sample_id("episode", 2))
            .put(edge(9, 1, 99))
        )
        await rejected(store, batch, ReferenceNotFoundError)
        assert await stored(store, episode(1, tags=("before",)), episode(2), edge(1, 1, 2))
        assert await store.get(Episode, [sample_id("episode", 3)]) == [None]
        assert await drain(store, Query(Episode).where(tags="after")) == []
        assert await drain(store, Query(Episode).where(tags="before")) == [
            episode(1, tags=("before",))
        ]

    async def test_a_rejected_batch_is_not_in_the_feed(self, store: Storage) -> None:
        start = (await put(store, episode(1))).position
        bad = WriteBatch().put(episode(2), edge(1, 1, 99))
        await rejected(store, bad, ReferenceNotFoundError)
        receipt = await put(store, episode(3))
        changes, _ = await follow(store, start)
        assert [change.id for change in changes] == [sample_id("episode", 3)]
        assert receipt.position > start

    async def test_each_batch_has_a_result_of_its_own(self, store: Storage) -> None:
        await put(
            store, episode(0), episode(1), Specimen(id=sample_id("specimen", 50), code="taken")
        )
        cases: list[tuple[WriteBatch, type[MemoryCoreError] | None]] = [
            (WriteBatch().put(episode(10)), None),
            (WriteBatch().put(episode(11), edge(1, 11, 99)), ReferenceNotFoundError),
            (WriteBatch().put(episode(12), Specimen(code="taken")), DuplicateError),
            (WriteBatch().put(episode(13)).delete("stranger", new_id()), ConfigurationError),
            (WriteBatch().put(episode(14), Specimen(name="\0")), InvalidValueError),
            (WriteBatch().put(episode(15), Specimen(name="x" * 401)), RecordTooLargeError),
            (WriteBatch(), None),
            (WriteBatch().put(edge(2, 10, 1)), None),
        ]
        results = await store.commit([batch for batch, _ in cases])
        assert [type(result) for result in results] == [error or Receipt for _, error in cases]
        found = await store.get(Episode, [sample_id("episode", number) for number in range(10, 16)])
        assert found == [episode(10), None, None, None, None, None]
        assert await stored(store, edge(2, 10, 1))

    async def test_later_batches_see_earlier_ones(self, store: Storage) -> None:
        results = await store.commit(
            [
                WriteBatch().put(episode(1), episode(2)),
                WriteBatch().put(edge(1, 1, 2)),
                WriteBatch().put(edge(2, 2, 1)),
                WriteBatch().delete(Episode, sample_id("episode", 1)),
                WriteBatch().put(edge(3, 2, 1)),
            ]
        )
        kinds = ["Receipt", "Receipt", "CycleError", "Receipt", "ReferenceNotFoundError"]
        assert [type(result).__name__ for result in results] == kinds
        assert await store.count(Query(Relationship)) == 0
        assert await drain(store, Query(Episode)) == [episode(2)]

    async def test_operations_apply_in_order(self, store: Storage) -> None:
        record = specimens(1)[0]
        await accepted(store, WriteBatch().put(record).delete(Specimen, record.id))
        assert await store.get(Specimen, [record.id]) == [None]
        await accepted(store, WriteBatch().delete(Specimen, record.id).put(record))
        assert await stored(store, record)
        first, last = evolve(record, name="first"), evolve(record, name="last")
        await accepted(store, WriteBatch().put(first, last))
        assert await store.get(Specimen, [record.id]) == [last]
        assert await drain(store, Query(Specimen).where(name="first")) == []
        await accepted(
            store, WriteBatch().delete(Specimen, record.id).put(first).delete(Specimen, record.id)
        )
        assert await drain(store, Query(Specimen)) == []

    async def test_referred_to_before_referring(self, store: Storage) -> None:
        error = await rejected(
            store, WriteBatch().put(edge(1, 1, 2), episode(1), episode(2)), ReferenceNotFoundError
        )
        assert (error.kind, error.target_kind) == ("relationship", "episode")
        await accepted(store, WriteBatch().put(episode(1), episode(2), edge(1, 1, 2)))

    async def test_unique_values_can_move_within_a_batch(self, store: Storage) -> None:
        one, other = Specimen(id=new_id(), code="x"), Specimen(id=new_id(), code="x")
        await put(store, one)
        await rejected(store, WriteBatch().put(other).delete(Specimen, one.id), DuplicateError)
        await accepted(store, WriteBatch().delete(Specimen, one.id).put(other))
        await accepted(store, WriteBatch().put(evolve(other, code="y"), one))
        assert await stored(store, evolve(other, code="y"), one)

    async def test_a_delete_cascades_before_the_next_operation(self, store: Storage) -> None:
        await put(store, episode(1), episode(2), edge(1, 1, 2))
        again = edge(5, 1, 2)
        batch = WriteBatch().delete(Episode, sample_id("episode", 1)).put(episode(1), again)
        await accepted(store, batch)
        assert await drain(store, Query(Relationship)) == [again]

    async def test_positions_grow_with_every_change(self, store: Storage) -> None:
        results = await store.commit([WriteBatch().put(episode(number)) for number in range(5)])
        positions = [result.position for result in results if isinstance(result, Receipt)]
        assert len(positions) == 5
        assert positions == sorted(set(positions))
        last = await put(store, episode(1))
        assert last.position > positions[-1]

    async def test_a_large_batch(self, store: Storage) -> None:
        records: list[Record] = [*map(episode, range(1_500))]
        records += [edge(number, number, number + 1, "follows") for number in range(1_499)]
        receipt = await put(store, *records)
        assert len(receipt.ids) == len(records)
        assert await store.count(Query(Episode)) == 1_500
        assert await store.count(Query(Relationship)) == 1_499

    async def test_many_batches_in_one_commit(self, store: Storage) -> None:
        batches = [WriteBatch().put(*specimens(1, number)) for number in range(300)]
        batches[100] = WriteBatch().put(Folder(id=new_id(), parent_id=new_id()))
        results = await store.commit(batches)
        assert [isinstance(result, Receipt) for result in results].count(False) == 1
        assert isinstance(results[100], ReferenceNotFoundError)
        assert await store.count(Query(Specimen)) == 299
