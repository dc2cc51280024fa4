"""A bounded pool of connections that opens them ahead of demand and keeps idle ones usable.

A caller first gets a permit, in the order of requests, and then a connection: an idle one, one that is being
opened ahead, or a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeVar

import attrs

from memory_core.errors import StorageClosedError, StorageUnavailableError
from memory_storage_turso.config import KeepAliveConfig, PoolConfig
from memory_storage_turso.server.sizing import DemandForecast, PoolSizer

__all__ = ["Connection", "DemandForecast", "Pool", "PoolSizer", "PoolStats"]

_PINGS_AT_ONCE = 8
#: A ping that takes longer means that the connection is lost.
_PING_TIMEOUT = 3.0
#: In keep-alive intervals: a connection neither used nor pinged for this long is replaced ...
_STALE_AFTER = 2.25
#: ... and one may be open for this long in a pause.
_MAX_IDLE = 15


class Connection(Protocol):
    """A connection, as the pool sees it."""

    broken: bool

    async def ping(self) -> None:
        """Keep it alive, and open it to the last if it is new; raises when it is lost."""
        ...

    async def aclose(self) -> None:
        """Release it; never raises."""
        ...


C = TypeVar("C", bound=Connection)


@attrs.define(slots=True)
class PoolStats:
    """A pool's statistics.

    Attributes:
        size: Connections that the pool keeps open, or opens ahead.
        in_use: Checked-out connections.
        idle: Connections that can be checked out at once.
        waiting: Callers that wait for a connection.
        peak_in_use: The most that were ever checked out at once.
        acquired: Times a connection was checked out.
        waited: Times a caller had to wait first.
        wait_time: Total seconds that callers waited.
        longest_wait: The longest wait, in seconds.
        timeouts: Callers that waited too long.
        refused: Callers that were rejected because too many waited already.
        opened: Connections made.
        opened_ahead: Those of them that were made before a caller needed them.
        discarded: Connections found broken when they were released.
        stale_replaced: Idle connections replaced before a caller got them.
        aged_replaced: Idle connections replaced because they had been open for long.
        pings: Pings sent to idle connections.
        grown: Times the pool grew.
        shrunk: Times it shrank.
        forecast: Connections in use, or expected to be needed soon.
    """

    size: int = 0
    in_use: int = 0
    idle: int = 0
    waiting: int = 0
    peak_in_use: int = 0
    acquired: int = 0
    waited: int = 0
    wait_time: float = 0.0
    longest_wait: float = 0.0
    timeouts: int = 0
    refused: int = 0
    opened: int = 0
    opened_ahead: int = 0
    discarded: int = 0
    stale_replaced: int = 0
    aged_replaced: int = 0
    pings: int = 0
    grown: int = 0
    shrunk: int = 0
    forecast: int = 0


@attrs.define(slots=True, eq=False)
class _Idle(Generic[C]):
    connection: C
    opened_at: float
    used_at: float
    touched_at: float


class Pool(Generic[C]):
    """A pool that checks out a bounded number of connections.

    A permit is held from before a connection is looked for until the connection is released, so the bound
    holds whatever happens to the connection. Permits go to callers in the order in which they asked.

    Args:
        connect: Makes a connection.
        config: Sizes and waits.
        keepalive: How long a connection may be idle.
        longest_life: Seconds after which a connection is replaced before its next use.
        clock: Monotonic seconds.
        sizer: Decides how many connections to have open.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[C]],
        config: PoolConfig,
        keepalive: KeepAliveConfig,
        *,
        longest_life: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        sizer: PoolSizer | None = None,
    ) -> None:
        self._connect = connect
        self._config = config
        self._ping_after = keepalive.interval
        self._stale_after = _STALE_AFTER * keepalive.interval
        idle = _MAX_IDLE * keepalive.interval
        # One that may live for less would be replaced instead of used.
        self._opens_ahead = longest_life > idle
        self._longest_life = longest_life
        self._clock = clock
        self._sizer = sizer or PoolSizer(config, idle)
        self._in_use = 0
        self._checked_out: dict[C, float] = {}
        self._idle: deque[_Idle[C]] = deque()
        self._ahead: list[asyncio.Task[_Idle[C]]] = []
        self._ahead_failed = False
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._stats = PoolStats()
        self._closed = False
        self._all_returned = asyncio.Event()
        self._all_returned.set()
        self._closing: set[asyncio.Task[None]] = set()
        self._maintenance: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def acquire(
        self,
        within: float | None = None,
        around: AbstractAsyncContextManager[None] | None = None,
        *,
        younger_than: float = math.inf,
    ) -> AsyncGenerator[C]:
        """Check a connection out for the length of the context.

        An exception inside the context does not make the connection unusable: a connection knows
        by itself when it is broken.

        Args:
            within: Seconds to wait for it at most, where that is less than ``acquire_timeout``.
            around: Entered after the permit is acquired, and left before it is released: it sees the
                outcome of connecting and of using the connection, but not the waiting.
            younger_than: Seconds that it may have been open; 0 for a new one, even if others are idle.

        Raises:
            StorageClosedError: The pool is closed.
            StorageUnavailableError: No connection became free in time, or too many callers wait already.
        """
        await self._permit(within)
        self._sizer.acquired(self._clock())
        try:
            async with around or contextlib.nullcontext():
                connection, opened_at = await self._idle_or_new(younger_than)
                self._checked_out[connection] = opened_at
                try:
                    yield connection
                finally:
                    del self._checked_out[connection]
                    self._release(connection, opened_at)
        finally:
            self._sizer.released(self._clock())
            self._release_permit()

    def discard_idle(self) -> None:
        """Close all idle connections: one turned out to be lost, so they may all be."""
        while self._idle:
            self._stats.stale_replaced += 1
            self._close_later(self._idle.popleft().connection)

    async def tend(self) -> None:
        """One round of maintenance: close unused connections, open others ahead, ping idle ones.

        A ping holds a permit, so the bound holds for it too.
        """
        now = self._clock()
        self._sizer.resize(now)
        self._drop_surplus(now)
        self._open_ahead()
        due = iter([i for i in self._idle if now - i.touched_at >= self._ping_after])
        # At the same time, as each ping of a server that hangs takes the whole timeout.
        await asyncio.gather(*(self._ping_each(due) for _ in range(_PINGS_AT_ONCE)))

    def stats(self) -> PoolStats:
        """The statistics as they are now."""
        return attrs.evolve(
            self._stats,
            size=self._sizer.size,
            in_use=self._in_use,
            idle=len(self._idle),
            waiting=len(self._waiters),
            grown=self._sizer.grown,
            shrunk=self._sizer.shrunk,
            forecast=self._sizer.forecast,
        )

    def refuse(self) -> None:
        """Stop checking connections out; waiting callers are rejected."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(StorageClosedError("the connection pool is closed"))

    async def aclose(self) -> None:
        """Reject waiting callers, wait for connections in use, close everything. Idempotent."""
        self.refuse()
        if self._maintenance is not None:
            self._maintenance.cancel()
            await asyncio.wait([self._maintenance])
        while self._ahead:
            self._ahead[0].cancel()
            await asyncio.wait(self._ahead[:1])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_timeout):
                await self._all_returned.wait()
        for connection in self._checked_out:
            connection.broken = True
            self._close_later(connection)
        while self._idle:
            self._close_later(self._idle.popleft().connection)
        while self._closing:
            await asyncio.wait(self._closing)

    async def _permit(self, within: float | None) -> None:
        self._check_open()
        self._start_maintenance()
        if self._in_use < self._config.max_size and not self._waiters:
            self._take_permit()
        else:
            timeout = self._config.acquire_timeout
            await self._wait_for_permit(timeout if within is None else min(timeout, within))
        self._stats.acquired += 1

    async def _wait_for_permit(self, longest: float) -> None:
        if len(self._waiters) >= self._config.max_waiting:
            self._stats.refused += 1
            msg = f"{len(self._waiters)} callers are already waiting for a connection"
            raise StorageUnavailableError(msg)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        started = self._clock()
        self._stats.waited += 1
        try:
            async with asyncio.timeout(longest):
                await waiter
        except BaseException as error:
            self._give_up(waiter)
            if not isinstance(error, TimeoutError):
                raise
            self._stats.timeouts += 1
            msg = f"no connection became free within {longest:g} s"
            raise StorageUnavailableError(msg) from None
        finally:
            waited = self._clock() - started
            self._stats.wait_time += waited
            self._stats.longest_wait = max(self._stats.longest_wait, waited)

    def _give_up(self, waiter: asyncio.Future[None]) -> None:
        granted = waiter.done() and not waiter.cancelled() and waiter.exception() is None
        if granted:
            # The permit came in the same tick as the cancellation: the next caller gets it.
            self._release_permit()
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)

    def _take_permit(self) -> None:
        self._in_use += 1
        self._all_returned.clear()
        self._stats.peak_in_use = max(self._stats.peak_in_use, self._in_use)

    def _release_permit(self) -> None:
        self._in_use -= 1
        self._grant()
        if self._in_use == 0:
            self._all_returned.set()

    def _grant(self) -> None:
        while self._waiters and self._in_use < self._config.max_size:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._take_permit()
                waiter.set_result(None)

    async def _idle_or_new(self, younger_than: float) -> tuple[C, float]:
        self._check_open()
        now = self._clock()
        while self._idle and younger_than > 0:
            # The most recently used one is the least likely to be stale.
            idle = self._idle.pop()
            stale = idle.connection.broken or now - idle.touched_at >= self._stale_after
            aged = self._has_aged(idle, now)
            if not stale and not aged and now - idle.opened_at < younger_than:
                return idle.connection, idle.opened_at
            self._stats.stale_replaced += stale
            self._stats.aged_replaced += not stale
            self._close_later(idle.connection)
            if not stale and not aged:
                # The others may be older, and are good enough for other calls.
                break
        if self._ahead and younger_than > 0:
            # It is there sooner than one that is only begun now.
            joined = await self._ahead.pop(0)
            return joined.connection, joined.opened_at
        return await self._open()

    def _has_aged(self, idle: _Idle[C], now: float) -> bool:
        return now - idle.opened_at >= self._longest_life

    async def _open(self) -> tuple[C, float]:
        # As it was before: what it sees is no older.
        now = self._clock()
        connection = await self._connect()
        self._stats.opened += 1
        return connection, now

    def _open_ahead(self) -> None:
        lacking = self._sizer.size - self._in_use - len(self._idle) - len(self._ahead)
        if not self._opens_ahead or self._closed:
            return
        # A server that did not answer is tried by one.
        for _ in range(min(lacking, 1) if self._ahead_failed else lacking):
            task = asyncio.get_running_loop().create_task(self._opened_ahead())
            self._ahead.append(task)
            task.add_done_callback(self._came_ahead)

    async def _opened_ahead(self) -> _Idle[C]:
        connection, opened_at = await self._open()
        try:
            # Over HTTP the first request opens the stream, and the socket where there is none.
            await connection.ping()
        except BaseException:
            self._close_later(connection)
            raise
        self._stats.opened_ahead += 1
        now = self._clock()
        return _Idle(connection, opened_at, used_at=now, touched_at=now)

    def _came_ahead(self, task: asyncio.Task[_Idle[C]]) -> None:
        failed = task.cancelled() or task.exception() is not None
        self._ahead_failed = failed and not task.cancelled()
        if task not in self._ahead:
            # A caller waits for it, and gets its error.
            return
        self._ahead.remove(task)
        if failed:
            return
        if self._closed:
            self._close_later(task.result().connection)
        else:
            self._idle.appendleft(task.result())

    def _release(self, connection: C, opened_at: float) -> None:
        if connection.broken or self._closed:
            self._stats.discarded += connection.broken
            self._close_later(connection)
            return
        now = self._clock()
        self._idle.append(_Idle(connection, opened_at, used_at=now, touched_at=now))

    async def _ping_each(self, due: Iterator[_Idle[C]]) -> None:
        for idle in due:
            if self._in_use >= self._config.max_size or idle not in self._idle:
                continue
            self._idle.remove(idle)
            self._take_permit()
            try:
                await self._ping(idle)
            finally:
                self._release_permit()

    async def _ping(self, idle: _Idle[C]) -> None:
        self._stats.pings += 1
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                await idle.connection.ping()
        except asyncio.CancelledError:
            self._close_later(idle.connection)
            raise
        except Exception:  # noqa: BLE001 - any failure means that the connection did not answer
            self._stats.stale_replaced += 1
            self._close_later(idle.connection)
            return
        idle.touched_at = self._clock()
        if self._closed or idle.connection.broken:
            self._close_later(idle.connection)
        else:
            self._idle.appendleft(idle)

    def _drop_surplus(self, now: float) -> None:
        for idle in [idle for idle in self._idle if self._has_aged(idle, now)]:
            self._stats.aged_replaced += 1
            self._idle.remove(idle)
            self._close_later(idle.connection)

        while self._idle and self._in_use + len(self._idle) > self._sizer.size:
            oldest = min(self._idle, key=lambda idle: idle.used_at)
            self._idle.remove(oldest)
            self._close_later(oldest.connection)

    def _close_later(self, connection: C) -> None:
        task = asyncio.get_running_loop().create_task(connection.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _start_maintenance(self) -> None:
        if self._maintenance is None:
            self._maintenance = asyncio.get_running_loop().create_task(self._maintain())

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(self._ping_after / 2)
            await self.tend()

    def _check_open(self) -> None:
        if self._closed:
            msg = "the connection pool is closed"
            raise StorageClosedError(msg)
