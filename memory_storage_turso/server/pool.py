"""A bounded pool of connections that sizes itself and keeps idle connections usable.

A caller first gets a permit, in the order of requests, and then a connection. The number of permits
follows a forecast of demand.
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

_PINGS_AT_ONCE = 8
#: A ping that takes longer means that the connection is lost.
_PING_TIMEOUT = 3.0
#: In keep-alive intervals: a connection neither used nor pinged for this long is replaced ...
_STALE_AFTER = 2.25
#: ... and one unused for this long is closed.
_MAX_IDLE = 15

#: Seconds of demand that make one sample.
_SAMPLE = 0.1
#: Samples for which demand is forecast.
_AHEAD = 5
#: Share of the connections that should be in use at forecast demand.
_TARGET_UTILISATION = 0.7
#: Utilisation under which the pool shrinks.
_SHRINK_BELOW = 0.35
#: Seconds that have to pass after any change of size before the pool shrinks.
_SHRINK_COOLDOWN = 10.0
#: Weight of the newest sample in the level and in the trend.
_LEVEL_WEIGHT = 0.5
_TREND_WEIGHT = 0.3
#: What is left of the trend after each further step.
_DAMPING = 0.7
_MAX_IDLE_STEPS = 64


class Connection(Protocol):
    """A connection, as the pool sees it."""

    broken: bool

    async def ping(self) -> None:
        """Keep it alive; raises when it is lost."""
        ...

    async def aclose(self) -> None:
        """Release it; never raises."""
        ...


C = TypeVar("C", bound=Connection)


@attrs.define(slots=True)
class PoolStats:
    """A pool's statistics.

    Attributes:
        size: The current limit of connections.
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
        discarded: Connections found broken when they were released.
        stale_replaced: Idle connections replaced before a caller got them.
        aged_replaced: Idle connections replaced because they had been open for long.
        pings: Pings sent to idle connections.
        grown: Times the pool grew.
        shrunk: Times it shrank.
        forecast: Connections that are expected to be needed soon.
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
    discarded: int = 0
    stale_replaced: int = 0
    aged_replaced: int = 0
    pings: int = 0
    grown: int = 0
    shrunk: int = 0
    forecast: float = 0.0


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
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[C]],
        config: PoolConfig,
        keepalive: KeepAliveConfig,
        *,
        longest_life: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._config = config
        self._ping_after = keepalive.interval
        self._stale_after = _STALE_AFTER * keepalive.interval
        self._max_idle = _MAX_IDLE * keepalive.interval
        self._longest_life = longest_life
        self._clock = clock
        self._sizer = PoolSizer(config, clock())
        self._in_use = 0
        self._checked_out: dict[C, float] = {}
        self._idle: deque[_Idle[C]] = deque()
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
            self._release_permit()

    def discard_idle(self) -> None:
        """Close all idle connections: one turned out to be lost, so they may all be."""
        while self._idle:
            self._stats.stale_replaced += 1
            self._close_later(self._idle.popleft().connection)

    async def tend(self) -> None:
        """One round of maintenance: close unused connections, ping idle ones, close lost ones.

        A ping holds a permit, so the bound holds for it too.
        """
        now = self._clock()
        self._resize(now)
        self._drop_surplus(now)
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
        self._resize(self._clock(), joining=1)
        if self._in_use < self._sizer.size and not self._waiters:
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
        return await self._open()

    def _has_aged(self, idle: _Idle[C], now: float) -> bool:
        return now - idle.opened_at >= self._longest_life

    async def _open(self) -> tuple[C, float]:
        # As it was before: what it sees is no older.
        now = self._clock()
        connection = await self._connect()
        self._stats.opened += 1
        return connection, now

    def _release(self, connection: C, opened_at: float) -> None:
        if connection.broken or self._closed:
            self._stats.discarded += connection.broken
            self._close_later(connection)
            return
        now = self._clock()
        self._idle.append(_Idle(connection, opened_at, used_at=now, touched_at=now))

    async def _ping_each(self, due: Iterator[_Idle[C]]) -> None:
        for idle in due:
            if self._in_use >= self._sizer.size or idle not in self._idle:
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

        def unused(idle: _Idle[C]) -> bool:
            surplus = self._in_use + len(self._idle) > self._sizer.size
            spare = self._in_use + len(self._idle) > self._config.min_size
            return surplus or (spare and now - idle.used_at >= self._max_idle)

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
            await asyncio.sleep(self._ping_after / 2)
            await self.tend()

    def _check_open(self) -> None:
        if self._closed:
            msg = "the connection pool is closed"
            raise StorageClosedError(msg)


