"""A running episode is read with its steps in one round trip."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from memory_core import ExecutionStep, Memory
from memory_core.testing.data.kinds import kit_context
from memory_storage_turso import TursoStorage
from memory_storage_turso.engine import pending
from tests.servers.sqld import Sqld

STEPS = tuple(ExecutionStep(number=number, tool="tool") for number in range(1, 31))


async def test_one_round_trip_reads_a_running_episode(
    server: Sqld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pending, "_PAUSE", 1_000.0
    )  # writing index entries takes round trips of its own
    store = await TursoStorage.open(server.http_url, context=kit_context())
    memory = Memory(store)
    episode = await memory.start_episode(task_description="fix it")
    for step in STEPS:
        await memory.log_step(episode.id, step)
    stats: Any = store._shared.driver.stats
    before = stats()["reads"]["primary_reads"]
    found = await memory.get_episode(episode.id)
    assert found
    assert found.steps == STEPS
    assert stats()["reads"]["primary_reads"] == before + 1
    read = await asyncio.gather(*(memory.get_episode(episode.id) for _ in range(20)))
    assert read == [found] * 20
    assert stats()["reads"]["primary_reads"] == before + 2
    await memory.aclose()
