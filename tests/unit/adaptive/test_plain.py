"""The caches of cachetools under the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memory_core.cache import Cache
from memory_core.testing import CacheSuite
from memory_storage_lmdb.adaptive.plain import LFU, LRU, TTL, PlainConfig, TTLConfig
from tests.unit.adaptive.driving import FakeClock, entry, key, run

Make = Callable[..., Any]


def lru(clock: FakeClock, **options: Any) -> LRU:
    return LRU(PlainConfig(**options), clock=clock)


def lfu(clock: FakeClock, **options: Any) -> LFU:
    return LFU(PlainConfig(**options), clock=clock)


def ttl(clock: FakeClock, **options: Any) -> TTL:
    return TTL(TTLConfig(**options), clock=clock)


every = pytest.mark.parametrize("make", [lru, lfu, ttl])


def get(cache: Any, number: int) -> Any:
    return run(cache.get_many([key(number)]))[0]


@every
def test_it_keeps_the_contract(make: Make) -> None:
    cache = make(FakeClock())
    assert isinstance(cache, Cache)
    assert cache.holds == "objects"
    run(
        cache.set_many([entry(1, "old"), entry(1, "a"), entry(2, "b"), entry(3, namespace="other")])
    )
    assert run(cache.get_many([key(2), key(9), key(1)])) == ["b", None, "a"]
    run(cache.delete_many([key(1), key(9)], "write"))
    assert get(cache, 1) is None
    run(cache.clear("other"))
    assert run(cache.get_many([key(3, namespace="other"), key(2)])) == [None, "b"]
    stats = cache.stats()
    assert stats.name == make.__name__
    assert (stats.hits, stats.misses, stats.entries) == (3, 3, 1)
    assert stats.counters["insertions"] == 4
    assert stats.counters["invalidations_write"] == 1
    assert stats.counters["invalidations_cleared"] == 1
    run(cache.aclose())
    run(cache.aclose())
    assert get(cache, 2) is None


@every
def test_budgets(make: Make) -> None:
    cache = make(FakeClock(), max_entries=3)
    for number in range(10):
        run(cache.set_many([entry(number)]))
        assert cache.stats().entries <= 3
    assert cache.stats().counters["evictions"] == 7
    cache = make(FakeClock(), max_bytes=10_000)
    for number in range(10):
        run(cache.set_many([entry(number, size=2_000)]))
        assert cache.stats().bytes <= 10_000
    assert cache.stats().counters["evictions"] == 10 - cache.stats().entries
    run(cache.set_many([entry(9, "too large", size=10_000)]))
    assert get(cache, 9) is None, "and the value before it is gone"
    assert cache.stats().counters["admissions_refused"] == 1


@every
def test_times_to_live_are_exact(make: Make) -> None:
    clock = FakeClock(0.0)
    cache = make(clock)
    run(cache.set_many([entry(1, ttl=0.25), entry(2), entry(3, ttl=0.0)]))
    assert get(cache, 3) is None
    clock.now = 0.2499
    assert get(cache, 1) is not None
    clock.now = 0.25
    assert get(cache, 1) is None
    assert get(cache, 2) is not None
    stats = cache.stats()
    assert stats.counters["expirations"] == 1
    assert stats.entries == 1


def test_lru_evicts_what_was_not_used() -> None:
    cache = lru(FakeClock(), max_entries=3)
    run(cache.set_many([entry(number) for number in range(3)]))
    get(cache, 0)
    run(cache.set_many([entry(3)]))
    assert [get(cache, number) is not None for number in range(4)] == [True, False, True, True]


def test_lfu_evicts_what_was_used_least() -> None:
    cache = lfu(FakeClock(), max_entries=3)
    run(cache.set_many([entry(number) for number in range(3)]))
    for number in (0, 0, 1, 2, 2):
        get(cache, number)
    run(cache.set_many([entry(3)]))
    assert [get(cache, number) is not None for number in range(4)] == [True, False, True, True]


def test_ttl_gives_entries_its_own_time_to_live_and_removes_the_expired() -> None:
    clock = FakeClock(0.0)
    cache = ttl(clock, ttl=10.0)
    run(cache.set_many([entry(number) for number in range(5)]))
    run(cache.set_many([entry(5, ttl=20.0)]))
    clock.now = 10.0
    run(cache.set_many([entry(6)]))
    assert cache.stats().entries == 2
    assert cache.stats().counters["expirations"] == 5


def test_they_are_made_as_the_factory_makes_them() -> None:
    for cls, config in ((LRU, PlainConfig()), (LFU, PlainConfig()), (TTL, TTLConfig())):
        assert cls.create("", config=config).stats().name == cls.__name__.lower()


class _PlainSuite(CacheSuite):
    max_bytes = 500_000

    def create(self) -> Any:
        self.clock = FakeClock()
        return self.make(self.clock, max_bytes=self.max_bytes)

    async def elapse(self, seconds: float) -> None:
        self.clock.advance(seconds)


class TestLRU(_PlainSuite):
    holds = "objects"
    make = staticmethod(lru)


class TestLFU(_PlainSuite):
    holds = "objects"
    make = staticmethod(lfu)


class TestTTL(_PlainSuite):
    holds = "objects"
    make = staticmethod(ttl)
