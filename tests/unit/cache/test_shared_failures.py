"""A shared tier is never needed: its errors are counted, the store answers, and nothing is stale."""

from __future__ import annotations

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
    StorageUnavailableError,
)
from memory_core.cache import SharedTier
from memory_core.codec import Codec
from memory_core.inmemory import InMemoryStorage
from memory_core.records import CORE_RECORD_TYPES
from memory_core.storage import StorageStats
from tests.unit.cache.plain import DictCache, HeldStorage

TYPES = RecordTypes(CORE_RECORD_TYPES)


def episode(text: str = "task") -> Episode:
    return Episode(task_description=text)


class FailingTier(DictCache):
    """Breaks the rule that errors of a cache do not reach the caller."""

    def __init__(self) -> None:
        super().__init__("bytes")
        self.failing: set[str] = set()
        self.heard: list[tuple[str, int]] = []

    async def get_many(self, keys: Any) -> list[Any]:
        self._check("get_many")
        return await super().get_many(keys)

    async def set_many(self, entries: Any) -> None:
        self._check("set_many")
        await super().set_many(entries)

    async def delete_many(self, keys: Any, cause: str = "invalidated") -> None:
        self._check("delete_many")
        self.heard.append((cause, len(keys)))
        await super().delete_many(keys, cause)

    async def clear(self, namespace: str | None = None) -> None:
        self._check("clear")
        await super().clear(namespace)

    def _check(self, name: str) -> None:
        if name in self.failing:
            raise RuntimeError(f"{name} fails")


class Server(HeldStorage):
    """A store that may be unable to report its statistics."""

    reports = True

    async def stats(self) -> StorageStats:
        if not self.reports:
            raise StorageUnavailableError("no statistics today")
        return await self._storage.stats()


class Process:
    def __init__(self, store: InMemoryStorage, far: DictCache) -> None:
        self.server = Server(store)
        self.cached = CachedStorage(
            self.server,
            DictCache(),
            types=TYPES,
            config=CacheConfig(write_through=False),
            far=[SharedTier(far, Codec(TYPES, Limits()), self.server)],
        )
        self.memory = Memory(self.cached)

    async def text(self, wanted: Episode) -> str:
        (found,) = await self.cached.get(Episode, [wanted.id])
        assert found is not None
        return found.task_description

    @property
    def errors(self) -> int:
        return self.cached.coherence_stats().get("shared_errors", 0)


@pytest.fixture
def store() -> InMemoryStorage:
    return InMemoryStorage()


@pytest.fixture
def far() -> FailingTier:
    return FailingTier()


@pytest.mark.parametrize("failing", [{"delete_many"}, {"get_many", "set_many", "delete_many"}])
async def test_a_commit_is_acknowledged_whatever_the_tier_does(store, far, failing) -> None:
    process, other = Process(store, far), Process(store, far)
    stored = episode("old")
    await process.memory.store_episode(stored)
    assert [await item.text(stored) for item in (process, other)] == ["old", "old"]
    far.failing = failing
    receipt = await process.memory.store_episode(evolve(stored, task_description="new"))
    assert receipt.position == 2
    assert process.errors == 1
    # The entry that it did not delete is still there, but is not used.
    assert len(far.values) == 1
    assert [await item.text(stored) for item in (process, other)] == ["new", "new"]
    far.failing = set()
    assert await Process(store, far).text(stored) == "new"


async def test_a_store_that_cannot_tell_its_id_does_not_use_the_tier(store, far) -> None:
    process = Process(store, far)
    process.server.reports = False
    stored = episode("old")
    assert (await process.memory.store_episode(stored)).position == 1
    assert await process.text(stored) == "old"
    assert far.values == {}
    assert process.errors > 0
    process.server.reports = True
    await process.cached.clear_cache()
    assert await process.text(stored) == "old"
    assert len(far.values) == 1


async def test_after_a_commit_the_store_is_not_asked_for_its_id(store, far) -> None:
    process = Process(store, far)
    stored = episode("old")
    commit = process.server.commit

    async def commits(batches: Any) -> Any:
        results = await commit(batches)
        process.server.reports = False
        return results

    process.server.commit = commits
    await process.memory.store_episode(stored)
    assert far.heard == [("written", 1)]
    assert process.errors == 0


async def test_a_tier_that_cannot_be_read_is_bypassed(store, far) -> None:
    stored = episode("there")
    await Process(store, far).memory.store_episode(stored)
    far.failing = {"get_many", "set_many"}
    process = Process(store, far)
    assert await process.text(stored) == "there"
    assert process.errors == 2


async def test_a_wipe_clears_the_tier_and_tells_others(store, far) -> None:
    process, other = Process(store, far), Process(store, far)
    elsewhere = Memory(process.cached.scoped("elsewhere"))
    stored, kept = episode(), episode()
    await process.memory.store_episode(stored)
    await elsewhere.store_episode(kept)
    await process.text(stored)
    await elsewhere.storage.get(Episode, [kept.id])
    assert len(far.values) == 2
    far.heard.clear()
    await process.cached.wipe()
    assert {key[0].rpartition("/")[2] for key in far.values} == {"elsewhere"}
    assert far.heard == [("written", 1)]
    assert await other.cached.get(Episode, [stored.id]) == [None]


@pytest.mark.parametrize("failing", [{"clear"}, {"delete_many"}])
async def test_a_wipe_is_acknowledged_whatever_the_tier_does(store, far, failing) -> None:
    process = Process(store, far)
    stored = episode()
    await process.memory.store_episode(stored)
    await process.text(stored)
    far.failing = failing
    assert await process.cached.wipe() == 2
    assert process.errors == 1
    for item in (process, Process(store, far)):
        assert await item.cached.get(Episode, [stored.id]) == [None]
