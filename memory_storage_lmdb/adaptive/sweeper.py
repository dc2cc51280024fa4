"""The background task that removes what has expired, also while nobody uses the cache."""

from __future__ import annotations

import asyncio
import weakref
from typing import Protocol

__all__ = ["Sweepable", "Sweeper"]

_AT_ONCE = 512  # entries removed between two turns of the event loop


class Sweepable(Protocol):
    """What can be swept."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to look after until something comes in."""
        ...

    def sweep(self, limit: int) -> bool:
        """Remove about ``limit`` entries at most; whether there is more."""
        ...


class Sweeper:
    """Runs the task on the loop of whoever uses the cache.

    It starts with the first entry and ends when the cache is empty, is dropped, or is closed. Without
    a running loop there is none, and expired entries leave as others come in.

    Args:
        cache: what is swept; only weakly referred to.
        interval: seconds between two rounds.
    """

    __slots__ = ("_cache", "_interval", "_loop", "_task")

    def __init__(self, cache: Sweepable, interval: float) -> None:
        self._cache = weakref.ref(cache)
        self._interval = interval
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the task is there."""
        return self._task is not None and not self._task.done()

    def ensure(self) -> None:
        """Start the task, unless it is there already or there is no loop."""
        if self._loop is not None and self.running and not self._loop.is_closed():
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the cache's coroutines never suspend, so they can be run without a loop
        self._loop = loop
        self._task = loop.create_task(_sweep(self._cache, self._interval), name="cache sweeper")

    async def stop(self) -> None:
        """End the task and wait until it has. Idempotent."""
        task, loop = self._task, self._loop
        self._task = None
        if task is None or loop is None or task.done() or loop.is_closed():
            return
        if loop is not asyncio.get_running_loop():
            loop.call_soon_threadsafe(task.cancel)
            return
        task.cancel()
        await asyncio.wait([task])


async def _sweep(cache: weakref.ref[Sweepable], interval: float) -> None:
    while (found := cache()) is not None and not found.idle:
        del found
        await asyncio.sleep(interval)
        while (found := cache()) is not None and found.sweep(_AT_ONCE):
            del found
            await asyncio.sleep(0)
        del found
