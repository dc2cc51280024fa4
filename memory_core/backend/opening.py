"""Opening an engine whose opening blocks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from memory_core.backend.handle import SharedState

__all__ = ["open_on_thread"]

S = TypeVar("S", bound=SharedState)


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
