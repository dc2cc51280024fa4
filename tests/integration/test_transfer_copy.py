import asyncio
from collections import Counter
from uuid import UUID

import pytest

from memory_core import (
    Delete,
    Episode,
    OutcomeUnknownError,
    ReferenceRestrictedError,
    Relationship,
    StorageError,
    StorageFullError,
    StorageUnavailableError,
    WriteBatch,
)
from memory_core.transfer import (
    DifferenceKind,
    copy_records,
    list_namespaces,
    scan,
    verify_records,
)
from tests.integration.transfer_stores import (
    TYPES,
    Note,
    contents,
    episode,
    filled,
    memory_store,
    numbered,
    put,
)


async def test_everything_is_copied_and_equal():
    source, target = await filled(memory_store()), memory_store()
    report = await copy_records(source, target, TYPES)
    assert report.settled
    assert report.refused_count == 0
    assert report.copied == Counter(kind for kind, _ in await contents(source))
    assert await contents(target) == await contents(source)
    verified = await verify_records(source, target, TYPES)
    assert verified.ok
    assert verified.equal == report.copied


async def test_a_second_copy_writes_nothing():
    source, target = await filled(memory_store()), memory_store()
    first = await copy_records(source, target, TYPES)
    position = target.position()
    second = await copy_records(source, target, TYPES)
    assert second.copied == {}
    assert second.unchanged == first.copied
    assert target.position() == position


class Failing:
    """A store whose commits fail after some have succeeded."""

    def __init__(self, storage, commits, error):
        self._storage = storage
        self._left = [commits]
        self._error = error

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def scoped(self, namespace):
        scoped = type(self)(self._storage.scoped(namespace), 0, self._error)
        scoped._left = self._left
        return scoped

    async def commit(self, batches):
        self._left[0] -= 1
        if self._left[0] < 0:
            raise self._error
        return await self._storage.commit(batches)


class FailingByBatch(Failing):
    """A store that returns its failure as the result of each batch."""

    async def commit(self, batches):
        try:
            return await super().commit(batches)
        except StorageError as error:
            return [error] * len(batches)


@pytest.mark.parametrize("commits", [0, 1, 3, 5, 20])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Failing, StorageFullError("no room")),
        (Failing, asyncio.CancelledError()),
        (FailingByBatch, StorageFullError("no room")),
        (FailingByBatch, StorageUnavailableError("no server")),
        (FailingByBatch, OutcomeUnknownError("no answer")),
    ],
)
async def test_a_copy_that_was_stopped_goes_on(commits, kind, error):
    source, target = await filled(memory_store()), memory_store()
    with pytest.raises(type(error)):
        await copy_records(source, kind(target, commits, error), TYPES)
    there = len(await contents(target))
    report = await copy_records(source, target, TYPES)
    assert await contents(target) == await contents(source)
    assert sum(report.unchanged.values()) == there
    assert sum(report.copied.values()) == len(await contents(source)) - there


async def test_all_namespaces():
    source, target = await filled(memory_store()), memory_store("unused")
    await put(source.scoped("agent-7"), episode(1, task_description="another"))
    names = await list_namespaces(source)
    assert names == ["agent-7", "default"]
    await copy_records(source, target, TYPES, namespaces=names)
    assert (await verify_records(source, target, TYPES, namespaces=names)).ok
    assert await list_namespaces(target) == names


async def test_other_records_of_the_target_stay():
    source, target = memory_store(), memory_store()
    await put(source, episode(1))
    await put(target, episode(1, task_description="older"), episode(2))
    await copy_records(source, target, TYPES)
    assert (await contents(target)).keys() == {("episode", numbered(1)), ("episode", numbered(2))}
    assert (await contents(target))["episode", numbered(1)] == episode(1)


