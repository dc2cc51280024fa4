"""The pool: permits, a first-come queue for them, and the connections they stand for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeVar

import attrs

from memory_core.errors import StorageClosedError, StorageUnavailableError
from memory_storage_turso.server.pool.sizing import PoolSizer
from memory_storage_turso.server_config import KeepAliveConfig, PoolConfig

_PINGS_AT_ONCE = 8


class Connection(Protocol):
    """What a pool needs to know of a connection."""

    broken: bool

    async def ping(self) -> None:
        """Keep it alive; raises when it is lost."""
        ...

    async def aclose(self) -> None:
        """Let go of it; never raises."""
        ...


C = TypeVar("C", bound=Connection)


@attrs.frozen(slots=True)
class PoolStats:
    """A pool's figures.

    Attributes:
        size: Connections there may be now.
        in_use: Connections handed out and not yet returned.
        idle: Connections ready to be handed out.
        waiting: Callers that wait for one.
        peak_in_use: The most that were ever handed out at once.
        acquired: Times one was handed out.
        waited: Times a caller had to wait first.
        wait_time: Seconds callers waited altogether.
        longest_wait: The longest any of them waited, in seconds.
        timeouts: Callers that waited too long.
        refused: Callers that were refused because too many waited already.
        opened: Connections made.
        discarded: Connections found broken when they were returned.
        stale_replaced: Idle connections replaced before anyone met them.
        pings: Pings sent to idle connections.
        grown: Times the pool grew.
        shrunk: Times it shrank.
        forecast: Connections expected to be wanted soon.
    """

    size: int
    in_use: int
    idle: int
    waiting: int
    peak_in_use: int
    acquired: int
    waited: int
    wait_time: float
    longest_wait: float
    timeouts: int
    refused: int
    opened: int
    discarded: int
    stale_replaced: int
    pings: int
    grown: int
    shrunk: int
    forecast: float


@attrs.define(slots=True, eq=False)
class _Idle(Generic[C]):
    connection: C
    used_at: float
    touched_at: float


@attrs.define(slots=True)
class _Counters:
    peak_in_use: int = 0
    acquired: int = 0
    waited: int = 0
    wait_time: float = 0.0
    longest_wait: float = 0.0
    timeouts: int = 0
    refused: int = 0
    opened: int = 0
    discarded: int = 0
    stale_replaced: int = 0
    pings: int = 0


class Pool(Generic[C]):
    """Hands out connections, at most as many as it may have.

    A permit is held from before a connection is looked for until it is back, so the bound binds
    whatever happens to the connection. Permits go to callers in the order they came.

    Args:
        connect: Makes a connection.
        config: Sizes and waits.
        keepalive: Idle times.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[C]],
        config: PoolConfig,
        keepalive: KeepAliveConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._config = config
        self._keepalive = keepalive
        self._clock = clock
        self._sizer = PoolSizer(config, clock())
        self._in_use = 0
        self._leased: set[C] = set()
        self._idle: deque[_Idle[C]] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._counters = _Counters()
        self._closed = False
        self._all_returned = asyncio.Event()
        self._all_returned.set()
        self._closing: set[asyncio.Task[None]] = set()
        self._maintenance: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def lease(
        self,
        within: float | None = None,
        around: AbstractAsyncContextManager[None] | None = None,
        *,
        fresh: bool = False,
    ) -> AsyncGenerator[C]:
        """A connection for the length of the context.

        Whoever leaves by an exception that is not the connection's fault returns it in working
        order; a connection knows by itself when it is broken.

        Args:
            within: Seconds to wait for it at most, where that is less than ``acquire_timeout``.
            around: Entered once there is a permit, and left before that is given back: it sees how
                connecting and using the connection end, and nothing of waiting.
            fresh: Make a new one, whatever is idle.

        Raises:
            StorageClosedError: The pool is closed.
            StorageUnavailableError: None became free in time, or too many wait already.
        """
        await self._permit(within)
        try:
            async with around or contextlib.nullcontext():
                connection = await (self._open() if fresh else self._take())
                self._leased.add(connection)
                try:
                    yield connection
                finally:
                    self._leased.discard(connection)
                    self._put_back(connection)
        finally:
            self._return_permit()

    def discard_idle(self) -> None:
        """Give up what is idle now: one of them turned out to be lost, and so may they all be."""
        while self._idle:
            self._counters.stale_replaced += 1
            self._close_later(self._idle.popleft().connection)

    async def tend(self) -> None:
        """One round of maintenance: replace the stale, ping the idle, close the unused.

        A pinged connection takes a permit meanwhile, so the bound holds for it too.
        """
        now = self._clock()
        self._resize(now)
        self._drop_surplus(now)
        due = iter([i for i in self._idle if now - i.touched_at >= self._keepalive.interval])
        # Beside each other, as those of a server that hangs would take a timeout each.
        await asyncio.gather(*(self._ping_each(due) for _ in range(_PINGS_AT_ONCE)))

    def stats(self) -> PoolStats:
        """The figures as they are now."""
        counted = attrs.asdict(self._counters)
        return PoolStats(
            size=self._sizer.size,
            in_use=self._in_use,
            idle=len(self._idle),
            waiting=len(self._waiters),
            grown=self._sizer.grown,
            shrunk=self._sizer.shrunk,
            forecast=self._sizer.forecast,
            **counted,
        )

    def refuse(self) -> None:
        """Hand nothing out any more, also to who waits."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(StorageClosedError("the connection pool is closed"))

    async def aclose(self) -> None:
        """Refuse who waits, wait for what is in use, close everything. Idempotent."""
        self.refuse()
        if self._maintenance is not None:
            self._maintenance.cancel()
            await asyncio.wait([self._maintenance])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_timeout):
                await self._all_returned.wait()
        for connection in self._leased:
            connection.broken = True
            self._close_later(connection)
        while self._idle:
            self._close_later(self._idle.popleft().connection)
        while self._closing:
            await asyncio.wait(self._closing)

    async def _permit(self, within: float | None) -> None:
        self._check_open()
        self._start_maintenance()
        self._resize(self._clock(), joining=1)
        if self._in_use < self._sizer.size and not self._waiters:
            self._take_permit()
        else:
            patience = self._config.acquire_timeout
            await self._wait_for_permit(patience if within is None else min(patience, within))
        self._counters.acquired += 1

    async def _wait_for_permit(self, patience: float) -> None:
        if len(self._waiters) >= self._config.max_waiting:
            self._counters.refused += 1
            msg = f"{len(self._waiters)} callers wait for a connection already"
            raise StorageUnavailableError(msg)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        started = self._clock()
        self._counters.waited += 1
        try:
            async with asyncio.timeout(patience):
                await waiter
        except BaseException as error:
            self._give_up(waiter)
            if not isinstance(error, TimeoutError):
                raise
            self._counters.timeouts += 1
            msg = f"no connection became free within {patience:g} s"
            raise StorageUnavailableError(msg) from None
        finally:
            waited = self._clock() - started
            self._counters.wait_time += waited
            self._counters.longest_wait = max(self._counters.longest_wait, waited)

    def _give_up(self, waiter: asyncio.Future[None]) -> None:
        granted = waiter.done() and not waiter.cancelled() and waiter.exception() is None
        if granted:
            # The permit came in the same tick as the cancellation: pass it on.
            self._return_permit()
        with contextlib.suppress(ValueError):
            self._waiters.remove(waiter)

    def _take_permit(self) -> None:
        self._in_use += 1
        self._all_returned.clear()
        self._counters.peak_in_use = max(self._counters.peak_in_use, self._in_use)

    def _return_permit(self) -> None:
        self._in_use -= 1
        self._resize(self._clock())
        self._grant()
        if self._in_use == 0:
            self._all_returned.set()

    def _grant(self) -> None:
        while self._waiters and self._in_use < self._sizer.size:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._take_permit()
                waiter.set_result(None)

    def _resize(self, now: float, joining: int = 0) -> None:
        demand = self._in_use + len(self._waiters) + joining
        if self._sizer.observe(demand, now):
            self._grant()

    async def _take(self) -> C:
        self._check_open()
        now = self._clock()
        while self._idle:
            # The one used last is the least likely to be stale.
            idle = self._idle.pop()
            if now - idle.touched_at < self._keepalive.stale_after and not idle.connection.broken:
                return idle.connection
            self._counters.stale_replaced += 1
            self._close_later(idle.connection)
        return await self._open()

    async def _open(self) -> C:
        connection = await self._connect()
        self._counters.opened += 1
        return connection

    def _put_back(self, connection: C) -> None:
        if connection.broken or self._closed:
            self._counters.discarded += connection.broken
            self._close_later(connection)
            return
        now = self._clock()
        self._idle.append(_Idle(connection, used_at=now, touched_at=now))

    async def _ping_each(self, due: Iterator[_Idle[C]]) -> None:
        for idle in due:
            if self._in_use >= self._sizer.size or idle not in self._idle:
                continue
            self._idle.remove(idle)
            self._take_permit()
            try:
                await self._ping(idle)
            finally:
                self._return_permit()

    async def _ping(self, idle: _Idle[C]) -> None:
        self._counters.pings += 1
        try:
            async with asyncio.timeout(self._keepalive.timeout):
                await idle.connection.ping()
        except asyncio.CancelledError:
            self._close_later(idle.connection)
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the connection did not answer
            self._counters.stale_replaced += 1
            self._close_later(idle.connection)
            return
        idle.touched_at = self._clock()
        if self._closed or idle.connection.broken:
            self._close_later(idle.connection)
        else:
            self._idle.appendleft(idle)

    def _drop_surplus(self, now: float) -> None:
        def unused(idle: _Idle[C]) -> bool:
            surplus = self._in_use + len(self._idle) > self._sizer.size
            spare = self._in_use + len(self._idle) > self._config.min_size
            return surplus or (spare and now - idle.used_at >= self._keepalive.max_idle)

        while self._idle and unused(oldest := min(self._idle, key=lambda i: i.used_at)):
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
            await asyncio.sleep(self._keepalive.interval / 2)
            await self.tend()

    def _check_open(self) -> None:
        if self._closed:
            msg = "the connection pool is closed"
            raise StorageClosedError(msg)
