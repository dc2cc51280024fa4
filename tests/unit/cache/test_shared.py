"""Shared tiers: what is in them is used only if it is whole, of this store and unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from attrs import evolve

from memory_core import (
    CacheConfig,
    CachedStorage,
    Episode,
    Limits,
    Memory,
    RecordTypes,
)
from memory_core.cache import SharedTier
from memory_core.cache.coherence import NamespaceCoherence
from memory_core.cache.near import NearTier
from memory_core.codec import Codec
from memory_core.inmemory import InMemoryConfig, InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES
from memory_core.storage import ChangePage
from tests.unit.cache.plain import DictCache, HeldStorage

TYPES = RecordTypes(CORE_RECORD_TYPES)


def episode(text: str = "task", **fields: Any) -> Episode:
    return Episode(task_description=text, **fields)


class Process:
    """A process with a nearest tier of its own, behind which are shared ones."""

    def __init__(self, store: InMemoryStorage, *far: DictCache) -> None:
        self.held = HeldStorage(store)
        codec = Codec(TYPES, Limits())
        self.near = DictCache()
        tiers = [SharedTier(tier, codec, store) for tier in far]
        config = CacheConfig(write_through=False)
        self.storage = CachedStorage(self.held, self.near, types=TYPES, config=config, far=tiers)

    async def read(self, wanted: Episode) -> Episode | None:
        return (await self.storage.get(Episode, [wanted.id]))[0]

    async def count(self, name: str) -> int:
        return (await self.storage.stats()).sections["coherence"].get(name, 0)


@pytest.fixture
def store() -> InMemoryStorage:
    return InMemoryStorage()


async def filled(store: InMemoryStorage, *far: DictCache) -> Episode:
    stored = episode()
    await Memory(store.scoped("default")).store_episode(stored)
    await Process(store, *far).read(stored)
    return stored


async def test_one_process_uses_what_another_has_read(store) -> None:
    far = DictCache("bytes")
    stored = await filled(store, far)
    process = Process(store, far)
    assert await process.read(stored) == stored
    assert process.held.gets == 0


async def test_no_byte_of_an_entry_may_change(store) -> None:
    far = DictCache("bytes")
    stored = await filled(store, far)
    ((key, value),) = far.values.items()
    for place in range(len(value)):
        damaged = bytearray(value)
        damaged[place] ^= 0x41
        far.values = {key: bytes(damaged)}
        process = Process(store, far)
        assert await process.read(stored) == stored
        assert (process.held.gets, await process.count("shared_corrupt")) == (1, 1)
    for length in range(len(value)):
        far.values = {key: value[:length]}
        assert await Process(store, far).read(stored) == stored


async def test_an_entry_under_the_key_of_another_is_not_used(store) -> None:
    far = DictCache("bytes")
    first, second = await filled(store, far), await filled(store, far)
    swapped = dict(zip(far.values, reversed(list(far.values.values())), strict=True))
    far.values = swapped
    process = Process(store, far)
    assert [await process.read(item) for item in (first, second)] == [first, second]
    assert await process.count("shared_corrupt") == 2


async def test_what_a_farther_tier_has_fills_the_nearer_ones(store) -> None:
    host, network = DictCache("bytes"), DictCache("bytes")
    stored = await filled(store, network)
    process = Process(store, host, network)
    assert await process.read(stored) == stored
    assert process.held.gets == 0
    assert len(host.values) == 1
    again = Process(store, host)
    assert await again.read(stored) == stored
    assert again.held.gets == 0


async def test_a_missing_record_is_deleted_from_the_tier_when_that_is_found_out(store) -> None:
    far = DictCache("bytes")
    stored = await filled(store, far)
    await Memory(store.scoped("default")).delete_episode(stored.id)
    process = Process(store, far)
    assert await process.read(stored) is None
    assert far.values == {}
    assert far.causes["outdated"] == 1


async def test_a_write_tells_the_tier(store) -> None:
    far = DictCache("bytes")
    stored = await filled(store, far)
    process = Process(store, far)
    await Memory(process.storage).store_episode(evolve(stored, task_description="new"))
    assert far.values == {}
    assert far.causes["written"] == 1


async def test_a_late_fill_by_a_slow_process_is_recognized_by_its_position(store) -> None:
    far = DictCache("bytes")
    stored = episode("old")
    other = Memory(store.scoped("default"))
    await other.store_episode(stored)
    slow, quick = Process(store, far), Process(store, far)
    slow.held.gate.clear()
    reading = asyncio.create_task(slow.read(stored))
    await slow.held.reached.wait()
    await Memory(quick.storage).store_episode(evolve(stored, task_description="new"))
    slow.held.gate.set()
    await reading
    # The slow process has put the stale entry back.
    assert len(far.values) == 1
    assert (await quick.read(stored)).task_description == "new"
    assert (await Process(store, far).read(stored)).task_description == "new"


async def test_a_store_that_was_set_back_is_not_answered_from_its_lost_future() -> None:
    far, store = DictCache("bytes"), InMemoryStorage()
    kept = episode("before")
    memory = Memory(store.scoped("default"))
    await memory.store_episode(kept)
    # What happens from here on is lost, but was cached.
    await memory.store_episode(evolve(kept, task_description="lost"))
    await memory.store_episode(episode())
    assert (await Process(store, far).read(kept)).task_description == "lost"

    restored = InMemoryStorage()
    restored._shared.store_id = store._shared.store_id
    memory = Memory(restored.scoped("default"))
    await memory.store_episode(kept)
    for _ in range(4):
        await memory.store_episode(episode())
    process = Process(restored, far)
    assert (await process.read(kept)).task_description == "before"
    assert await process.count("shared_outdated") == 1


async def test_a_history_known_in_part_vouches_for_nothing(monkeypatch) -> None:
    monkeypatch.setattr("memory_core.cache.coherence._FEED_PAGE", 2)
    store = InMemoryStorage()
    memory = Memory(store.scoped("default"))
    for number in range(7):
        await memory.store_episode(episode(f"task {number}"))
    seen: list[bool] = []

    class Watched(HeldStorage):
        async def changes(self, since: int, limit: int = 1_000) -> ChangePage:
            seen.append(coherence.history.knows(0))
            return await super().changes(since, limit)

    watched, near = Watched(store), NearTier(DictCache(), CacheConfig())
    coherence = NamespaceCoherence(watched, near, TYPES, remember=True)
    await coherence.catch_up(watched.position())
    assert seen == [False] * 4
    assert coherence.history.knows(0)
    assert coherence.caught_up == 7


async def test_where_the_feed_was_trimmed_before_a_process_began_nothing_is_vouched_for() -> None:
    store = InMemoryStorage(config=InMemoryConfig(change_feed_limit=5))
    far, memory = DictCache("bytes"), Memory(store.scoped("default"))
    stored = episode("old")
    await memory.store_episode(stored)
    for _ in range(10):
        await memory.store_episode(episode())
    assert await Process(store, far).read(stored) == stored
    changed = evolve(stored, task_description="new")
    await memory.store_episode(changed)
    for _ in range(10):
        await memory.store_episode(episode())
    assert await Process(store, far).read(stored) == changed
