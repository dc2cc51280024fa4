"""The contract of a cache, as the adaptive one keeps it."""

from __future__ import annotations

import gc
import weakref

import pytest

from memory_core.cache import Budget, Cache, CacheEntry
from memory_storage_lmdb.adaptive import AdaptiveCache, AdaptiveConfig
from tests.unit.adaptive.driving import Driven, FakeMemory, entry, key, run


def test_it_is_a_cache_of_objects() -> None:
    cache = AdaptiveCache.create("", config=AdaptiveConfig())
    assert isinstance(cache, Cache)
    assert cache.holds == "objects"
    assert cache.stats().name == "adaptive"
    assert AdaptiveCache.create("near", config=AdaptiveConfig()).stats().name == "near"


def test_values_come_in_the_order_of_the_keys() -> None:
    driven = Driven()
    driven.put(entry(1, "a"), entry(2, "b"))
    assert run(driven.cache.get_many([key(2), key(3), key(1), key(2)])) == ["b", None, "a", "b"]
    assert run(driven.cache.get_many([])) == []


def test_the_very_object_is_returned() -> None:
    driven = Driven()
    value = object()
    driven.put(entry(1, value))
    assert driven.get(1) is value


def test_keys_differ_by_namespace_kind_and_id() -> None:
    driven = Driven()
    driven.put(entry(1, "a"), entry(1, "b", kind="pattern"), entry(1, "c", namespace="other"))
    driven.put(CacheEntry(("default", "query:episode", b"digest"), "d", 10))
    assert driven.get(1) == "a"
    assert driven.get(1, kind="pattern") == "b"
    assert driven.get(1, namespace="other") == "c"
    assert run(driven.cache.get_many([("default", "query:episode", b"digest")])) == ["d"]
    assert run(driven.cache.get_many([("default", "query:episode", b"Digest")])) == [None]


def test_a_replaced_value_is_never_seen_again() -> None:
    driven = Driven()
    driven.put(entry(1, "old"), entry(1, "new"))
    assert driven.get(1) == "new"
    assert driven.statistic("entries") == 1
    driven.delete(1)
    assert driven.get(1) is None


def test_a_declined_value_still_replaces_the_old_one() -> None:
    driven = Driven(max_bytes=60_000)
    driven.put(entry(1, "old"))
    driven.put(entry(1, "too large", size=20_000))
    assert driven.get(1) is None
    driven.put(entry(1, "old"))
    driven.put(entry(1, "no time to live", ttl=0.0))
    assert driven.get(1) is None
    assert driven.statistic("admissions_refused") == 2


def test_clear_forgets_all_or_one_namespace() -> None:
    driven = Driven()
    driven.put(entry(1), entry(2, namespace="other"), entry(3, namespace="other"))
    run(driven.cache.clear("other"))
    assert driven.get(1) is not None
    assert driven.get(2, namespace="other") is None
    assert driven.statistic("invalidations_cleared") == 2
    run(driven.cache.clear())
    assert driven.get(1) is None
    assert driven.statistic("entries") == 0
    driven.put(entry(1, "again"))
    assert driven.get(1) == "again"


def test_what_was_removed_is_freed_at_once() -> None:
    """Queues and buckets are linked through entries: no cycle may keep a value alive."""

    class Value:
        pass

    gc.disable()
    try:
        driven = Driven(max_entries=2)
        values = [Value() for _ in range(6)]
        kept = [weakref.ref(value) for value in values]
        for number, value in enumerate(values[:4]):
            driven.put(entry(number, value))
        driven.put(entry(4, values[4], ttl=1.0))
        driven.delete(3)
        driven.put(entry(5, values[5]))
        del values, value
        driven.clock.advance(2)
        assert driven.get(4) is None
        there = driven.held(range(6))
        assert driven.statistic("evictions_capacity") > 0
        assert [number for number, ref in enumerate(kept) if ref() is not None] == there
        run(driven.cache.clear())
        assert [ref() for ref in kept] == [None] * 6
    finally:
        gc.enable()


async def test_a_closed_cache_keeps_nothing() -> None:
    cache = AdaptiveCache()
    await cache.set_many([entry(1)])
    await cache.aclose()
    await cache.aclose()
    await cache.set_many([entry(2)])
    assert await cache.get_many([key(1), key(2)]) == [None, None]


def test_top_keys_are_the_keys_read_most() -> None:
    driven = Driven()
    driven.put(*[entry(number) for number in range(20)])
    driven.read(7, 5)
    driven.read(3, 9)
    driven.read(1, 2)
    assert driven.cache.top_keys(2) == [(key(3), 9), (key(7), 5)]


def test_a_budget_by_kind_is_kept_apart() -> None:
    budgets = {"pattern": Budget(max_entries=3), "heuristic": Budget(max_entries=0)}
    driven = Driven(max_entries=10, kind_budgets=budgets)
    driven.put(*[entry(number, kind="pattern") for number in range(30)])
    assert driven.statistic("entries") == 3
    driven.put(*[entry(number) for number in range(30)])
    assert driven.statistic("entries") == 13
    assert sum(driven.get(number, kind="pattern") is not None for number in range(30)) == 3
    driven.put(entry(1, kind="heuristic"))
    assert driven.get(1, kind="heuristic") is None
    assert driven.statistic("admissions_refused") == 1


def test_kinds_without_bytes_of_their_own_share_those_of_the_whole() -> None:
    budgets = {"pattern": Budget(max_entries=1000)}
    driven = Driven(max_bytes=100_000, kind_budgets=budgets)
    driven.put(*[entry(number, size=5_000) for number in range(50)])
    driven.put(*[entry(number, size=5_000, kind="pattern") for number in range(50)])
    assert driven.statistic("bytes") <= 100_000
    held = [
        sum(driven.get(n, kind=kind) is not None for n in range(50))
        for kind in ("episode", "pattern")
    ]
    assert min(held) >= 5, "neither may evict all of the other"


def test_kinds_with_bytes_of_their_own_keep_to_them() -> None:
    budgets = {"pattern": Budget(max_entries=1000, max_bytes=20_000)}
    driven = Driven(max_bytes=100_000, kind_budgets=budgets)
    driven.put(*[entry(number, size=5_000) for number in range(50)])
    driven.put(*[entry(number, size=5_000, kind="pattern") for number in range(50)])
    assert sum(driven.get(number, kind="pattern") is not None for number in range(50)) == 3
    assert sum(driven.get(number) is not None for number in range(50)) >= 15
    assert driven.statistic("bytes") <= 120_000


@pytest.mark.parametrize("memory", [FakeMemory(None), FakeMemory(10, 1000)])
def test_nothing_suspends_and_no_loop_is_needed(memory: FakeMemory) -> None:
    driven = Driven(memory)
    driven.put(entry(1))
    driven.get(1)
    driven.delete(1)
    run(driven.cache.clear())
    run(driven.cache.aclose())
