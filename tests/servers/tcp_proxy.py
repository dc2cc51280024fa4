"""A TCP proxy that can delay, throttle, stall, cut and reset what passes through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Literal

HOST = "127.0.0.1"
_CHUNK = 16 * 1024
_LINE = 1024
Direction = Literal["up", "down"]


class TcpProxy:
    """Passes connections on to a target; what is wrong with the network is set by attributes.

    Attributes:
        latency: Seconds that bytes take longer, each way.
        bytes_per_second: Throughput of each connection and direction; None for no bound.
        up: Whether new connections are accepted and passed on.
        stalled: Directions in which bytes are swallowed up and kept until `resume`.
        passed: Pieces passed on so far, in each direction.
        held: Pieces that are ready to be passed on and wait for `resume`, in each direction.
        accepted: Connections accepted so far, those behind a handshake that failed not counted.

    Args:
        target_port: Where to pass them on to.
        tls: Ends TLS here; what is passed on is in the clear.
    """

    def __init__(self, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.target_port = target_port
        self._tls = tls
        self.latency = 0.0
        self.bytes_per_second: float | None = None
        self.up = True
        self.accepted = 0
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}
        self.held: dict[Direction, int] = {"up": 0, "down": 0}
        self.port = 0
        self._flowing: dict[Direction, asyncio.Event] = {
            "up": asyncio.Event(),
            "down": asyncio.Event(),
        }
        self.resume()
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._accept, HOST, self.port, ssl=self._tls)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
        self.cut()
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def cut(self, *, reset: bool = True) -> None:
        """End every open connection, by RST or by FIN."""
        for writer in list(self._writers):
            _end(writer, reset=reset)

    def stall(self, direction: Direction) -> None:
        """Keep what arrives in this direction until `resume`; connections stay open."""
        self._flowing[direction].clear()

    def resume(self) -> None:
        """Let everything flow again."""
        for flowing in self._flowing.values():
            flowing.set()

    def heal(self) -> None:
        """Undo every fault."""
        self.latency = 0.0
        self.bytes_per_second = None
        self.up = True
        self.resume()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        if task is None or not self.up:
            _end(writer, reset=True)
            return
        self._links.add(task)
        try:
            await self._link(reader, writer)
        except asyncio.CancelledError:
            # Cancelled by `stop` only: the stream server would report it as an error.
            return
        finally:
            self._links.discard(task)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target_port)
        except OSError:
            _end(writer, reset=True)
            return
        self._writers |= {writer, far_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, "up"))
                group.create_task(self._pump(far_reader, writer, "down"))
        finally:
            self._writers -= {writer, far_writer}
            _end(writer, reset=False)
            _end(far_writer, reset=False)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, direction: Direction
    ) -> None:
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_LINE)
        reading = asyncio.create_task(self._take_in(source, line))
        try:
            with contextlib.suppress(OSError):
                await self._send_on(line, sink, direction)
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            # One side ended: end the other, as a router that lost its state would.
            _end(sink, reset=False)

    async def _take_in(
        self, source: asyncio.StreamReader, line: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        """Note when each chunk is due: chunks that travel at the same time are late only once."""
        chunk = b" "
        while chunk:
            try:
                chunk = await source.read(_CHUNK)
            except OSError:
                chunk = b""
            await line.put((asyncio.get_running_loop().time() + self.latency, chunk))

    async def _send_on(
        self,
        line: asyncio.Queue[tuple[float, bytes]],
        sink: asyncio.StreamWriter,
        direction: Direction,
    ) -> None:
        while True:
            due, chunk = await line.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            if not chunk:
                return
            if self.bytes_per_second:
                await asyncio.sleep(len(chunk) / self.bytes_per_second)
            self.held[direction] += 1
            try:
                await self._flowing[direction].wait()
            finally:
                self.held[direction] -= 1
            sink.write(chunk)
            self.passed[direction] += 1
            await sink.drain()


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    sock = writer.get_extra_info("socket")
    if reset and sock is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    writer.close()


@contextlib.asynccontextmanager
async def running_proxy(
    target_port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[TcpProxy]:
    """A proxy in front of a loopback port, while the context is open."""
    proxy = TcpProxy(target_port, tls)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
