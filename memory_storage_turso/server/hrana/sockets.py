"""The HTTP client of a transport, which is closed at the latest when its event loop ends."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import aiohttp

__all__ = ["ClientSession"]

#: Makes a client whose connector takes its sockets from the factory that is given.
Make = Callable[[Callable[[tuple[Any, ...]], socket.socket]], aiohttp.ClientSession]


class ClientSession:
    """An HTTP client that is made when it is first used.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Make) -> None:
        self._make = make
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._session: aiohttp.ClientSession | None = None
        self._lifetime: AsyncGenerator[None] | None = None

    async def opened(self) -> aiohttp.ClientSession:
        """The client."""
        if self._session is None:
            session = self._session = self._make(self._new_socket)
            self._lifetime = _lifetime(session)
            await anext(self._lifetime)
            return session
        return self._session

    async def aclose(self) -> None:
        """Close it."""
        self._session = None
        if self._lifetime is not None:
            await self._lifetime.aclose()

    def abandon(self) -> None:
        """Close its sockets without an event loop: its own has ended."""
        session, self._session = self._session, None
        connector = session.connector if session is not None else None
        if session is not None and connector is not None:
            session.detach()
            with suppress(StopIteration, RuntimeError):
                # It only forgets its connections: nothing can be awaited.
                next(iter(connector.close().__await__()))
        for opened in self._sockets:
            opened.close()

    def _new_socket(self, address: tuple[Any, ...]) -> socket.socket:
        opened = socket.socket(*address[:3])
        self._sockets.add(opened)
        return opened


async def _lifetime(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    """Close a client when this generator is closed.

    An event loop that ends closes its generators while it can still run them. Afterwards nobody could close
    the client's connections properly.
    """
    try:
        yield
    finally:
        await session.close()
