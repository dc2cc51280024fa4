"""What a test must not leave behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil


def _sockets() -> set[int]:
    return {connection.fd for connection in psutil.Process().net_connections("tcp")}


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """Fails when tasks, threads, sockets or files are left that were not there before."""
    process = psutil.Process()
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    sockets, files = _sockets(), process.num_fds()
    yield
    # Closing a transport takes effect on the next turns of the event loop.
    for _ in range(50):
        if _sockets() <= sockets and asyncio.all_tasks() <= tasks:
            break
        await asyncio.sleep(0.01)
    assert asyncio.all_tasks() <= tasks
    left = {t for t in threading.enumerate() if not t.name.startswith("asyncio_")} - threads
    assert not left
    assert _sockets() <= sockets
    assert process.num_fds() <= files + 1
