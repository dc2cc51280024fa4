"""A running episode is read with the steps that were acknowledged, also while it is being completed."""

from __future__ import annotations

from typing import Any

import pytest

from memory_core import Episode, ExecutionStep, Memory, Outcome, Query
from memory_core.inmemory import InMemoryStorage

STEPS = tuple(ExecutionStep(number=number, tool="tool") for number in (1, 2, 3))


class Completing:
    """Somebody completes the episode between a reader's look at it and at its steps."""

    def __init__(self, storage: InMemoryStorage, running: Episode) -> None:
        self._storage = storage
        self._running = running

    async def query(self, query: Query[Any]) -> Any:
        found = await self._storage.query(query)
        if query.cls is Episode:
            return found
        await Memory(self._storage).complete_episode(self._running.id, Outcome.success("done"))
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
    running = await memory.start_episode(task_description="fix it")
    for step in STEPS:
        await memory.log_step(running.id, step)
    found = await read(Memory(Completing(storage, running)), running)
    assert found.steps == STEPS
    assert found.is_complete
