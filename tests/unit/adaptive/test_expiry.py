"""Expired entries are removed without being asked for: with a background task, and without."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref

import pytest

from memory_storage_lmdb.adaptive import AdaptiveCache
from memory_storage_lmdb.adaptive.entry import Entry
from memory_storage_lmdb.adaptive.expiry import ExpiryWheel
from tests.unit.adaptive.driving import Driven, FakeClock, FakeMemory, entry, key

# Where expiry is wrong, what waits for it must not wait for the limit of all tests.
pytestmark = pytest.mark.timeout(30)


def waiting(number: int, due: float) -> Entry:
    return Entry(key(number), number, 1, due=due)


def test_the_wheel_passes_on_what_is_due_and_nothing_else() -> None:
    rng = random.Random(3)
    wheel = ExpiryWheel(0.5, 100.0)
    entries = [waiting(number, 100 + rng.random() * 1000) for number in range(2000)]
    for one in entries:
        wheel.schedule(one)
    cancelled = set(rng.sample(range(2000), 200))
    for number in cancelled:
        wheel.cancel(entries[number])
    now, handed = 100.0, set()
    while now < 1120:
        now += rng.random() * 40
        due: list[Entry] = []
        assert not wheel.advance(now, 10_000, due.append)
        assert all(one.due <= now for one in due)
        handed |= {one.value for one in due}
        late = [one for one in entries if one.due < now - 1 and one.value not in handed | cancelled]
        assert not late
    assert handed == set(range(2000)) - cancelled


def test_the_wheel_does_no_more_than_it_is_asked() -> None:
    wheel = ExpiryWheel(1.0, 0.0)
    for number in range(100):
        wheel.schedule(waiting(number, 1.0))
    due: list[Entry] = []
    assert wheel.advance(10.0, 30, due.append)
    assert len(due) == 30
    assert not wheel.advance(10.0, 1000, due.append)
    assert len(due) == 100


@pytest.mark.parametrize("idle", [255.0, 256.0, 257.0, 1e9])
def test_the_wheel_survives_a_long_pause(idle: float) -> None:
    wheel = ExpiryWheel(1.0, 0.0)
    wheel.schedule(waiting(1, 10.0))
    wheel.schedule(waiting(2, 2e9))
    wheel.schedule(waiting(3, float("inf")))
    due: list[Entry] = []
    wheel.advance(idle, 100, due.append)
    assert [one.value for one in due] == [1]
    for _ in range(2):
        wheel.advance(2.1e9, 100, due.append)
        wheel.advance(2.1e9 + 300, 100, due.append)
    assert [one.value for one in due] == [1, 2]


def test_a_bucket_that_is_over_is_not_used_again() -> None:
    wheel = ExpiryWheel(1.0, 0.0)
    wheel.advance(50.0, 100, lambda _: None)
    wheel.schedule(waiting(1, 3.0))  # already due when it comes
    due: list[Entry] = []
    wheel.advance(51.0, 100, due.append)
    assert [one.value for one in due] == [1]


def test_without_a_loop_expired_entries_leave_as_others_come() -> None:
    driven = Driven(interval=1.0)
    driven.put(*[entry(number, ttl=5.0) for number in range(200)])
    driven.clock.advance(10)
    for number in range(1000, 1010):
        driven.put(entry(number))
    assert driven.statistic("entries") == 10
    assert driven.statistic("expirations") == 200


async def test_a_task_removes_them_without_any_call() -> None:
    clock = FakeClock()
    cache = AdaptiveCache(clock=clock, memory=FakeMemory(None), interval=0.001)
    before = asyncio.all_tasks()
    await cache.set_many([entry(number, ttl=5.0) for number in range(2000)])
    (task,) = asyncio.all_tasks() - before
    clock.advance(10)
    async with asyncio.timeout(20):
        await task  # it ends when nothing is left
    assert not cache._table
    assert cache.stats().counters["expirations"] == 2000
    await cache.aclose()


async def test_the_task_ends_with_the_cache() -> None:
    before = asyncio.all_tasks()
    cache = AdaptiveCache()
    assert asyncio.all_tasks() == before, "nothing runs before there is something to look after"
    await cache.set_many([entry(1)])
    assert len(asyncio.all_tasks() - before) == 1
    await cache.set_many([entry(2)])
    assert len(asyncio.all_tasks() - before) == 1
    await cache.aclose()
    assert asyncio.all_tasks() == before
    await cache.set_many([entry(3)])
    assert asyncio.all_tasks() == before


async def test_the_task_ends_when_nothing_is_left_and_starts_again() -> None:
    before = asyncio.all_tasks()
    cache = AdaptiveCache(memory=FakeMemory(None), interval=0.001)
    for _ in range(2):
        await cache.set_many([entry(1)])
        (task,) = asyncio.all_tasks() - before
        await cache.clear()
        async with asyncio.timeout(20):
            await task
    await cache.aclose()


async def test_the_task_does_not_keep_an_abandoned_cache_alive() -> None:
    cache = AdaptiveCache(memory=FakeMemory(None), interval=0.001)
    before = asyncio.all_tasks()
    await cache.set_many([entry(1)])
    (task,) = asyncio.all_tasks() - before
    abandoned = weakref.ref(cache)
    del cache
    gc.collect()
    assert abandoned() is None
    async with asyncio.timeout(20):
        await task


def test_a_cache_may_be_used_in_one_loop_after_another() -> None:
    cache = AdaptiveCache(memory=FakeMemory(None), interval=0.001)
    seen = []

    async def use() -> None:
        await cache.set_many([entry(1)])
        seen.append(cache._sweeper.running)

    asyncio.run(use())
    asyncio.run(use())
    assert seen == [True, True]
    asyncio.run(cache.aclose())
    assert not cache._sweeper.running


async def test_closing_twice_at_once_is_fine() -> None:
    cache = AdaptiveCache()
    await cache.set_many([entry(1)])
    await asyncio.gather(cache.aclose(), cache.aclose())
    assert not cache._sweeper.running
