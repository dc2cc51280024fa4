"""Tests of reading records together with their parts, whether or not a backend does that itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest
from attrs import evolve

from memory_core.records import Episode, ExecutionStep, Outcome, Step
from memory_core.storage import (
    Capability,
    Parts,
    Storage,
    WriteBatch,
    get_with_parts,
    with_parts_of,
)
from memory_core.testing.data.samples import episode, sample_id
from memory_core.testing.suite.harness import Harness, accepted, needs, put

__all__ = ["PartsTests"]

RUNNING: Parts[Episode, Step] = Parts(Step, "episode_id", lambda each: not each.is_complete)


def running(number: int) -> Episode:
    """An episode that is wanted with its parts."""
    return evolve(episode(number), end_time=None, outcome=None)


def complete(number: int) -> Episode:
    """An episode that is not."""
    record = episode(number)
    return evolve(record, end_time=record.start_time, outcome=Outcome.success("done"))


def steps_of(record: Episode, count: int) -> list[Step]:
    """Parts of it."""
    return [
        Step(
            id=sample_id("step", 1_000 * count + number),
            episode_id=record.id,
            step=ExecutionStep(number=number, timestamp=record.start_time, tool=f"tool {number}"),
        )
        for number in range(1, count + 1)
    ]


async def numbers(store: Storage, ids: Sequence[UUID]) -> list[list[int] | None]:
    """The numbers of the parts of some episodes."""
    found = await get_with_parts(store, Episode, ids, RUNNING)
    return [each and sorted(part.step.number for part in each[1]) for each in found]


class PartsTests(Harness):
    """``get_with_parts``."""

    @needs(Capability.PARTS)
    async def test_a_backend_that_declares_parts_reads_them_itself(self, store: Storage) -> None:
        assert with_parts_of(store) is not None
        assert with_parts_of(store.scoped("other")) is not None

    async def test_records_come_with_their_parts(self, store: Storage) -> None:
        one, two, other = running(1), running(2), complete(3)
        parts = steps_of(one, 3)
        await put(store, one, two, other, *parts, *steps_of(other, 2))
        ids = [one.id, sample_id("episode", 99), other.id, two.id, one.id]
        found = await get_with_parts(store, Episode, ids, RUNNING)
        assert [each and each[0] for each in found] == [one, None, other, two, one]
        assert await numbers(store, ids) == [[1, 2, 3], None, [], [], [1, 2, 3]]
        assert found[0]
        assert sorted(found[0][1], key=lambda part: part.step.number) == parts
        assert await get_with_parts(store, Episode, [], RUNNING) == []

    async def test_parts_stay_in_their_namespace(self, store: Storage) -> None:
        other = store.scoped("other")
        await put(store, running(1), *steps_of(running(1), 2))
        assert await numbers(other, [running(1).id]) == [None]
        await put(other, running(1), *steps_of(running(1), 5))
        assert await numbers(other, [running(1).id]) == [[1, 2, 3, 4, 5]]
        assert await numbers(store, [running(1).id]) == [[1, 2]]

    async def test_parts_are_those_of_the_last_commit(self, store: Storage) -> None:
        record, parts = running(1), steps_of(running(1), 4)
        await put(store, record)
        for number, part in enumerate(parts, 1):
            await put(store, part)
            assert await numbers(store, [record.id]) == [list(range(1, number + 1))]
        await accepted(store, WriteBatch().delete(Step, parts[1].id))
        assert await numbers(store, [record.id]) == [[1, 3, 4]]
        await put(
            store, evolve(record, outcome=Outcome.success("done"), end_time=record.start_time)
        )
        assert await numbers(store, [record.id]) == [[]]
        await accepted(store, WriteBatch().delete(Episode, record.id))
        assert await numbers(store, [record.id]) == [None]

    async def test_equal_reads_that_wait_get_lists_of_their_own(self, store: Storage) -> None:
        record = running(1)
        await put(store, record, *steps_of(record, 300))
        reads = (get_with_parts(store, Episode, [record.id], RUNNING) for _ in range(8))
        first, second, *others = await asyncio.gather(*reads)
        first.clear()
        second.clear()
        assert [each and each[0] for [each] in others] == [record] * 6
        gets = (store.get(Episode, [record.id]) for _ in range(8))
        first, second, *others = await asyncio.gather(*gets)
        first.clear()
        second.clear()
        assert others == [[record]] * 6

    async def test_many_parts_and_many_records(self, store: Storage) -> None:
        record = running(1)
        await put(store, record, *steps_of(record, 300), *map(running, range(2, 80)))
        await put(store, *steps_of(running(50), 7))
        ids = [sample_id("episode", number) for number in range(1, 90)]
        found = await numbers(store, ids)
        assert found[0] == list(range(1, 301))
        assert found[49] == list(range(1, 8))
        assert [each for each in found if each] == [found[0], found[49]]
        assert found[79:] == [None] * 10
        assert await numbers(store, ids[:1]) == found[:1]

    async def test_reads_of_many_parts_see_every_commit_before_them(self, store: Storage) -> None:
        """Equal reads may share their work, but not with one that began before a commit."""
        record, parts = running(1), steps_of(running(1), 205)
        await put(store, record, *parts[:200])
        reads: list[asyncio.Task[list[list[int] | None]]] = []
        for number in range(200, 205):
            reads += [asyncio.create_task(numbers(store, [record.id])) for _ in range(2)]
            await asyncio.sleep(0)
            await put(store, parts[number])
            assert await numbers(store, [record.id]) == [list(range(1, number + 2))]
        for [found] in await asyncio.gather(*reads):
            assert found
            assert found == list(range(1, len(found) + 1))
            assert len(found) >= 200

    @needs(Capability.PARTS)
    @pytest.mark.parametrize("count", [5, 200])
    async def test_a_record_and_its_parts_are_from_one_moment(
        self, store: Storage, count: int
    ) -> None:
        """A writer completes the record in the batch that deletes its parts, and begins it again."""
        record, parts = running(1), steps_of(running(1), count)
        start = WriteBatch().put(record, *parts)
        end = WriteBatch().put(complete(1)).delete(Step, *(part.id for part in parts))
        await accepted(store, start)
        writing = True

        async def write() -> None:
            nonlocal writing
            for _ in range(10):
                await accepted(store, end)
                await accepted(store, start)
            writing = False

        writer = asyncio.create_task(write())
        while writing:
            [found] = await get_with_parts(store, Episode, [record.id], RUNNING)
            assert found
            assert len(found[1]) == (0 if found[0].is_complete else count)
            await asyncio.sleep(0)
        await writer
