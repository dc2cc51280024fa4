"""Calls under way, for who closes what they use."""

from __future__ import annotations

import asyncio

__all__ = ["UnderWay"]


class UnderWay:
    """A context for each call; who closes waits until all have left theirs."""

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
        """Return when no call is under way."""
        await self._none.wait()
