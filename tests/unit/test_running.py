"""A running episode is read with the steps that were acknowledged, also while it is being completed."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from memory_core import Delete, Episode, ExecutionStep, Memory, Outcome, Query
from memory_core.inmemory import InMemoryStorage
from memory_core.memory import running
from memory_core.storage import parts

STEPS = tuple(ExecutionStep(number=number, tool="tool") for number in (1, 2, 3))


class Completing:
    """Somebody completes the episode between a reader's look at it and at its steps."""

    def __init__(self, storage: InMemoryStorage, episode: Episode, pages: int = 0) -> None:
        self._storage = storage
        self._episode = episode
        self._pages = pages
        self._queries = 0

    async def query(self, query: Query[Any]) -> Any:
        self._queries += 1
        assert self._queries <= 20, "reads pages without end"
        found = await self._storage.query(query)
        if query.cls is Episode:
            return found
        if self._pages:
            self._pages -= 1
            return found
        await Memory(self._storage).complete_episode(self._episode.id, Outcome.success("done"))
        return await self._storage.query(query)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


async def by_id(memory: Memory, episode: Episode) -> Episode | None:
    return await memory.get_episode(episode.id)


async def in_a_batch(memory: Memory, episode: Episode) -> Episode | None:
    return (await memory.get_episodes_batch([episode.id]))[0]


async def in_a_page(memory: Memory, episode: Episode) -> Episode | None:
    return (await memory.query_episodes()).records[0]


@pytest.mark.parametrize("read", [by_id, in_a_batch, in_a_page])
async def test_no_acknowledged_step_is_missing(read) -> None:
    storage = InMemoryStorage()
    memory = Memory(storage)
    episode = await memory.start_episode(task_description="fix it")
    for step in STEPS:
        await memory.log_step(episode.id, step)
    found = await read(Memory(Completing(storage, episode)), episode)
    assert found.steps == STEPS
    assert found.is_complete


@pytest.mark.parametrize("read", [by_id, in_a_batch, in_a_page])
async def test_no_step_is_missing_between_two_pages(read, monkeypatch) -> None:
    storage = InMemoryStorage()
    memory = Memory(storage)
    episode = await memory.start_episode(task_description="fix it")
    for step in STEPS:
        await memory.log_step(episode.id, step)
    monkeypatch.setattr(parts, "MAX_LIMIT", 1)
    found = await read(Memory(Completing(storage, episode, pages=1)), episode)
    assert found.steps == STEPS
    assert found.is_complete


async def test_the_runs_that_are_remembered_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(running, "_RUNS_KNOWN", 8)
    tested = running.RunningEpisodes(InMemoryStorage())
    episodes = [Episode(task_description=f"task {number}") for number in range(20)]
    for episode in episodes:
        await tested.start(episode)
        assert len(tested._runs) <= 8
    for episode in episodes:
        await tested.log_step(episode.id, STEPS[0])
        assert len(tested._runs) <= 8


class SealingAtTheLastMoment:
    """Somebody lets the episode run again and completes it just before the step is taken back."""

    def __init__(self, storage: InMemoryStorage, episode: Episode) -> None:
        self._storage = storage
        self._episode = episode
        self.sealed: Episode | None = None

    async def commit(self, batches: Any) -> Any:
        deleted = [
            item for batch in batches for item in batch.operations if isinstance(item, Delete)
        ]
        if self.sealed is None and any(item.kind == "step" for item in deleted):
            memory = Memory(self._storage)
            await memory.store_episode(self._episode)
            self.sealed = await memory.complete_episode(self._episode.id, Outcome.success("done"))
        return await self._storage.commit(batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)


async def test_a_step_that_was_sealed_before_it_could_be_taken_back_is_acknowledged() -> None:
    storage = InMemoryStorage()
    memory = Memory(storage)
    episode = await memory.start_episode(task_description="fix it")
    done = {"end_time": episode.start_time, "outcome": Outcome.failure("gave up")}
    await memory.store_episode(evolve(episode, **done))
    racing = SealingAtTheLastMoment(storage, episode)
    assert await Memory(racing).log_step(episode.id, STEPS[0])
    assert racing.sealed is not None
    assert racing.sealed.steps == (STEPS[0],)


async def test_an_episode_that_ended_without_an_outcome_is_not_complete() -> None:
    memory = Memory(InMemoryStorage())
    ended = Episode(task_description="ended")
    await memory.store_episode(evolve(ended, end_time=ended.start_time))
    await memory.log_step(ended.id, STEPS[0])
    complete = await memory.complete_episode(ended.id, Outcome.success("done"))
    assert complete.steps == STEPS[:1]
