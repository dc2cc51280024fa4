"""Child processes for the kit: forked, in milliseconds, by a server that has imported everything.

The server has one thread and no event loop and opens no store, so that forking it is safe. Run as
``python -m memory_core.testing.checks.forking`` by ``ForkServer``; POSIX only.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Any, Protocol, Self

from memory_core.config import StorageURL
from memory_core.memory.opening import open_storage
from memory_core.plugins import PluginRegistry, load_class
from memory_core.storage import Storage
from memory_core.testing.data.kinds import kit_context

__all__ = ["Emit", "ForkServer", "Work", "Worker", "load", "open_target"]

_PATIENCE = 60.0
_STARTED, _SAID, _ENDED = "started", "said", "ended"


class Emit(Protocol):
    """Sends a line to the parent immediately."""

    def __call__(self, line: str) -> None:
        """Send it."""
        ...


class Work(Protocol):
    """The work of a child: a module's function, which gets JSON values."""

    def __call__(self, emit: Emit, *arguments: Any) -> None:
        """Do it."""
        ...


async def open_target(spec: str, location: str) -> Storage:
    """Open a store in this process.

    Args:
        spec: ``"module:Class"`` of a backend's test suite, or "" where the location is a URL.
        location: the location for the suite, or the URL.
    """
    if spec:
        return await load(spec).open(location, context=kit_context())
    return await open_storage(location, registry=_registry())


@lru_cache(maxsize=1)
def _registry() -> PluginRegistry:
    return PluginRegistry()


def _preload(spec: str, location: str) -> None:
    """Import the modules that opening the store needs."""
    if spec:
        load(spec)
    else:
        factory = _registry().storage(StorageURL.parse(location).scheme)
        load_class(factory.target, extra=factory.extra)
        load_class(factory.config, extra=factory.extra)


class Worker:
    """A child of the server.

    Attributes:
        pid: its process.
        status: its exit status from ``os.waitpid``, once it has ended.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def lines(self) -> Iterator[str]:
        """The lines that it sends, until it ends."""
        while (line := self._lines.get(timeout=_PATIENCE)) is not None:
            yield line
        # For the next who asks.
        self._lines.put(None)

    def kill(self) -> None:
        """End it as a power switch would (``kill -9``)."""
        if self.status is None:
            # It may have ended by itself, with the notice still on its way.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def told(self, line: str) -> None:
        """Queue a line that it sent."""
        self._lines.put(line)

    def ended(self, status: int) -> None:
        """Record that it has ended."""
        self.status = status
        self._lines.put(None)


class ForkServer:
    """Starts workers; a context manager.

    Args:
        spec: of what the workers will open, to be imported in advance; as for ``open_target``.
        location: its location.
    """

    def __init__(self, spec: str = "", location: str = "inmemory:") -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "memory_core.testing.checks.forking", spec, location],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._workers: dict[int, Worker] = {}
        self._started: queue.SimpleQueue[Worker | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True, name="kit fork server")
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, work: str, *arguments: Any) -> Worker:
        """Run ``work``, the ``"module:function"`` of a ``Work``, in a child process.

        Raises:
            RuntimeError: the server has ended.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([work, arguments]) + "\n")
        self._process.stdin.flush()
        worker = self._started.get(timeout=_PATIENCE)
        if worker is None:
            raise RuntimeError(f"the server of child processes has ended; it was to run {work}")
        return worker

    def close(self) -> None:
        """Kill the workers that are left, and end."""
        for worker in list(self._workers.values()):
            worker.kill()
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._reader.join(_PATIENCE)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            what, pid, rest = line.rstrip("\n").split(" ", 2)
            if what == _STARTED:
                self._workers[int(pid)] = worker = Worker(int(pid))
                self._started.put(worker)
            elif what == _SAID:
                self._workers[int(pid)].told(rest)
            else:
                self._workers.pop(int(pid)).ended(int(rest))
        self._started.put(None)


def load(path: str) -> Any:
    """What ``"module:name"`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _send(what: str, pid: int, text: str) -> None:
    # One write of less than PIPE_BUF bytes is atomic: the lines of several children do not mix.
    os.write(1, f"{what} {pid} {text}\n".encode())


def _serve() -> None:
    _preload(*sys.argv[1:3])
    reaper = _Reaper()
    for request in iter(reaper.readline, ""):
        name, arguments = json.loads(request)
        work = load(name)
        pid = os.fork()
        if not pid:
            _run(work, arguments)
    reaper.reap(block=True)


def _run(work: Work, arguments: list[Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    pid, status = os.getpid(), 1
    # Sent here and not by the server, whose notice could arrive after the worker's first line.
    _send(_STARTED, pid, "")
    try:
        work(lambda line: _send(_SAID, pid, line), *arguments)
        status = 0
    except BaseException:  # noqa: BLE001  # the process ends here, whatever it is
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _wake_up(_number: int, _frame: Any) -> None:
    """A handler that does nothing: having one makes Python write to the wake-up pipe."""


class _Reaper:
    """Reads requests and, in between, collects children that ended."""

    def __init__(self) -> None:
        self._wake, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        signal.signal(signal.SIGCHLD, _wake_up)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._buffer = b""

    def readline(self) -> str:
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([0, self._wake], [], [])
            if self._wake in ready:
                os.read(self._wake, 4096)
                self.reap()
            if 0 in ready:
                chunk = os.read(0, 65_536)
                if not chunk:
                    return ""
                self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    @staticmethod
    def reap(*, block: bool = False) -> None:
        """Report the children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            _send(_ENDED, pid, str(status))


if __name__ == "__main__":
    _serve()
