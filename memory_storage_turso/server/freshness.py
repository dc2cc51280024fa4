"""The primary's newest position, asked for once by all who wait for it together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class NewestPosition:
    """Joins inquiries: each caller gets the answer to one that was sent after the call.

    Args:
        fetch: Asks the primary.
    """

    def __init__(self, fetch: Callable[[], Awaitable[int]]) -> None:
        self._fetch = fetch
        self._under_way: asyncio.Task[int] | None = None
        self._next: asyncio.Task[int] | None = None
        self.inquiries = 0

    def ask(self) -> asyncio.Task[int]:
        """An answer that is at least as new as this call. The caller must not cancel it."""
        if self._next is not None:
            return self._next
        if self._under_way is None or self._under_way.done():
            self._under_way = self._start(None)
            return self._under_way
        self._next = self._start(self._under_way)
        return self._next

    async def aclose(self) -> None:
        """Wait for what is under way."""
        tasks = {task for task in (self._under_way, self._next) if task is not None}
        if tasks:
            await asyncio.wait(tasks)

    def _start(self, before: asyncio.Task[int] | None) -> asyncio.Task[int]:
        task = asyncio.get_running_loop().create_task(self._inquire(before))
        # Whoever asked may have got its answer elsewhere; then nobody looks at a failure.
        task.add_done_callback(_retrieve)
        return task

    async def _inquire(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait([before])
            self._under_way, self._next = self._next, None
        self.inquiries += 1
        return await self._fetch()


def _retrieve(task: asyncio.Task[int]) -> None:
    if not task.cancelled():
        task.exception()
