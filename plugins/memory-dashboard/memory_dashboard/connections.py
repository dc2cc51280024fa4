"""The connections of the server: slow and silent clients do not shut others out."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["MOST", "Connection"]

MOST = 100
"""Connections at once: those of more than ten browsers, and far from what a process may have open."""


class Connection(H11Protocol):
    """A connection. Where it is one too many, it closes the one from which nothing has come for longest.

    A client that sends half a request, or reads no answer, is found by that, too. A browser whose connection
    is closed opens another one.

    Attributes:
        heard: when something last came, by the clock of the loop.
    """

    heard = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # as uvicorn declares it
        """Take the connection, and close another one if there are too many."""
        super().connection_made(transport)
        self.heard = self.loop.time()
        while len(self.connections) > MOST:
            connections = cast("set[Connection]", self.connections)
            oldest = min(connections, key=lambda one: one.heard)
            # It leaves the set now: many may come before its transport is gone.
            connections.discard(oldest)
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take in what a client sends."""
        self.heard = self.loop.time()
        super().data_received(data)
