"""A relay in front of a server, which breaks a connection as it commits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum

__all__ = ["Moment", "Relay"]

_CHUNK = 1 << 16
_HOST = "127.0.0.1"


class Moment(StrEnum):
    """When a connection breaks."""

    BEFORE = "before"
    """The request to commit never arrives."""
    AFTER = "after"
    """It is carried out, and the answer is lost."""
    LATE = "late"
    """The client is cut off, and the request arrives when `Relay.deliver` is called."""


class Relay:
    """Passes connections on to a server.

    Args:
        host: of the server.
        port: of the server.
        marker: what a request that commits contains.

    Attributes:
        broken: how many connections it has broken.
    """

    def __init__(self, host: str, port: int, marker: bytes) -> None:
        self._server = host, port
        self._marker = marker
        self._armed: Moment | None = None
        self._held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._links: set[asyncio.Task[None]] = set()
        self.broken = 0
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, host: str, port: int, marker: bytes) -> AsyncGenerator[Relay]:
        """A relay that listens on a free port until the context ends."""
        relay = cls(host, port, marker)
        listening = await asyncio.start_server(relay._accept, _HOST, 0)
        relay.port = listening.sockets[0].getsockname()[1]
        try:
            yield relay
        finally:
            listening.close()
            for writer, _ in relay._held:
                writer.close()
            for link in list(relay._links):
                link.cancel()
            await asyncio.gather(*relay._links, return_exceptions=True)

    def through(self, location: str) -> str:
        """A location, with the relay's address in the place of the server's."""
        address = ":".join(map(str, self._server))
        assert address in location, f"{location} does not contain {address}"
        return location.replace(address, f"{_HOST}:{self.port}")

    def arm(self, moment: Moment) -> None:
        """Break the connection of the next request that commits."""
        self._armed = moment

    async def deliver(self) -> None:
        """Let requests arrive that were held back, and give the server time for them."""
        while self._held:
            writer, request = self._held.pop()
            with suppress(OSError):
                writer.write(request)
                await writer.drain()
                await asyncio.sleep(0.5)
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            await self._pass_on(reader, writer)
        except asyncio.CancelledError:
            return  # at the end of the context: the stream's server would report it as an error
        finally:
            self._links.discard(link)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._server)
        except OSError:
            return
        link = _Link(self._marker, writer, far_writer)
        answers = asyncio.create_task(link.answers(far_reader))
        try:
            with suppress(OSError):
                await self._requests(link, reader)
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            if all(held is not far_writer for held, _ in self._held):
                far_writer.close()

    async def _requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while request := await reader.read(_CHUNK):
            if self._armed is None or not link.commits(request):
                link.server.write(request)
                await link.server.drain()
                continue
            moment, self._armed = self._armed, None
            self.broken += 1
            if moment is Moment.AFTER:
                link.answered.clear()
                link.delivers = False
                link.server.write(request)
                await link.answered.wait()
            elif moment is Moment.LATE:
                self._held.append((link.server, request))
            return


class _Link:
    """A connection of a client, and the one to the server."""

    def __init__(
        self, marker: bytes, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        self._marker = marker
        self._last = b""
        self._client = client
        self.server = server
        self.delivers = True
        self.answered = asyncio.Event()

    def commits(self, request: bytes) -> bool:
        """Whether a request commits, of which this is the next part."""
        seen = self._last + request
        self._last = seen[1 - len(self._marker) :]
        return self._marker in seen

    async def answers(self, reader: asyncio.StreamReader) -> None:
        """Pass answers on."""
        with suppress(OSError):
            while answer := await reader.read(_CHUNK):
                self.answered.set()
                if self.delivers:
                    self._client.write(answer)
                    await self._client.drain()
        self.answered.set()
        self._client.close()
