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
from memory_dashboard.connections import MOST, Connection
from memory_dashboard.demo import make_demo
from memory_dashboard.replacing import Files, replaced, store_files
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
    if token is not None and not (token.isascii() and token.isprintable()):
        raise ConfigurationError("--token: letters, digits and signs of ASCII, as headers carry it")
    access = Access.of(listening.host, token, listening.allow_host or ())
    with _socket(listening.host, listening.port) as bound:
        address = _address(listening.host, bound.getsockname()[1], token)
        said = f"at {address}"
        while True:
            async with _opened(session, store, demo=demo) as memory:
                stats = await memory.stats()
                title = "samples" if demo else stats.location
                app = application(memory, session.registry.record_types, access, title)
                _listen(bound, listening)
                say(f"{title} {said} (Ctrl-C stops it)")
                if not await _run(app, bound.dup(), store_files(stats)):
                    return
            said = f"was replaced: the other store is shown at {address}"


def _address(host: str, port: int, token: str | None) -> str:
    """The address to open."""
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    return address if token is None else f"{address}?{urlencode({'token': token})}"


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
    except (OSError, UnicodeError) as error:
        raise _not_taken(host, port, error) from error
    return bound


def _listen(bound: socket.socket, listening: Listening) -> None:
    try:
        bound.listen(MOST)
    except OSError as error:
        # Another program has begun to listen there since the port was bound.
        raise _not_taken(listening.host, listening.port, error) from error


def _not_taken(host: str, port: int, error: OSError | UnicodeError) -> ConfigurationError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return ConfigurationError(f"--host {host} --port {port}: {reason}")


class _Server(uvicorn.Server):
    """A server that leaves signals to the command line."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Take none."""
        yield


async def _run(app: ASGIApp, bound: socket.socket, files: Files) -> bool:
    """Serve until this task is cancelled, or the store's files are replaced; return whether they were."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        backlog=MOST,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        lifespan="on",
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve([bound]))
    watching = asyncio.create_task(replaced(files))
    try:
        ended, _ = await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
        return watching in ended
    finally:
        watching.cancel()
        server.should_exit = True
        await serving
