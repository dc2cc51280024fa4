"""Handles on a store: bound to a namespace, owned by one event loop, closed once, dead after a fork.

A backend keeps what its handles share in a subclass of `SharedState`, and derives its storage from `Handle`,
whose methods begin with ``shared = self._opened()``, or where they write with ``shared = self._writable()``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Generic, Self, TypeVar

from memory_core.backend.turns import Turns
from memory_core.errors import ReadOnlyError, StorageClosedError, WrongEventLoopError
from memory_core.metrics import StoreMetrics
from memory_core.storage import check_namespace

__all__ = ["Handle", "LoopOwner", "SharedState"]

_running_loop = asyncio._get_running_loop  # noqa: SLF001  # `get_running_loop`, without an exception
_forks = 0
"""How many forks this process descends from; compared in less time than a process id is asked for."""


def _forked() -> None:
    global _forks  # noqa: PLW0603  # one process, one number
    _forks += 1


os.register_at_fork(after_in_child=_forked)


class LoopOwner:
    """Belongs to the event loop that first used it, in the process that made it."""

    def __init__(self) -> None:
        self._forks = _forks
        # Made outside a loop, it belongs to the first that uses it.
        self._loop: asyncio.AbstractEventLoop | None = None
        # While a loop runs in a thread, no other can. Comparing the thread and asking the loop takes less
        # than half as long as asyncio's look-up of the running loop, which asks for the process id.
        self._thread = 0
        self._runs: Callable[[], bool] = bool
        if (running := _running_loop()) is not None:
            self._belong_to(running)

    def _belong_to(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._thread, self._runs = loop, get_ident(), loop.is_running

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that made it."""
        return self._forks != _forks

    def check_owner(self) -> None:
        """Check that it may be used here.

        Raises:
            StorageClosedError: in a process that was forked since.
            WrongEventLoopError: in another event loop.
        """
        if self._forks != _forks:
            raise StorageClosedError(
                "the storage was opened before a fork: open it again in this process"
            )
        running = _running_loop()
        if running is None:
            return
        if self._loop is not None and self._loop is not running:
            raise WrongEventLoopError(
                "the storage belongs to the event loop that opened it: open it again in this one"
            )
        self._belong_to(running)

    def owner_has_ended(self) -> bool:
        """Whether its loop has ended, so that nothing can be awaited there.

        Raises:
            WrongEventLoopError: this is another loop, and the owner still runs.
        """
        running = _running_loop()
        if self._loop is None or self._loop is running:
            return False
        if self._loop.is_running():
            self.check_owner()
        return True


class SharedState(LoopOwner):
    """What all handles on one open store share; a backend derives its own.

    Args:
        counters: names of what is counted, from 0.
        read_only: whether its handles reject writes.

    Attributes:
        counters: operations since the store was opened, by name.
        metrics: what the store counts, by section; its ``stats`` shows it.
        read_only: whether its handles reject writes.
    """

    def __init__(self, counters: Iterable[str] = (), *, read_only: bool = False) -> None:
        super().__init__()
        self.read_only = read_only
        self.counters: dict[str, int] = dict.fromkeys(counters, 0)
        self.metrics = StoreMetrics()
        self._closed = False
        self._closing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Finish what was accepted, then release everything. Called once; a backend implements it."""

    def abandon(self) -> None:
        """Release everything without awaiting: the loop has ended, and with it what was in-flight.
        Called at most once; a backend implements it.
        """

    def begin_closing(self) -> None:
        """Reject calls from now on."""
        self._closed = True

    async def closed(self) -> None:
        """Close once, whichever handle asks and however often. Cancelling the caller does not stop the close.

        Raises:
            WrongEventLoopError: the owner's loop still runs, and is not this one.
        """
        if self.forked:
            # Threads, tasks and locks belong to the parent.
            self._closed = True
            return
        if self.owner_has_ended():
            if not self._closed or self._closing is not None:
                self._closed, self._closing = True, None
                self.abandon()
            return
        self.begin_closing()
        if self._closing is None:
            self._closing = asyncio.create_task(self.close(), name="memory-core close")
        await asyncio.shield(self._closing)

    def check(self) -> None:
        """Check that the store may be used here and now.

        Raises:
            StorageClosedError: it is closed, or was opened before a fork.
            WrongEventLoopError: it belongs to another event loop.
        """
        if self._closed:
            raise StorageClosedError("the storage is closed")
        self.check_owner()


S = TypeVar("S", bound=SharedState)


class Handle(Turns, Generic[S]):
    """A handle on a store, bound to one namespace.

    Args:
        shared: what the handles share.
        namespace: the namespace.
        owner: whether closing this handle closes the store; `scoped` makes handles that do not.
    """

    def __init__(self, shared: S, namespace: str, *, owner: bool = True) -> None:
        self._bind(shared, namespace, owner=owner)

    def _bind(self, shared: S, namespace: str, *, owner: bool) -> None:
        self._shared = shared
        self._namespace = check_namespace(namespace)
        self._owner = owner
        self._closed = False

    @property
    def namespace(self) -> str:
        """The namespace this handle is bound to."""
        return self._namespace

    @property
    def metrics(self) -> StoreMetrics:
        """What the store counts."""
        return self._shared.metrics

    def scoped(self, namespace: str) -> Self:
        """A handle on the same store, bound to another namespace."""
        self._opened()
        handle = object.__new__(type(self))
        handle._bind(self._shared, namespace, owner=False)
        return handle

    async def aclose(self) -> None:
        """Close this handle; the one that was opened closes the store. Idempotent.

        Raises:
            WrongEventLoopError: from another event loop, as long as the owner's runs.
        """
        shared = self._shared
        if self._owner and not shared.forked:
            # A call that may not close it leaves the handle open.
            shared.owner_has_ended()
        self._closed = True
        if self._owner:
            await shared.closed()

    def _opened(self) -> S:
        """The shared state, if this handle may be used. Raises like `SharedState.check`."""
        shared = self._shared
        # Every cached read comes here, and each further call would cost it a tenth of a microsecond.
        if (
            shared._thread != get_ident()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # two classes of one subject
            or not shared._runs()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # two classes of one subject
            or shared._forks != _forks  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # two classes of one subject
            or shared._closed  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # two classes of one subject
            or self._closed
        ):
            if self._closed:
                raise StorageClosedError("the storage is closed")
            shared.check()
        return shared

    def _writable(self) -> S:
        """The shared state, if this handle may write. Raises like `_opened`, and ``ReadOnlyError``."""
        shared = self._opened()
        if shared.read_only:
            raise ReadOnlyError
        return shared
