"""Counts in-flight calls, so that closing can wait for them."""

from __future__ import annotations

import asyncio

__all__ = ["InFlight"]


class InFlight:
    """A context that each call enters; closing waits until all calls have left it."""

    def __init__(self) -> None:
        self._calls = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._calls += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self._calls -= 1
        if not self._calls:
            self._none.set()

    async def ended(self) -> None:
        """Wait until no call is in flight."""
        await self._none.wait()
