"""Opening an engine: on a thread where its driver blocks, in a task where it is for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from memory_core.backend.handle import SharedState

__all__ = ["open_in_task", "open_on_thread"]

S = TypeVar("S", bound=SharedState)
_OPENING: set[asyncio.Task[None]] = set()  # an event loop refers to its tasks only weakly


async def open_on_thread(make: Callable[[], S]) -> S:
    """Make shared state on a thread; it belongs to the event loop of the caller.

    If the caller is cancelled, the state is abandoned as soon as it is made, even if the loop has ended by
    then: no lock stays without an owner.
    """
    opening = _Opening(make)
    try:
        shared = await asyncio.to_thread(opening.run)
    except asyncio.CancelledError:
        opening.cancel()
        raise
    shared.check_owner()
    return shared


async def open_in_task(shared: S, start: Callable[[], Awaitable[object]]) -> S:
    """Start shared state whose driver is for asyncio. If that fails, the state is closed.

    A caller that is cancelled goes on at once. The driver finishes what it has begun, as one that is stopped
    in the middle of its protocol leaves connections behind, and what it has opened is closed.

    Args:
        shared: the state; its ``close`` releases whatever was opened by then.
        start: connects, and makes or checks the store.
    """
    starting = _kept(_started(shared, start))
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        _kept(_closed_after(starting, shared))
        raise
    return shared


def _kept(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name="memory-core open")
    _OPENING.add(task)
    task.add_done_callback(_OPENING.discard)
    return task


async def _started(shared: SharedState, start: Callable[[], Awaitable[object]]) -> None:
    try:
        await start()
    except BaseException:
        await shared.closed()
        raise


async def _closed_after(starting: asyncio.Task[None], shared: SharedState) -> None:
    await asyncio.wait([starting])
    if not starting.cancelled() and starting.exception() is None:
        await shared.closed()


class _Opening(Generic[S]):
    """Makes shared state on a thread, for a caller that may be cancelled meanwhile."""

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self._made: S | None = None
        self._cancelled = False
        self._changing = threading.Lock()

    def run(self) -> S:
        made = self._make()
        with self._changing:
            self._made = made
            if self._cancelled:
                made.abandon()
        return made

    def cancel(self) -> None:
        with self._changing:
            self._cancelled = True
            if self._made is not None:
                self._made.abandon()