async def test_writes_to_the_source_while_it_is_copied_arrive():
    source, target = await filled(memory_store()), memory_store()

    class Busy:
        def __init__(self, storage):
            self._storage = storage

        def __getattr__(self, name):
            return getattr(self._storage, name)

        def scoped(self, namespace):
            return Busy(self._storage.scoped(namespace))

        async def query(self, query):
            page = await self._storage.query(query)
            if query.kind == "relationship" and page.next_cursor is None:
                await write()
            return page

    async def write():
        notes = [
            Note(id=numbered(70_001), slug="new", parent_id=numbered(60_005)),
            Note(id=numbered(60_059), slug="moved", parent_id=numbered(70_001)),
        ]
        edge = Relationship(
            from_episode_id=numbered(600), to_episode_id=numbered(1), relationship_type="blocks"
        )
        await put(source, episode(600), edge, *notes)
        await source.commit(
            [WriteBatch().delete(Note, numbered(60_020)).delete(Episode, numbered(7))]
        )

    report = await copy_records(Busy(source), target, TYPES)
    assert report.settled
    assert report.refused_count == 0
    assert (await verify_records(source, target, TYPES)).ok
    assert await contents(target) == await contents(source)


async def test_a_chain_in_the_wrong_order_takes_a_few_passes_only():
    source, target = memory_store(), memory_store()
    # The deeper in the chain, the smaller the id: none can be put before all that follow.
    notes = [
        Note(id=UUID(int=10_000 - depth), parent_id=UUID(int=10_001 - depth) if depth else None)
        for depth in range(3_000)
    ]
    await put(source, *notes)

    class Counting(Failing):
        async def commit(self, batches):
            self._left[0] += len(batches)
            return await self._storage.commit(batches)

    counting = Counting(target, 0, None)
    report = await copy_records(source, counting, TYPES)
    assert report.copied == {"note": 3_000}
    assert await contents(target) == await contents(source)
    assert counting._left[0] < 4 * 3_000


async def test_records_that_the_target_rejects_are_reported():
    source, target = memory_store(), memory_store()
    await put(source, episode(1), episode(2))
    edge = Relationship(
        from_episode_id=numbered(1), to_episode_id=numbered(2), relationship_type="blocks"
    )
    back = Relationship(
        from_episode_id=numbered(2), to_episode_id=numbered(1), relationship_type="blocks"
    )
    await put(source, edge)
    await put(target, episode(1), episode(2), back)
    report = await copy_records(source, target, TYPES)
    assert report.refused_count == 1
    assert report.refused[0].id == edge.id
    assert "cycle" in str(report.refused[0].error)


# Verify


async def test_differences_are_found_both_ways_with_the_fields():
    one, other = await filled(memory_store()), await filled(memory_store())
    await put(one, episode(100))
    await put(other, episode(200))
    await put(other, episode(3, task_description="changed", tags=("new",)))
    report = await verify_records(one, other, TYPES)
    assert not report.ok
    assert report.counts == {
        DifferenceKind.MISSING: 1,
        DifferenceKind.ADDITIONAL: 1,
        DifferenceKind.UNEQUAL: 1,
    }
    found = {item.what: item for item in report.differences}
    assert found[DifferenceKind.MISSING].id == numbered(100)
    assert found[DifferenceKind.ADDITIONAL].id == numbered(200)
    assert found[DifferenceKind.UNEQUAL].id == numbered(3)
    assert found[DifferenceKind.UNEQUAL].fields == ("task_description", "tags")


@pytest.mark.parametrize(("left", "right"), [(1, 1.0), (1, True), (0.0, -0.0), ([], {})])
async def test_values_that_python_takes_for_equal_are_told_apart(left, right):
    one, other = memory_store(), memory_store()
    edge = {"from_episode_id": numbered(1), "to_episode_id": numbered(2), "id": numbered(3)}
    for storage, value in ((one, left), (other, right)):
        await put(storage, episode(1), episode(2))
        fields = {"relationship_type": "follows", "custom_fields": {"value": value}}
        await put(storage, Relationship(created_at=episode(1).start_time, **edge, **fields))
    report = await verify_records(one, other, TYPES)
    assert [item.fields for item in report.differences] == [("custom_fields",)]


