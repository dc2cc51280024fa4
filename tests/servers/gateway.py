"""An HTTP gateway in front of a server, which can tamper with what passes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web

HOST = "127.0.0.1"

#: Gets the path and the answer of the server behind, and gives the answer to send on.
Tamper = Callable[[str, bytes], tuple[int, bytes] | web.Response]


class Gateway:
    """Forwards requests to a server.

    Attributes:
        hide: A path prefix the gateway has no route for; an empty 404.
        tamper: What to send instead of the server's answer; it has been executed by then.
        most_bytes: The largest request that it takes; a larger one is answered by 413.
        requests: Paths and headers seen.
        sizes: Bytes of the requests' bodies.
    """

    def __init__(self, target_port: int) -> None:
        self.hide: str | None = None
        self.tamper: Tamper | None = None
        self.most_bytes: int | None = None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sizes: list[int] = []
        self.port = 0
        self._target = f"http://{HOST}:{target_port}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Forward one request."""
        self.requests.append((request.path, dict(request.headers)))
        if self.hide is not None and request.path.startswith(self.hide):
            return web.Response(status=404)
        body = await request.read()
        self.sizes.append(len(body))
        if self.most_bytes is not None and len(body) > self.most_bytes:
            return web.Response(status=413, text="<html>413 Request Entity Too Large</html>")
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, self._target + request.path, data=io.BytesIO(body), headers=headers
            ) as answer,
        ):
            content = await answer.read()
            status, kind = answer.status, answer.content_type
        if self.tamper is not None:
            tampered = self.tamper(request.path, content)
            if isinstance(tampered, web.Response):
                return tampered
            status, content = tampered
        return web.Response(status=status, body=content, content_type=kind)


@contextlib.asynccontextmanager
async def running_gateway(target_port: int) -> AsyncIterator[Gateway]:
    """A gateway in front of a loopback port, while the context is open."""
    gateway = Gateway(target_port)
    application = web.Application(client_max_size=64 << 20)
    application.router.add_route("*", "/{path:.*}", gateway.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    gateway.port = int(runner.addresses[0][1])
    try:
        yield gateway
    finally:
        await runner.cleanup()