class DemandForecast:
    """Double exponential smoothing with a damped trend, which overshoots less after a jump.

    C. C. Holt, "Forecasting seasonals and trends by exponentially weighted moving averages",
    ONR Memorandum 52, 1957; E. S. Gardner and E. McKenzie, "Forecasting trends in time series",
    Management Science 31 (1985).
    """

    def __init__(self) -> None:
        self.level = 0.0
        self.trend = 0.0

    def observe(self, demand: float) -> None:
        """Add the next sample; samples are evenly spaced."""
        previous, trend = self.level, _DAMPING * self.trend
        self.level = _LEVEL_WEIGHT * demand + (1 - _LEVEL_WEIGHT) * (previous + trend)
        self.trend = _TREND_WEIGHT * (self.level - previous) + (1 - _TREND_WEIGHT) * trend

    def ahead(self, steps: float) -> float:
        """Demand this many samples from now; never below zero."""
        reach = _DAMPING * (1 - _DAMPING**steps) / (1 - _DAMPING)
        return max(self.level + reach * self.trend, 0.0)


class PoolSizer:
    """Decides the size of a pool from the demand it sees.

    Demand is the most connections that were in use or waited for at once during a sample. The
    pool grows as soon as forecast demand would use more than the target share of it, and shrinks
    only when utilisation is under a lower bound and some time has passed since the last change;
    between the two bounds its size stays.

    Attributes:
        size: How many connections there may be now.
        grown: Times it grew.
        shrunk: Times it shrank.
    """

    def __init__(self, config: PoolConfig, now: float) -> None:
        self.size = config.min_size
        self.grown = 0
        self.shrunk = 0
        self._config = config
        self._forecast = DemandForecast()
        self._peak = 0
        self._sample_ends = now + _SAMPLE
        self._changed_at = now

    @property
    def forecast(self) -> float:
        """Connections that are expected to be needed soon."""
        return self._forecast.ahead(_AHEAD)

    def observe(self, demand: int, now: float) -> bool:
        """Record how many connections are in use or waited for at this moment.

        Returns:
            Whether the size changed.
        """
        self._peak = max(self._peak, demand)
        if now < self._sample_ends:
            # With a queue, grow before the sample ends.
            return demand > self.size and self._grow(demand, now)
        self._close_sample(demand, now)
        wanted = max(self.forecast, demand)
        if wanted > self.size * _TARGET_UTILISATION:
            return self._grow(wanted / _TARGET_UTILISATION, now)
        if wanted < self.size * _SHRINK_BELOW:
            return self._shrink(wanted / _TARGET_UTILISATION, now)
        return False

    def _close_sample(self, demand: int, now: float) -> None:
        elapsed = int((now - self._sample_ends) / _SAMPLE)
        self._forecast.observe(self._peak)
        # The samples that passed since then had no demand.
        for _ in range(min(elapsed, _MAX_IDLE_STEPS)):
            self._forecast.observe(0)
        self._peak = demand
        self._sample_ends = now + _SAMPLE

    def _grow(self, wanted: float, now: float) -> bool:
        size = min(math.ceil(wanted), self._config.max_size)
        if size <= self.size:
            return False
        self.size = size
        self.grown += 1
        self._changed_at = now
        return True

    def _shrink(self, wanted: float, now: float) -> bool:
        if now - self._changed_at < _SHRINK_COOLDOWN:
            return False
        # At most by half at once: paused demand often comes back.
        size = max(math.ceil(wanted), math.ceil(self.size / 2), self._config.min_size)
        if size >= self.size:
            return False
        self.size = size
        self.shrunk += 1
        self._changed_at = now
        return True