async def test_the_order_of_keys_does_not_matter():
    one, other = memory_store(), memory_store()
    await put(one, episode(1, metadata={"a": "1", "b": "2"}))
    await put(other, episode(1, metadata={"b": "2", "a": "1"}))
    assert (await verify_records(one, other, TYPES)).ok


async def test_many_differences_are_counted_and_the_first_kept():
    one, other = memory_store(), memory_store()
    await put(one, *map(episode, range(500)))
    report = await verify_records(one, other, TYPES)
    assert report.counts == {DifferenceKind.MISSING: 500}
    assert len(report.differences) == 100


async def test_progress_of_copy_and_verify():
    source, target = await filled(memory_store()), memory_store()
    total = len(await contents(source))
    seen = []
    await copy_records(source, target, TYPES, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == total
    seen.clear()
    await verify_records(source, target, TYPES, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total == total


class RejectingDeletes(Failing):
    """Rejects the first deletes, as if a referrer were still there."""

    async def commit(self, batches):
        results = []
        for batch in batches:
            deletes = [item for item in batch.operations if isinstance(item, Delete)]
            if deletes and self._left[0] > 0:
                self._left[0] -= 1
                one = deletes[0]
                results.append(ReferenceRestrictedError(one.kind, one.id, "step", "run_id"))
            else:
                results += await self._storage.commit([batch])
        return results


class Deleting:
    """A source from which an episode is deleted while it is copied."""

    def __init__(self, storage, record):
        self._storage = storage
        self._record = record

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def scoped(self, namespace):
        return Deleting(self._storage.scoped(namespace), self._record)

    async def query(self, query):
        page = await self._storage.query(query)
        if query.kind == "relationship":
            await self._storage.commit([WriteBatch().delete(type(self._record), self._record.id)])
        return page


async def test_a_delete_that_the_target_rejects_at_first_is_retried_at_the_end():
    source, target = memory_store(), memory_store()
    await put(source, episode(1), episode(2))
    rejecting = RejectingDeletes(target, 2, None)
    report = await copy_records(Deleting(source, episode(1)), rejecting, TYPES)
    assert rejecting._left == [0]
    assert (report.deletes, report.refused_count, report.settled) == (1, 0, True)
    assert (await contents(target)).keys() == {("episode", numbered(2))}


class OneByOne(Failing):
    """Has room for one record, but not for the log of a large batch."""

    async def commit(self, batches):
        results = []
        for batch in batches:
            if len(batch.operations) > 1:
                results.append(StorageFullError("no room for the log"))
            else:
                results += await self._storage.commit([batch])
        return results


async def test_where_a_batch_finds_no_room_its_records_are_written_one_by_one():
    source, target = await filled(memory_store()), memory_store()
    report = await copy_records(source, OneByOne(target, 0, None), TYPES)
    assert report.refused_count == 0
    assert await contents(target) == await contents(source)


class Restless:
    """A store in one of whose namespaces something is written whenever its changes are read."""

    def __init__(self, storage, busy):
        self._storage, self._busy = storage, busy

    def __getattr__(self, name):
        return getattr(self._storage, name)

    def scoped(self, namespace):
        return type(self)(self._storage.scoped(namespace), self._busy)

    async def changes(self, since, limit=1_000):
        if self._storage.namespace == self._busy:
            await put(self._storage, episode(500))
        return await self._storage.changes(since, limit)


@pytest.mark.parametrize("names", [["busy", "quiet"], ["quiet", "busy"]])
async def test_a_copy_is_settled_only_if_each_of_its_namespaces_is(monkeypatch, names):
    monkeypatch.setattr(scan, "_MOST_ROUNDS", 5)
    source = memory_store()
    for name in names:
        await put(source.scoped(name), episode(1))
    report = await copy_records(Restless(source, "busy"), memory_store(), TYPES, namespaces=names)
    assert report.settled is False
    report = await copy_records(source, memory_store(), TYPES, namespaces=names)
    assert report.settled is True
