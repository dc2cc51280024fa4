"""The sockets of an HTTP client, for the case that no event loop is left to close it."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import aiohttp

__all__ = ["OpenSockets"]


class OpenSockets:
    """Makes the sockets of a client's connector; give `made` to it as ``socket_factory``."""

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()

    def made(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for an address."""
        opened = socket.socket(*address[:3])
        self._sockets.add(opened)
        return opened

    def abandon(self, session: aiohttp.ClientSession | None) -> None:
        """Close the sockets and mark the client as closed, without its event loop, which has ended."""
        connector = session.connector if session is not None else None
        if session is not None and connector is not None:
            session.detach()
            with suppress(StopIteration, RuntimeError):
                # It only forgets its connections: nothing can be awaited.
                next(iter(connector.close().__await__()))
        for opened in self._sockets:
            opened.close()
