"""The pool: its bound binds, its queue is fair, cancellation loses nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from memory_core.errors import StorageClosedError, StorageUnavailableError
from memory_storage_turso.config import KeepAliveConfig, PoolConfig
from memory_storage_turso.server.pool import Pool
from tests.servers.waiting import until

QUIET = KeepAliveConfig(interval=1000)


class FakeConnection:
    def __init__(self, owner: FakeServer) -> None:
        self.broken = False
        self.pings = 0
        self._owner = owner
        owner.open += 1
        owner.most_open = max(owner.most_open, owner.open)

    async def ping(self) -> None:
        self.pings += 1
        if self._owner.hangs is not None:
            await self._owner.hangs.wait()
        if not self._owner.answers:
            msg = "lost"
            raise OSError(msg)

    async def aclose(self) -> None:
        self._owner.open -= 1


class FakeServer:
    def __init__(self) -> None:
        self.open = 0
        self.most_open = 0
        self.answers = True
        self.hangs: asyncio.Event | None = None
        self.refuses = False
        self.made = 0

    async def connect(self) -> FakeConnection:
        await asyncio.sleep(0)
        if self.refuses:
            msg = "refused"
            raise OSError(msg)
        self.made += 1
        return FakeConnection(self)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


def fixed(size: int, **options: float) -> PoolConfig:
    return PoolConfig(min_size=size, max_size=size, **options)  # pyright: ignore[reportArgumentType] - numbers all


async def test_bound_binds_while_connections_are_out(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(3), QUIET)
    most = out = 0

    async def use() -> None:
        nonlocal most, out
        async with pool.acquire():
            out += 1
            most = max(most, out)
            await asyncio.sleep(0.001)
            out -= 1

    await asyncio.gather(*(use() for _ in range(50)))
    assert most == 3
    assert server.most_open == 3
    stats = pool.stats()
    assert (stats.peak_in_use, stats.acquired, stats.in_use) == (3, 50, 0)
    assert stats.waited == 47
    assert stats.wait_time >= stats.longest_wait > 0
    await pool.aclose()
    assert server.open == 0


async def test_first_come_first_served(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(1), QUIET)
    order: list[int] = []

    async def use(number: int) -> None:
        async with pool.acquire():
            order.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(number) for number in range(20)))
    assert order == list(range(20))
    await pool.aclose()


async def test_waiting_too_long_is_an_error_and_costs_no_permit(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(1, acquire_timeout=0.02), QUIET)
    async with pool.acquire():
        with pytest.raises(StorageUnavailableError, match="within"):
            async with pool.acquire():
                pass
    async with pool.acquire():
        pass
    assert pool.stats().timeouts == 1
    assert pool.stats().waiting == 0
    await pool.aclose()


async def test_one_caller_too_many_is_rejected_at_once(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(1, max_waiting=2), QUIET)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pool.acquire())
        waiting = [asyncio.ensure_future(_once(pool)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StorageUnavailableError, match="already"):
            await _once(pool)
    await asyncio.gather(*waiting)
    assert pool.stats().refused == 1
    await pool.aclose()


async def _once(pool: Pool[FakeConnection]) -> None:
    async with pool.acquire():
        await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(6))
async def test_cancelled_acquire_loses_no_permit(server: FakeServer, turns: int) -> None:
    pool = Pool(server.connect, fixed(2), QUIET)
    for _ in range(20):
        tasks = [asyncio.ensure_future(_once(pool)) for _ in range(6)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks[1::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert pool.stats().in_use == 0
        assert pool.stats().waiting == 0
    async with pool.acquire(), pool.acquire():
        assert pool.stats().in_use == 2
    await pool.aclose()
    assert server.open == 0


async def test_failing_to_connect_costs_no_permit(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(1), QUIET)
    server.refuses = True
    for _ in range(3):
        with pytest.raises(OSError, match="refused"):
            await _once(pool)
    server.refuses = False
    await _once(pool)
    await pool.aclose()


async def test_broken_connection_is_not_handed_out_again(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(1), QUIET)
    async with pool.acquire() as first:
        first.broken = True
    async with pool.acquire() as second:
        assert second is not first
    assert pool.stats().discarded == 1
    await pool.aclose()
    assert server.open == 0


async def test_stale_connection_is_replaced_before_a_caller_gets_it(server: FakeServer) -> None:
    clock = Clock()
    pool = Pool(server.connect, fixed(1), KeepAliveConfig(), clock=clock)
    async with pool.acquire() as first:
        pass
    clock.now += 10
    async with pool.acquire() as second:
        assert second is not first
    assert pool.stats().stale_replaced == 1
    await pool.aclose()


async def test_idle_connection_is_pinged_and_stays(server: FakeServer) -> None:
    clock = Clock()
    pool = Pool(server.connect, fixed(1), KeepAliveConfig(), clock=clock)
    async with pool.acquire() as first:
        pass
    for _ in range(5):
        clock.now += 5
        await pool.tend()
    async with pool.acquire() as second:
        assert second is first
    assert first.pings == pool.stats().pings == 5
    await pool.aclose()


async def test_a_connection_that_broke_while_idle_is_not_handed_out(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(1), QUIET)
    async with pool.acquire() as first:
        pass
    first.broken = True
    async with pool.acquire() as second:
        assert second is not first
    await pool.aclose()
    assert server.open == 0


async def test_no_ping_takes_a_connection_beyond_the_bound(server: FakeServer) -> None:
    clock = Clock()
    pool = Pool(server.connect, fixed(1), KeepAliveConfig(), clock=clock)
    await _once(pool)
    async with pool.acquire(younger_than=0) as only:
        clock.now += 5
        await pool.tend()
        assert pool.stats().pings == only.pings == 0
    await pool.aclose()


async def test_lost_idle_connection_is_dropped_by_its_ping(server: FakeServer) -> None:
    clock = Clock()
    pool = Pool(server.connect, fixed(1), KeepAliveConfig(), clock=clock)
    await _once(pool)
    server.answers = False
    clock.now += 5
    await pool.tend()
    assert pool.stats().idle == 0
    assert pool.stats().stale_replaced == 1
    await pool.aclose()
    assert server.open == 0


async def test_idle_connections_of_a_hung_server_are_pinged_at_the_same_time(
    server: FakeServer,
) -> None:
    clock = Clock()
    pool = Pool(server.connect, fixed(32), KeepAliveConfig(), clock=clock)
    async with AsyncExitStack() as stack:
        for _ in range(32):
            await stack.enter_async_context(pool.acquire())
    server.hangs = asyncio.Event()
    clock.now += 5
    tending = asyncio.ensure_future(pool.tend())
    await until(lambda: pool.stats().pings > 4)
    # Not all of them: callers find free connections meanwhile.
    assert pool.stats().pings == pool.stats().in_use < 16
    await _once(pool)
    server.hangs.set()
    await tending
    assert pool.stats().pings == 31
    assert pool.stats().idle == 32
    await pool.aclose()
    assert server.open == 0


async def test_a_fresh_connection_is_not_an_idle_one(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(4), QUIET)
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(pool.acquire()) for _ in range(3)]
    async with pool.acquire(younger_than=0) as fresh:
        assert fresh not in idle
    pool.discard_idle()
    assert pool.stats().idle == 0
    await pool.aclose()
    assert server.open == 0


async def test_unused_connections_are_closed_down_to_the_minimum(server: FakeServer) -> None:
    clock = Clock()
    config = PoolConfig(min_size=1, max_size=8)
    pool = Pool(server.connect, config, KeepAliveConfig(), clock=clock)
    async with AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(pool.acquire())
    assert server.open == 6
    for _ in range(20):
        clock.now += 4
        await pool.tend()
        await asyncio.sleep(0)
    assert server.open == 1
    assert pool.stats().size == 1
    assert pool.stats().shrunk >= 1
    await pool.aclose()


async def test_closing_waits_for_what_is_in_use(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(1), QUIET)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with pool.acquire():
            entered.set()
            await leave.wait()

    holding = asyncio.ensure_future(hold())
    await entered.wait()
    waiting = asyncio.ensure_future(_once(pool))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(pool.aclose())
    with pytest.raises(StorageClosedError):
        await waiting
    assert not closing.done()
    leave.set()
    await asyncio.gather(holding, closing)
    assert server.open == 0
    with pytest.raises(StorageClosedError):
        await _once(pool)
    await pool.aclose()


async def test_closing_does_not_wait_for_ever(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(1, drain_timeout=0.02), QUIET)
    leave = asyncio.Event()

    async def hold() -> None:
        async with pool.acquire():
            await leave.wait()

    holding = asyncio.ensure_future(hold())
    await until(lambda: pool.stats().in_use == 1)
    await pool.aclose()
    assert not holding.done()
    leave.set()
    await holding


async def test_pool_grows_with_demand_up_to_its_bound(server: FakeServer) -> None:
    pool = Pool(server.connect, PoolConfig(min_size=1, max_size=5), QUIET)
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(pool.acquire())
        assert pool.stats().waited == 0
        waiting = asyncio.ensure_future(_once(pool))
        await asyncio.sleep(0)
        assert pool.stats().waiting == 1
    await waiting
    assert server.most_open == 5
    await pool.aclose()


async def test_a_ping_takes_no_connection_beyond_the_bound(server: FakeServer) -> None:
    clock = Clock()
    pool = Pool(server.connect, fixed(2), KeepAliveConfig(), clock=clock)
    await _once(pool)
    async with pool.acquire(younger_than=0), pool.acquire(younger_than=0):
        clock.now += 5
        await pool.tend()
        # Every permit is taken: the idle one is left alone.
        assert (pool.stats().in_use, pool.stats().pings) == (2, 0)
    server.hangs = asyncio.Event()
    clock.now += 5
    tending = asyncio.ensure_future(pool.tend())
    await until(lambda: pool.stats().pings == 2)
    assert pool.stats().in_use == 2
    calling = asyncio.ensure_future(_once(pool))
    await until(lambda: pool.stats().waiting == 1)
    server.hangs.set()
    await asyncio.gather(tending, calling)
    assert pool.stats().peak_in_use == 2
    await pool.aclose()


async def test_an_idle_pool_keeps_its_smallest_size(server: FakeServer) -> None:
    clock = Clock()
    pool = Pool(server.connect, PoolConfig(min_size=2, max_size=8), KeepAliveConfig(), clock=clock)
    async with AsyncExitStack() as stack:
        for _ in range(6):
            await stack.enter_async_context(pool.acquire())
    for _ in range(100):
        clock.now += 4
        await pool.tend()
    assert pool.stats().idle == server.open == 2
    await pool.aclose()
    assert server.open == 0


async def test_a_connection_is_used_for_as_long_as_it_may_live(server: FakeServer) -> None:
    clock = Clock()
    pool = Pool(server.connect, fixed(2), KeepAliveConfig(), longest_life=1.0, clock=clock)
    async with pool.acquire() as first:
        # What counts is its age, not when it was last used.
        clock.now += 0.6
    async with pool.acquire() as again:
        assert again is first
        clock.now += 0.6
    async with pool.acquire() as second:
        assert second is not first
    assert (pool.stats().aged_replaced, pool.stats().stale_replaced) == (1, 0)
    clock.now += 2
    await pool.tend()
    assert (pool.stats().idle, pool.stats().aged_replaced, pool.stats().pings) == (0, 2, 0)
    await pool.aclose()
    assert server.open == 0


async def test_a_call_that_needs_a_younger_connection_leaves_the_older_ones_to_others(
    server: FakeServer,
) -> None:
    clock = Clock()
    pool = Pool(server.connect, fixed(2), KeepAliveConfig(), longest_life=1.0, clock=clock)
    async with pool.acquire() as first, pool.acquire() as second:
        clock.now += 0.5
    async with pool.acquire(younger_than=0.1) as young:
        assert young not in (first, second)
        async with pool.acquire() as old:
            # The one that was on top has made room.
            assert old in (first, second)
    assert pool.stats().aged_replaced == 1
    await pool.aclose()
    assert server.open == 0


async def burst(pool: Pool[FakeConnection], calls: int) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(calls):
            await stack.enter_async_context(pool.acquire())


async def settled(pool: Pool[FakeConnection]) -> None:
    await pool.tend()
    for _ in range(5):
        await asyncio.sleep(0)


async def rounds(pool: Pool[FakeConnection], clock: Clock, calls: int) -> None:
    """Bursts every two minutes, and one pause more."""
    for _ in range(5):
        await burst(pool, calls)
        for _ in range(60):
            clock.now += 2
            await settled(pool)


async def test_connections_that_are_needed_in_rounds_are_open_before(server: FakeServer) -> None:
    clock = Clock()
    pool = Pool(server.connect, PoolConfig(max_size=8), KeepAliveConfig(), clock=clock)
    await rounds(pool, clock, 6)
    stats = pool.stats()
    assert (stats.idle, stats.size, stats.forecast) == (6, 6, 6)
    made = server.made
    await burst(pool, 6)
    assert server.made == made
    assert pool.stats().opened_ahead >= 6
    assert server.most_open == 6
    await pool.aclose()
    assert server.open == 0


async def test_a_pool_opens_its_smallest_size(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(4), QUIET)
    await _once(pool)
    await settled(pool)
    assert (pool.stats().idle, server.open, pool.stats().opened_ahead) == (4, 4, 3)
    await pool.aclose()
    assert server.open == 0


async def test_a_caller_joins_a_connection_that_is_being_opened(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(2), QUIET)
    server.hangs = asyncio.Event()
    await pool.tend()
    calling = asyncio.ensure_future(_once(pool))
    cancelled = asyncio.ensure_future(_once(pool))
    await until(lambda: server.made == pool.stats().in_use == 2)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    server.hangs.set()
    await calling
    await until(lambda: server.open == 1)
    assert server.made == 2
    await pool.aclose()
    assert server.open == 0


async def test_a_server_that_did_not_answer_is_tried_by_one(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(4), QUIET)
    server.answers = False
    await settled(pool)
    assert (server.made, server.open) == (4, 0)
    await settled(pool)
    assert (server.made, server.open) == (5, 0)
    server.answers = True
    await settled(pool)
    await settled(pool)
    assert pool.stats().idle == server.open == 4
    await pool.aclose()


async def test_a_caller_gets_the_error_of_the_connection_that_it_joined(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(1), QUIET)
    server.answers = False
    server.hangs = asyncio.Event()
    await pool.tend()
    calling = asyncio.ensure_future(_once(pool))
    await until(lambda: server.made == pool.stats().in_use == 1)
    server.hangs.set()
    with pytest.raises(OSError, match="lost"):
        await calling
    assert pool.stats().in_use == 0
    await pool.aclose()
    assert server.open == 0


async def test_closing_ends_what_is_being_opened(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(3), QUIET)
    server.hangs = asyncio.Event()
    await pool.tend()
    await until(lambda: server.made == 3)
    await pool.aclose()
    assert server.open == 0


async def test_connections_of_a_short_life_are_not_opened_ahead(server: FakeServer) -> None:
    pool = Pool(server.connect, fixed(4), KeepAliveConfig(), longest_life=1.0)
    await settled(pool)
    assert server.made == 0
    await pool.aclose()
