"""What was written is cached only if the store still has it: others may have written later."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from attrs import evolve

from memory_core import (
    CacheConfig,
    CachedStorage,
    Episode,
    Query,
    Receipt,
    Record,
    Relationship,
    Storage,
    WriteBatch,
)
from memory_core.inmemory import InMemoryStorage
from memory_core.storage import CommitResult
from memory_core.testing.data.kinds import Folder, Specimen, kit_context
from tests.unit.cache.plain import DictCache, HeldStorage


def episode(text: str = "task", **fields: Any) -> Episode:
    return Episode(task_description=text, **fields)


def edge(source: Episode, target: Episode) -> Relationship:
    return Relationship(
        from_episode_id=source.id, to_episode_id=target.id, relationship_type="follows"
    )


class Setup:
    def __init__(self) -> None:
        context = kit_context()
        self.store = InMemoryStorage(context)
        self.held = HeldStorage(self.store)
        self.cached: Storage = CachedStorage(
            self.held, DictCache(), types=context.record_types, config=CacheConfig()
        )

    async def commit(self, *batches: WriteBatch) -> None:
        for result in await self.cached.commit(batches):
            assert isinstance(result, Receipt)

    async def fetched(self, *records: Record) -> int:
        """How many of these the store was asked for; each must be as the store has it."""
        before = self.held.gets
        found = [(await self.cached.get(type(item), [item.id]))[0] for item in records]
        asked = self.held.gets - before
        assert found == [(await self.store.get(type(item), [item.id]))[0] for item in records]
        return asked


async def test_what_the_same_batch_cascaded_to_is_not_kept() -> None:
    setup = Setup()
    first, second, third = episode(), episode(), episode()
    await setup.commit(WriteBatch().put(first, second, third))
    gone, stays = edge(first, second), edge(second, third)
    await setup.commit(WriteBatch().put(gone, stays).delete(Episode, first.id))
    assert await setup.fetched(gone) == 1
    assert await setup.fetched(stays, second) == 0
    assert await setup.cached.get(Relationship, [gone.id]) == [None]


async def test_what_was_put_again_after_the_cascade_is_kept() -> None:
    setup = Setup()
    first, second = episode(), episode()
    await setup.commit(WriteBatch().put(first, second))
    related = edge(first, second)
    batch = WriteBatch().put(related).delete(Episode, first.id).put(first, related)
    await setup.commit(batch)
    assert await setup.fetched(related, first) == 0


async def test_what_a_later_batch_of_the_same_commit_cascaded_to_is_not_kept() -> None:
    setup = Setup()
    first, second = episode(), episode()
    related = edge(first, second)
    await setup.commit(
        WriteBatch().put(first, second, related), WriteBatch().delete(Episode, first.id)
    )
    assert await setup.fetched(related, first) == 2
    assert await setup.fetched(second) == 0


async def test_what_the_same_batch_set_to_null_is_not_kept() -> None:
    setup = Setup()
    emblem = Specimen(name="lion")
    folder = Folder(name="coats", emblem_id=emblem.id)
    await setup.commit(WriteBatch().put(emblem))
    await setup.commit(WriteBatch().put(folder).delete(Specimen, emblem.id))
    await setup.fetched(folder)
    assert (await setup.cached.get(Folder, [folder.id]))[0] == evolve(folder, emblem_id=None)
    assert await setup.cached.count(Query(Folder).where(emblem_id=None)) == 1


async def test_the_last_put_of_a_batch_wins() -> None:
    setup = Setup()
    stored = episode("first")
    last = evolve(stored, task_description="last")
    await setup.commit(WriteBatch().put(stored, last))
    assert await setup.fetched(stored) == 0
    assert await setup.cached.get(Episode, [stored.id]) == [last]


async def test_an_answer_does_not_count_what_the_same_batch_cascaded_to() -> None:
    setup = Setup()
    first, second = episode(), episode()
    await setup.commit(WriteBatch().put(first, second))
    query = Query(Relationship).where(to_episode_id=second.id)
    assert len(await setup.cached.query(query)) == 0
    await setup.commit(WriteBatch().put(edge(first, second)).delete(Episode, first.id))
    assert len(await setup.cached.query(query)) == 0
    assert await setup.cached.count(query) == 0


async def test_of_callers_that_write_one_record_at_a_time_the_last_one_wins() -> None:
    setup = Setup()
    stored = episode()
    acknowledged: set[str] = set()

    async def write(number: int) -> None:
        for turn in range(5):
            text = f"{number} {turn}"
            older = {*acknowledged}
            await setup.commit(WriteBatch().put(evolve(stored, task_description=text)))
            acknowledged.add(text)
            # Others may have written since, but what was there before this write is gone.
            [found] = await setup.cached.get(Episode, [stored.id])
            assert found is not None
            assert found.task_description not in older

    await asyncio.gather(*map(write, range(10)))
    await setup.fetched(stored)


class GroupEnds(InMemoryStorage):
    """Its receipts tell the position after all batches, as those of a server whose answer was lost."""

    async def commit(self, batches: Sequence[WriteBatch]) -> list[CommitResult]:
        results = await super().commit(batches)
        return [evolve(item, position=self.position()) for item in results]


async def test_what_a_large_batch_of_the_same_commit_replaced_is_not_kept() -> None:
    context = kit_context()
    setup = Setup()
    setup.store = GroupEnds(context)
    setup.held = HeldStorage(setup.store)
    setup.cached = CachedStorage(setup.held, DictCache(), types=context.record_types)
    stored = episode("old")
    await setup.commit(WriteBatch().put(stored))
    assert await setup.fetched(stored) == 0
    many = (episode("beside it") for _ in range(100))
    last = evolve(stored, task_description="last")
    await setup.commit(
        WriteBatch().put(evolve(stored, task_description="first")), WriteBatch().put(*many, last)
    )
    assert await setup.fetched(stored) == 1
