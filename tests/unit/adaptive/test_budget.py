"""The budget of bytes holds, measured from outside."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc
import uuid

import pytest

from memory_core.cache import CacheEntry
from tests.unit.adaptive.driving import Driven, FakeMemory, entry, run

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.mark.parametrize(
    ("size", "count", "read_share"),
    [(10, 20_000, 0.0), (100, 12_000, 0.0), (1000, 8_000, 0.5), (13_000, 1_500, 0.3)],
)
def test_it_holds_within_ten_percent(size: int, count: int, read_share: float) -> None:
    """Small values as well as large ones, with what the cache itself takes."""
    rng = random.Random(4)
    budget = 4 * MIB
    gc.collect()
    tracemalloc.start()
    try:
        driven = Driven(max_entries=10**6, max_bytes=budget)
        for _ in range(count):
            key = ("default", "episode", uuid.UUID(int=rng.getrandbits(128)))
            value = bytes(size)
            driven.put(CacheEntry(key, value, sys.getsizeof(value)))
            while rng.random() < read_share:
                run(driven.cache.get_many([key]))
        del key, value
        gc.collect()
        measured = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert driven.statistic("evictions_bytes") > 0
    assert measured <= budget * 1.1
    assert measured >= budget * 0.8, "and it is used"
    assert abs(driven.statistic("bytes") - measured) <= 0.1 * measured


def test_what_pressure_leaves_holds_too() -> None:
    memory = FakeMemory(0, 1000)
    budget = 8 * MIB
    gc.collect()
    tracemalloc.start()
    try:
        driven = Driven(memory, max_entries=10**6, max_bytes=budget)
        for number in range(12_000):
            driven.fetch(number, size=sys.getsizeof(f"value of {number}"))
        memory.used = 850
        for _ in range(5):
            driven.clock.advance(1)
            driven.sweep()
        gc.collect()
        measured = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    share = driven.statistic("budget_share")
    assert 0.2 < share < 0.4
    assert measured <= share * budget * 1.1
    assert measured >= share * budget * 0.8


def test_it_holds_under_writes_deletes_and_expiry() -> None:
    rng = random.Random(5)
    driven = Driven(max_bytes=300_000, interval=0.5)
    for _ in range(20_000):
        number = rng.randrange(400)
        match rng.randrange(6):
            case 0 | 1:
                driven.get(number)
            case 2 | 3 | 4:
                ttl = rng.choice([None, None, rng.random() * 5])
                driven.put(entry(number, size=rng.choice([50, 500, 5_000, 30_000]), ttl=ttl))
            case _:
                driven.delete(number)
        driven.clock.advance(rng.random() * 0.1)
        assert driven.cache._common.taken + driven.cache._common.reserved <= 300_000
    table = driven.cache._table
    assert driven.cache._common.taken == sum(one.charge for one in table.values())
    assert driven.cache._shared.entries == len(table)


def test_a_value_that_grows_evicts_others() -> None:
    driven = Driven(max_bytes=100_000)
    driven.put(*[entry(number, size=5_000) for number in range(15)])
    driven.put(entry(14, size=24_000))
    assert driven.statistic("bytes") <= 100_000
    assert driven.statistic("evictions_bytes") > 0
    assert driven.get(14) is not None


def test_an_entry_over_its_limit_is_declined_and_evicts_nothing() -> None:
    driven = Driven(max_bytes=100_000)
    driven.put(*[entry(number, size=5_000) for number in range(10)])
    driven.put(entry(99, size=30_000))  # over a quarter of the budget
    assert driven.get(99) is None
    assert driven.held(range(10)) == list(range(10))
    assert driven.statistic("admissions_refused") == 1
    larger = Driven(max_bytes=200_000)
    larger.put(entry(99, size=30_000))
    assert larger.get(99) is not None


def test_a_budget_too_small_for_anything_declines_everything() -> None:
    driven = Driven(max_bytes=100)
    driven.put(entry(1, size=1))
    assert driven.get(1) is None
    assert driven.statistic("entries") == 0
