"""Opening an engine whose opening blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from memory_core.backend.handle import SharedState

__all__ = ["open_on_thread"]

S = TypeVar("S", bound=SharedState)


async def open_on_thread(make: Callable[[], S]) -> S:
    """Make shared state on a thread; it belongs to the event loop of the caller.

    If the caller is cancelled, the state is abandoned as soon as it is made, so that no lock stays
    without an owner.
    """
    opening = asyncio.ensure_future(asyncio.to_thread(make))
    try:
        shared = await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_abandon)
        raise
    shared.check_owner()
    return shared


def _abandon(opening: asyncio.Future[S]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abandon()
