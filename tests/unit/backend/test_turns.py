"""Turns: tasks that read without waiting let others run, one of them in each tick of the event loop."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from memory_core.backend import Turns, turns

TASKS, CALLS = 20, 50
SHORT, PAGE = 0.0001, 0.0006


class Handle(Turns):
    """Its calls take time, but do not wait."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1.0
        self.called: list[int] = []
        monkeypatch.setattr(turns, "monotonic", lambda: self.now)

    async def get(self, task: int) -> None:
        self.now += SHORT
        self.called.append(task)
        self._turn -= 16
        if self._turn <= 0:
            await self._give_way()

    async def page(self, task: int) -> None:
        self.now += PAGE
        self.called.append(task)
        await self._give_way()


async def longest_tick(handle: Handle, tasks: set[asyncio.Task[None]]) -> float:
    """The most that the clock moves from one tick of the event loop to the next, but for the first ticks, in
    which every task begins.
    """
    for _ in range(3):
        await asyncio.sleep(0)
    longest = 0.0
    while not all(task.done() for task in tasks):
        before = handle.now
        await asyncio.sleep(0)
        longest = max(longest, handle.now - before)
    return longest


@pytest.mark.parametrize(
    ("call", "ticks"), [("get", turns._LONGEST + 8 * SHORT), ("page", 2 * PAGE)]
)
async def test_a_tick_is_as_long_as_one_turn(monkeypatch, call, ticks) -> None:
    handle = Handle(monkeypatch)

    async def read(number: int) -> None:
        for _ in range(CALLS):
            await getattr(handle, call)(number)

    tasks = {asyncio.create_task(read(number)) for number in range(TASKS)}
    assert await longest_tick(handle, tasks) <= ticks + 1e-9


async def test_tasks_that_read_pages_go_on_in_turn(monkeypatch) -> None:
    handle = Handle(monkeypatch)

    async def read(number: int) -> None:
        for _ in range(CALLS):
            await handle.page(number)

    await asyncio.gather(*(read(number) for number in range(TASKS)))
    for number in range(TASKS):
        places = [place for place, each in enumerate(handle.called) if each == number]
        waits = [after - before for before, after in pairwise(places)]
        assert max(waits) <= 2 * TASKS


async def test_cancelled_tasks_leave_the_line(monkeypatch) -> None:
    handle = Handle(monkeypatch)

    async def read(number: int) -> None:
        while True:
            await handle.page(number)

    tasks = [asyncio.create_task(read(number)) for number in range(TASKS)]
    for _ in range(5):
        await asyncio.sleep(0)
    for task in tasks[:-1]:
        task.cancel()
    await asyncio.wait(tasks[:-1])
    before = len(handle.called)
    for _ in range(10):
        await asyncio.sleep(0)
    assert handle.called[before:] == [TASKS - 1] * (len(handle.called) - before)
    assert len(handle.called) >= before + 5
    tasks[-1].cancel()
    await asyncio.wait(tasks)
