"""Counts that end at a bound, through the façade, wrappers and caches, and without either."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from memory_core import Episode, InvalidValueError, Memory, Query, open_memory, open_memory_sync
from memory_core.storage import Capability, Storage, count_up_to
from memory_core.testing.data.samples import episode

URLS = ["inmemory:", "lmdb:{folder}/memory", "turso:{folder}/memory.db", "jsonl:{folder}/m.jsonl"]
TAGGED = Query(Episode).where(tags="tag")


class Counting:
    """Forwards everything, and notes how it is asked to count."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.calls: Counter[str] = Counter()

    async def count(self, *args: Any) -> int:
        self.calls["count"] += 1
        return await self._storage.count(*args)

    async def count_up_to(self, *args: Any) -> int:
        self.calls["count_up_to"] += 1
        return await count_up_to(self._storage, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class Unaware:
    """A wrapper of an earlier version: it hides a record from counts."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def count(self, query: Query[Any]) -> int:
        return await self._storage.count(query) - 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


@pytest.mark.parametrize("cache", [None, "adaptive"])
@pytest.mark.parametrize("url", URLS)
async def test_a_memory_counts_up_to_a_bound(url: str, cache: str | None, tmp_path: Path) -> None:
    async with open_memory(url.format(folder=tmp_path), cache=cache) as memory:
        await memory.store_episodes_batch([episode(n, tags=("tag",)) for n in range(30)])
        for _ in range(2):
            assert await memory.count(TAGGED, up_to=10) == 10
            assert await memory.count_episodes(TAGGED, up_to=29) == 29
            assert await memory.count_episodes(TAGGED, up_to=1_000) == 30
            assert await memory.count_episodes(up_to=7) == 7
            assert await memory.count_episodes() == await memory.count(TAGGED) == 30
            assert await memory.count_patterns(up_to=1) == 0
            assert await memory.count_heuristics(up_to=1) == 0
        await memory.store_episode(episode(30, tags=("tag",)))
        assert await memory.count(TAGGED, up_to=31) == 31
        assert await memory.count(TAGGED, up_to=1_000) == 31
        for bound in (0, -1, 1.5, "many"):
            wrong: Any = bound
            with pytest.raises(InvalidValueError, match="up_to"):
                await memory.count(TAGGED, up_to=wrong)


def test_without_a_loop() -> None:
    with open_memory_sync("inmemory:") as memory:
        memory.store_episodes_batch([episode(n, tags=("tag",)) for n in range(3)])
        assert memory.count(TAGGED, up_to=2) == memory.count_episodes(up_to=2) == 2
        assert memory.count(TAGGED) == 3


async def test_the_bound_reaches_the_backend_through_caches() -> None:
    async with open_memory("inmemory:", cache=None) as memory:
        await memory.store_episodes_batch([episode(n, tags=("tag",)) for n in range(30)])
        counting: Any = Counting(memory.storage)
        cached = Memory(counting).with_cache("adaptive")
        for bound in (10, 20, 10, 20):
            assert await cached.count(TAGGED, up_to=bound) == bound
        assert counting.calls == {"count_up_to": 2}
        assert await cached.count(TAGGED) == 30
        assert counting.calls == {"count_up_to": 2, "count": 1}


async def test_a_wrapper_that_does_not_know_bounds_is_not_passed_by() -> None:
    async with open_memory("inmemory:", cache=None) as memory:
        await memory.store_episodes_batch([episode(n, tags=("tag",)) for n in range(5)])
        wrapper: Any = Unaware(memory.storage)
        assert Capability.BOUNDED_COUNTS in wrapper.capabilities
        for reader in (Memory(wrapper), Memory(wrapper).with_cache("adaptive")):
            assert await reader.count(TAGGED, up_to=10) == 4
            assert await reader.count(TAGGED, up_to=3) == 3
