"""Errors while the cache follows the feed: it goes on where it can, and otherwise starts over."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve

from memory_core import (
    CacheConfig,
    CachedStorage,
    CodecError,
    Episode,
    Limits,
    Memory,
    Pattern,
    Query,
    RecordTypes,
    SchemaVersionError,
    StorageUnavailableError,
    ToolSequence,
)
from memory_core.cache import SharedTier
from memory_core.cache.history import FeedHistory
from memory_core.codec import Codec
from memory_core.inmemory import InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES
from memory_core.storage import Change, ChangeOperation
from tests.unit.cache.plain import DictCache, HeldStorage

TYPES = RecordTypes(CORE_RECORD_TYPES)
TAGGED = Query(Episode).where(tags="a")


def episode(text: str = "task", **fields: Any) -> Episode:
    return Episode(task_description=text, tags=("a",), **fields)


class FailingStorage(HeldStorage):
    """Reads of one record fail."""

    def __init__(self, storage: InMemoryStorage) -> None:
        super().__init__(storage)
        self.unreadable: UUID | None = None
        self.error: Exception = CodecError("checksum does not match")

    async def get(self, kind: Any, ids: Any) -> Any:
        if self.unreadable in ids:
            raise self.error
        return await super().get(kind, ids)


class Setup:
    def __init__(self, *, shared: bool = False) -> None:
        store = InMemoryStorage()
        self.other = Memory(store.scoped("default"))
        self.store = FailingStorage(store)
        tiers = [SharedTier(DictCache("bytes"), Codec(TYPES, Limits()), store)] if shared else []
        self.cached = CachedStorage(
            self.store, DictCache(), types=TYPES, config=CacheConfig(), far=tiers
        )
        self.memory = Memory(self.cached)

    async def counters(self) -> dict[str, int]:
        return dict((await self.memory.stats()).sections["coherence"])


@pytest.mark.parametrize(
    "error", [CodecError("checksum does not match"), SchemaVersionError("an episode", 9, 1)]
)
async def test_a_record_that_cannot_be_read_invalidates_only_the_answers_about_its_kind(
    error,
) -> None:
    setup = Setup()
    broken, whole, pattern = episode("first"), episode(), ToolSequence(tools=("a", "b"))
    await setup.other.put(broken, whole, pattern)
    assert await setup.cached.count(TAGGED) == 2
    assert len(await setup.cached.query(Query(Pattern))) == 1
    setup.store.unreadable, setup.store.error = broken.id, error
    await setup.other.store_episode(evolve(broken, tags=()))
    queries = setup.store.queries
    assert await setup.cached.get(Episode, [whole.id]) == [whole]
    assert len(await setup.cached.query(Query(Pattern))) == 1
    assert setup.store.queries == queries
    assert await setup.cached.count(TAGGED) == 1
    with pytest.raises(type(error)):
        await setup.memory.get_episode(broken.id)
    assert (await setup.counters())["invalidated_unreadable"] == 1
    # It is whole again, which is a change like any other.
    setup.store.unreadable = None
    await setup.other.store_episode(broken)
    assert await setup.memory.get_episode(broken.id) == broken
    assert await setup.cached.count(TAGGED) == 2


async def test_while_the_store_cannot_be_reached_nothing_stale_is_returned() -> None:
    setup = Setup()
    stored = episode("old")
    await setup.other.store_episode(stored)
    assert len(await setup.cached.query(TAGGED)) == 1
    assert await setup.memory.get_episode(stored.id) == stored
    setup.store.unreadable, setup.store.error = stored.id, StorageUnavailableError("no route")
    await setup.other.store_episode(evolve(stored, task_description="new"))
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            await setup.cached.query(TAGGED)
    setup.store.unreadable = None
    assert (await setup.cached.query(TAGGED)).records[0].task_description == "new"
    assert (await setup.memory.get_episode(stored.id)).task_description == "new"


async def test_changes_that_are_read_again_do_not_disturb_what_vouches_for_shared_entries() -> None:
    setup = Setup(shared=True)
    kept, changed = episode("kept"), episode("old")
    await setup.other.put(kept, changed)
    assert len(await setup.cached.query(TAGGED)) == 2
    setup.store.unreadable, setup.store.error = changed.id, StorageUnavailableError("no route")
    for number in range(3):
        await setup.other.store_episode(evolve(changed, task_description=f"new {number}"))
        with pytest.raises(StorageUnavailableError):
            await setup.memory.get_episode(kept.id)
    setup.store.unreadable = None
    assert await setup.memory.get_episode(kept.id) == kept
    history = setup.cached._coherence.history
    assert history is not None
    assert history._positions == [1, 2, 3, 4, 5]
    assert (await setup.counters())["changes_seen"] == 3


async def test_another_read_continues_a_pull_that_was_cancelled() -> None:
    setup = Setup(shared=True)
    stored = episode("old")
    await setup.other.store_episode(stored)
    assert len(await setup.cached.query(TAGGED)) == 1
    await setup.other.store_episode(evolve(stored, task_description="new"))
    # It is held where it reads the record that changed.
    setup.store.gate.clear()
    setup.store.reached.clear()
    reading = asyncio.create_task(setup.cached.query(TAGGED))
    await setup.store.reached.wait()
    reading.cancel()
    setup.store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (await setup.cached.query(TAGGED)).records[0].task_description == "new"
    history = setup.cached._coherence.history
    assert history is not None
    assert history._positions == [1, 2]


def test_a_change_is_noted_once() -> None:
    history = FeedHistory("ns")
    changes = [
        Change(number, "episode", UUID(int=number), ChangeOperation.PUT) for number in (3, 5)
    ]
    for change in (*changes, *changes):
        history.note(change)
    assert history._positions == [3, 5]
    history.start(0)
    history.note(changes[0])
    assert history._positions == [3]
