"""sqld as a context manager: start, kill, restart, wait until it answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.servers.install import find_sqld
from tests.servers.ports import HOST, held_port, number_of
from tests.servers.tokens import PUBLIC_KEY


def require_sqld() -> Path:
    """The binary; without one the test is skipped, or fails where ``CI=true``."""
    if (found := find_sqld()) is not None:
        return found
    reason = "no sqld: run `python -m tests.servers.install` or set MEMORY_CORE_SQLD"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Sqld:
    """One sqld process and its data folder; the ports stay the same over restarts, until `release`."""

    def __init__(
        self,
        folder: Path,
        *,
        primary_grpc: int | None = None,
        auth: bool = False,
        namespaces: bool = False,
        extra: tuple[str, ...] = (),
    ) -> None:
        self.binary = require_sqld()
        self.folder = folder
        self._held = [held_port() for _ in range(3)]
        self.port, self.grpc_port, self.admin_port = map(number_of, self._held)
        self._process: subprocess.Popen[bytes] | None = None
        self._arguments = [
            "--no-welcome",
            "--disable-metrics",
            *("--db-path", str(folder / "data")),
            *("--http-listen-addr", f"{HOST}:{self.port}"),
            *extra,
        ]
        if primary_grpc is None:
            self._arguments += ["--grpc-listen-addr", f"{HOST}:{self.grpc_port}"]
        else:
            self._arguments += ["--primary-grpc-url", f"http://{HOST}:{primary_grpc}"]
        if auth:
            key = folder / "jwt.key"
            folder.mkdir(parents=True, exist_ok=True)
            key.write_text(PUBLIC_KEY)
            self._arguments += ["--auth-jwt-key-file", str(key)]
        if namespaces:
            self._arguments += [
                "--enable-namespaces",
                # Beyond this many sqld closes one to open another, and then may not find it.
                *("--max-active-namespaces", "5000"),
                *("--admin-listen-addr", f"{HOST}:{self.admin_port}"),
            ]

    @property
    def http_url(self) -> str:
        """The URL of the HTTP driver."""
        return f"turso+http://{HOST}:{self.port}"

    @property
    def ws_url(self) -> str:
        """The URL of the WebSocket driver."""
        return f"turso+ws://{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Start the process and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = self._launch()
        await self.wait_ready()

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self.folder / "sqld.log").open("ab") as log:
            return subprocess.Popen(
                [str(self.binary), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )

    async def wait_ready(self, within: float = 30.0) -> None:
        """Return when ``/health`` answers; raise when the process ended or time is up."""
        async with asyncio.timeout(within):
            while not await self._healthy():
                if not self.running:
                    msg = f"sqld ended: {(self.folder / 'sqld.log').read_text()[-2000:]}"
                    raise RuntimeError(msg)
                await asyncio.sleep(0.02)

    async def _healthy(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        try:
            writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def kill(self) -> None:
        """End it without any notice, as a crash would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to end; kill it when it takes too long."""
        await self._end(signal.SIGTERM)

    def release(self) -> None:
        """Release the ports; it cannot be started any more."""
        for holder in self._held:
            holder.close()

    def freeze(self) -> None:
        """Keep the process from running, connections left open."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)
            # Until every thread of it has stopped, it may still answer.
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen process go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    async def restart(self) -> None:
        """Kill it and start it again on the same data and ports."""
        await self.kill()
        await self.start()

    async def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sign)
        for _ in range(500):
            if process.poll() is not None:
                return
            await asyncio.sleep(0.01)
        process.kill()
        process.wait()

    async def create_namespace(self, name: str) -> None:
        """Create a database of its own for a tenant, through the admin API."""
        reader, writer = await asyncio.open_connection(HOST, self.admin_port)
        writer.write(
            f"POST /v1/namespaces/{name}/create HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".encode()
        )
        status = await reader.readline()
        writer.close()
        if b" 200 " not in status:
            msg = f"namespace {name} was not created: {status.decode()}"
            raise RuntimeError(msg)


@contextlib.asynccontextmanager
async def running_sqld(
    folder: Path,
    *,
    primary_grpc: int | None = None,
    auth: bool = False,
    namespaces: bool = False,
    extra: tuple[str, ...] = (),
) -> AsyncIterator[Sqld]:
    """A server that runs while the context is open.

    Args:
        folder: For its data and log.
        primary_grpc: The primary's gRPC port; makes it a replica.
        auth: Require a JWT of `tests.servers.tokens`.
        namespaces: One database per tenant, and the admin API.
        extra: Further command line arguments.
    """
    server = Sqld(folder, primary_grpc=primary_grpc, auth=auth, namespaces=namespaces, extra=extra)
    try:
        await server.start()
        yield server
    finally:
        await server.kill()
        server.release()
