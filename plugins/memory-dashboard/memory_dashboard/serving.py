"""Serving the page until Ctrl-C."""

from __future__ import annotations

import asyncio
import secrets
import socket
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from starlette.types import ASGIApp

from memory_core.cli.session import Session
from memory_core.cli.streams import say
from memory_core.errors import ConfigurationError
from memory_core.memory import Memory
from memory_core.memory.opening import open_memory
from memory_dashboard.application import application
from memory_dashboard.command import Listening
from memory_dashboard.demo import make_demo
from memory_dashboard.security import Access, is_loopback

__all__ = ["serve"]

_SHORTEST_TOKEN = 16


async def serve(session: Session, store: str | None, *, demo: bool, listening: Listening) -> None:
    """Serve a store until this task is cancelled.

    Args:
        session: what the command line said.
        store: the URL of the store; ``None`` for that of the session.
        demo: whether to show the samples instead.
        listening: where, and to whom.

    Raises:
        ConfigurationError: the options do not fit together, or the port is taken.
    """
    token = listening.token
    if token is None and not is_loopback(listening.host):
        token = secrets.token_urlsafe(24)
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise ConfigurationError(f"--token: at least {_SHORTEST_TOKEN} characters")
    with _socket(listening.host, listening.port) as bound:
        async with _opened(session, store, demo=demo) as memory:
            title = "samples" if demo else (await memory.stats()).location
            access = Access.of(listening.host, token, listening.allow_host or ())
            app = application(memory, session.registry.record_types, access, title)
            host, port = listening.host, bound.getsockname()[1]
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
            bound.listen()
            say(f"{title} at {address}{'?' + urlencode({'token': token}) if token else ''}")
            await _run(app, bound)


@asynccontextmanager
async def _opened(session: Session, store: str | None, *, demo: bool) -> AsyncGenerator[Memory]:
    if not demo:
        async with session.read(store) as memory:
            yield memory
        return
    if store is not None or session.url is not None:
        raise ConfigurationError("--demo shows the samples: give no URL with it")
    with tempfile.TemporaryDirectory(prefix="memory-dashboard-") as folder:
        url = await make_demo(Path(folder), session.registry)
        async with open_memory(
            url, registry=session.registry, namespace="default", cache=None, read_only=True
        ) as memory:
            yield memory


def _socket(host: str, port: int) -> socket.socket:
    """A socket that is bound to a host and port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"--host {host} --port {port}: {error.strerror or error}"
        ) from error
    return bound


class _Server(uvicorn.Server):
    """A server that leaves signals to the command line."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take none."""
        yield


async def _run(app: ASGIApp, bound: socket.socket) -> None:
    """Serve until this task is cancelled."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        lifespan="on",
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([bound]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving
