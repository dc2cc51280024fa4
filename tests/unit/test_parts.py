"""Running episodes are read with their steps by one call of the backend, also behind caches and wrappers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from memory_core import Episode, ExecutionStep, Memory, Outcome, open_memory
from memory_core.records import new_id
from memory_core.storage import Capability, Storage, get_with_parts, with_parts_of

STEPS = tuple(ExecutionStep(number=number, tool="tool") for number in (1, 2, 3))
URLS = ["lmdb:{folder}/memory", "turso:{folder}/memory.db"]


class Counting:
    """Forwards everything, and counts reads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.calls: Counter[str] = Counter()
        self.before_query: Callable[[], Awaitable[Any]] | None = None

    async def get(self, *args: Any) -> Any:
        self.calls["get"] += 1
        return await self._storage.get(*args)

    async def query(self, *args: Any) -> Any:
        self.calls["query"] += 1
        if self.before_query is not None:
            hook, self.before_query = self.before_query, None
            await hook()
        return await self._storage.query(*args)

    async def get_with_parts(self, *args: Any) -> Any:
        self.calls["get_with_parts"] += 1
        return await get_with_parts(self._storage, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


class Unaware:
    """A wrapper of an earlier version: it changes what is read by the members that it knows."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def get(self, kind: Any, ids: Any) -> Any:
        return [
            each and each.replace(task_description="changed")
            for each in await self._storage.get(kind, ids)
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


async def started(memory: Memory) -> Episode:
    episode = await memory.start_episode(task_description="fix it")
    for step in STEPS:
        await memory.log_step(episode.id, step)
    return episode


@pytest.mark.parametrize("url", URLS)
async def test_one_call_reads_a_running_episode(url: str, tmp_path: Path) -> None:
    async with open_memory(url.format(folder=tmp_path), cache=None) as memory:
        episode = await started(memory)
        counting = Counting(memory.storage)
        reader: Any = Memory(counting)
        assert (await reader.get_episode(episode.id)).steps == STEPS
        assert (await reader.get(Episode, episode.id)).steps == STEPS
        [found, missing] = await reader.get_episodes_batch([episode.id, new_id()])
        assert found.steps == STEPS
        assert missing is None
        assert counting.calls == {"get_with_parts": 3}


@pytest.mark.parametrize("url", URLS)
async def test_a_cache_reads_it_by_one_call_and_then_keeps_it(url: str, tmp_path: Path) -> None:
    async with open_memory(url.format(folder=tmp_path), cache=None) as memory:
        episode = await started(memory)
        counting: Any = Counting(memory.storage)
        cached = Memory(counting).with_cache("adaptive")
        assert with_parts_of(cached.storage) is not None
        assert (await cached.get_episode(episode.id)).steps == STEPS
        assert counting.calls == {"get_with_parts": 1}
        assert (await cached.get_episode(episode.id)).steps == STEPS
        before = counting.calls.copy()
        assert (await cached.get_episode(episode.id)).steps == STEPS
        assert counting.calls == before
        more = ExecutionStep(number=4, tool="tool")
        await memory.log_step(episode.id, more)
        assert (await cached.get_episode(episode.id)).steps == (*STEPS, more)
        await memory.complete_episode(episode.id, Outcome.success("done"))
        found = await cached.get_episode(episode.id)
        assert found
        assert found.is_complete
        assert found.steps == (*STEPS, more)
        before = counting.calls.copy()
        assert await cached.get_episode(episode.id) == found
        assert counting.calls == before


async def test_a_wrapper_that_does_not_know_parts_is_not_passed_by(tmp_path: Path) -> None:
    async with open_memory(f"lmdb:{tmp_path}/memory", cache=None) as memory:
        episode = await started(memory)
        wrapper: Any = Unaware(memory.storage)
        assert Capability.PARTS in wrapper.capabilities
        assert with_parts_of(wrapper) is None
        for reader in (Memory(wrapper), Memory(wrapper).with_cache("adaptive")):
            found = await reader.get_episode(episode.id)
            assert found
            assert found.task_description == "changed"
            assert found.steps == STEPS


@pytest.mark.parametrize("url", URLS)
async def test_a_cached_record_gets_no_parts_of_another_moment(url: str, tmp_path: Path) -> None:
    async with open_memory(url.format(folder=tmp_path), cache=None) as memory:
        episode = await started(memory)
        counting: Any = Counting(memory.storage)
        cached = Memory(counting).with_cache("adaptive")
        assert await cached.get_episode(episode.id)

        async def start_again() -> None:
            await memory.complete_episode(episode.id, Outcome.success("done"))
            await memory.start_episode(episode.replace(task_description="again"))
            await memory.log_step(episode.id, STEPS[0])

        # The record is cached, its steps are not: while they are read, it ends and begins again.
        counting.before_query = start_again
        found = await cached.get_episode(episode.id)
        assert counting.before_query is None
        assert found
        assert (found.task_description, found.steps) == ("again", STEPS[:1])
