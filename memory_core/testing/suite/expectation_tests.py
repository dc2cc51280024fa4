"""Expectations: checked in the write's own transaction, in order, and compared as decoded records are."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from attrs import evolve

from memory_core.errors import ConfigurationError, ConflictError, ReferenceNotFoundError
from memory_core.memory import Memory
from memory_core.query import Query
from memory_core.records import Episode, Relationship, new_id
from memory_core.storage import Receipt, Storage, WriteBatch
from memory_core.testing.data.kinds import Folder, Specimen, one_more
from memory_core.testing.data.samples import (
    edge,
    episode,
    every_kind,
    full_episode,
    large_episode,
    sample_id,
)
from memory_core.testing.suite.harness import (
    Harness,
    Opener,
    accepted,
    drain,
    follow,
    put,
    refused,
    remove,
    stored,
)

__all__ = ["ExpectationTests"]

_COUNTERS = 30


class ExpectationTests(Harness):
    """``WriteBatch.expect`` and ``expect_absent``."""

    async def test_what_is_as_expected_lets_the_batch_through(self, store: Storage) -> None:
        await put(store, episode(1))
        after = episode(1, tags=("after",))
        batch = WriteBatch().expect(episode(1)).expect_absent(Episode, sample_id("episode", 2))
        receipt = await accepted(store, batch.put(after))
        assert receipt.ids == (after.id,)
        assert await stored(store, after)

    async def test_a_changed_record_rejects_the_batch_and_comes_with_the_error(
        self, store: Storage
    ) -> None:
        changed = episode(1, tags=("changed",))
        await put(store, changed)
        batch = WriteBatch().put(episode(2)).expect(episode(1)).put(episode(1, tags=("mine",)))
        error = await refused(store, batch, ConflictError)
        assert (error.kind, error.record_id) == ("episode", changed.id)
        assert error.stored == changed
        assert await stored(store, changed)
        assert await store.get(Episode, [sample_id("episode", 2)]) == [None]

    async def test_a_missing_record_is_a_conflict_without_a_record(self, store: Storage) -> None:
        error = await refused(store, WriteBatch().expect(episode(1)), ConflictError)
        assert error.stored is None
        assert error.record_id == episode(1).id

    async def test_a_record_that_should_be_absent_comes_with_the_error(
        self, store: Storage
    ) -> None:
        await put(store, episode(1))
        batch = WriteBatch().expect_absent(Episode, sample_id("episode", 1)).put(episode(2))
        error = await refused(store, batch, ConflictError)
        assert error.stored == episode(1)
        assert await store.get(Episode, [sample_id("episode", 2)]) == [None]

    async def test_of_many_records_that_should_be_absent_the_first_that_exists_is_named(
        self, store: Storage
    ) -> None:
        await put(store, episode(37), episode(21), edge(1, 21, 37))
        absent = [sample_id("episode", number) for number in range(1, 21)]
        among = [*absent, *(sample_id("episode", number) for number in (38, 37, 39, 21, 40))]
        batch = WriteBatch().expect_absent(Episode, *among).put(episode(2))
        error = await refused(store, batch, ConflictError)
        assert error.stored == episode(37)
        assert error.record_id == episode(37).id
        twice = (
            WriteBatch().expect_absent(Episode, *absent, *absent).put(*map(episode, range(1, 21)))
        )
        late = twice.expect_absent(Relationship, edge(2, 21, 37).id, edge(1, 21, 37).id)
        assert (await refused(store, late, ConflictError)).stored == edge(1, 21, 37)
        assert await store.get(Episode, absent) == [None] * len(absent)
        await accepted(store, twice)

    async def test_a_deleted_record_is_absent(self, store: Storage) -> None:
        await put(store, episode(1))
        await remove(store, Episode, sample_id("episode", 1))
        await refused(store, WriteBatch().expect(episode(1)), ConflictError)
        await accepted(
            store, WriteBatch().expect_absent(Episode, sample_id("episode", 1)).put(episode(1))
        )

    async def test_expectations_see_what_comes_before_them_in_the_batch(
        self, store: Storage
    ) -> None:
        first, second = episode(1), episode(1, tags=("second",))
        await put(store, first, episode(2), edge(1, 1, 2))
        batch = (
            WriteBatch()
            .expect(first)
            .put(second)
            .expect(second)
            .delete(Episode, first.id)
            .expect_absent(Episode, first.id)
            .expect_absent(Relationship, edge(1, 1, 2).id)
            .put(first)
            .expect(first)
        )
        await accepted(store, batch)
        late = WriteBatch().put(second).expect(first)
        error = await refused(store, late, ConflictError)
        assert error.stored == second
        assert await stored(store, first)

    async def test_each_kind_and_size_of_record_is_recognised(self, store: Storage) -> None:
        records = [*every_kind(), full_episode(70), large_episode(71, 200_000)]
        await put(store, *records)
        batch = WriteBatch()
        for record in records:
            batch = batch.expect(record)
        await accepted(store, batch)

    async def test_a_reopened_store_still_knows_what_it_holds(self, opener: Opener) -> None:
        store = await opener()
        await put(store, full_episode(1))
        [read] = await store.get(Episode, [full_episode(1).id])
        assert read is not None
        await accepted(store, WriteBatch().expect(read).put(evolve(read, tags=("mine",))))

    async def test_a_record_written_otherwise_compressed_is_still_the_same(
        self, store: Storage
    ) -> None:
        """Dictionaries are trained while a store is used: bytes change, records do not."""
        before = large_episode(1)
        await put(store, before)
        for start in range(10, 410, 50):
            await put(store, *(large_episode(number) for number in range(start, start + 50)))
        await accepted(store, WriteBatch().expect(before, large_episode(11)))

    async def test_a_reference_that_was_set_to_null_is_part_of_what_is_stored(
        self, store: Storage
    ) -> None:
        emblem = Specimen(id=sample_id("specimen", 1))
        folder = Folder(id=sample_id("folder", 1), name="a", emblem_id=emblem.id)
        await put(store, emblem, folder)
        await remove(store, Specimen, emblem.id)
        error = await refused(store, WriteBatch().expect(folder), ConflictError)
        freed = evolve(folder, emblem_id=None)
        assert error.stored == freed
        await accepted(store, WriteBatch().expect(freed))

    async def test_other_rules_hold_beside_expectations(self, store: Storage) -> None:
        await put(store, episode(1))
        batch = WriteBatch().expect(episode(1)).put(edge(1, 1, 99))
        await refused(store, batch, ReferenceNotFoundError)
        await accepted(store, WriteBatch().expect(episode(1)))

    async def test_an_expectation_alone_changes_nothing(self, store: Storage) -> None:
        start = (await put(store, episode(1))).position
        receipt = await accepted(store, WriteBatch().expect(episode(1)))
        assert receipt.ids == ()
        assert receipt.position == start
        assert await follow(store, start) == ([], start)

    async def test_a_kind_that_the_store_does_not_know_is_refused(self, store: Storage) -> None:
        await refused(store, WriteBatch().expect_absent("stranger", new_id()), ConfigurationError)

    async def test_conflicts_reject_their_own_batch_only(self, store: Storage) -> None:
        await put(store, episode(1))
        batches = [
            WriteBatch().put(episode(10)),
            WriteBatch().expect(episode(1, tags=("other",))).put(episode(11)),
            WriteBatch().expect(episode(10)).put(episode(12)),
        ]
        first, second, third = await store.commit(batches)
        assert isinstance(first, Receipt)
        assert isinstance(second, ConflictError)
        assert isinstance(third, Receipt)
        ids = [sample_id("episode", number) for number in (10, 11, 12)]
        found = await store.get(Episode, ids)
        assert [record is not None for record in found] == [True, False, True]

    async def test_a_batch_expects_what_those_before_it_write(self, store: Storage) -> None:
        """In one commit, and in commits that begin one after the other."""
        versions = [episode(1, tags=(str(number),)) for number in range(9)]
        await put(store, versions[0])
        batches = [WriteBatch().expect(before).put(after) for before, after in pairwise(versions)]
        together = await store.commit(batches[:4])
        assert [type(result) for result in together] == [Receipt] * 4
        alone = await asyncio.gather(*(store.commit([batch]) for batch in batches[4:]))
        assert [type(result) for [result] in alone] == [Receipt] * 4
        assert await stored(store, versions[-1])

    async def test_namespaces_do_not_see_each_other(self, store: Storage) -> None:
        other = store.scoped("other")
        await put(other, episode(1))
        await refused(store, WriteBatch().expect(episode(1)), ConflictError)
        await accepted(store, WriteBatch().expect_absent(Episode, episode(1).id))
        await accepted(other, WriteBatch().expect(episode(1)))

    async def test_concurrent_updates_lose_none(self, store: Storage) -> None:
        """Each adds one, from what it has read or was told by a conflict: thirty make thirty."""
        start = Specimen(id=sample_id("specimen", 1), amount=0)
        await put(store, start)

        async def add_one() -> None:
            [seen] = await store.get(Specimen, [start.id])
            while True:
                assert seen is not None
                assert seen.amount is not None
                batch = WriteBatch().expect(seen).put(evolve(seen, amount=seen.amount + 1))
                [result] = await store.commit([batch])
                if isinstance(result, Receipt):
                    return
                assert isinstance(result, ConflictError), result
                seen = result.stored

        await asyncio.gather(*(add_one() for _ in range(_COUNTERS)))
        [last] = await store.get(Specimen, [start.id])
        assert last is not None
        assert last.amount == _COUNTERS
        assert await drain(store, Query(Specimen).where(amount=_COUNTERS)) == [last]

    async def test_concurrent_updates_of_a_memory_lose_none(self, store: Storage) -> None:
        start = Specimen(id=sample_id("specimen", 1), amount=0)
        await put(store, start)
        memories = [Memory(store) for _ in range(3)]
        await asyncio.gather(
            *(
                memories[number % 3].update(Specimen, start.id, one_more)
                for number in range(_COUNTERS)
            )
        )
        assert await stored(store, evolve(start, amount=_COUNTERS))
