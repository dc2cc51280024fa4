"""PITFALL: statistics that nothing ever increments. Here every one of them moves."""

from __future__ import annotations

import pytest

from memory_storage_lmdb.adaptive import expiry, pressure
from tests.unit.adaptive.driving import Driven, FakeMemory, entry, run

EXPECTED = {
    "expirations",
    "insertions",
    "replacements",
    "admissions_refused",
    "ttl_raises",
    "ttl_cuts",
    "ttl_bound_hits",
    "hot",
    "cold",
    "evictions_capacity",
    "evictions_bytes",
    "evictions_pressure",
    "ghosts",
    "small_share",
    "frequency_leads",
    "frequency_wins",
    "recency_wins",
    "rule_changes",
    "shadow_keys",
    "pressure_events",
    "pressure_reliefs",
    "pressure_level",
    "pressure_ratio",
    "budget_share",
}


@pytest.fixture(autouse=True)
def quick_and_without_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are reviewed each 5 s, and memory pressure may take a small cache too."""
    monkeypatch.setattr(expiry, "_WINDOW", 10.0)
    monkeypatch.setattr(pressure, "_FLOOR", 0)


def snapshot(driven: Driven) -> dict[str, float]:
    stats = driven.cache.stats()
    general = {name: getattr(stats, name) for name in ("entries", "bytes", "hits", "misses")}
    return {**general, "hit_rate": stats.hit_rate, **stats.counters}


def test_every_statistic_is_named_and_moves() -> None:
    memory = FakeMemory(0, 1000)
    options = {"ttl": 40.0, "min_ttl": 8.0, "max_ttl": 100.0}
    driven = Driven(memory, max_entries=50, max_bytes=200_000, **options)
    first = snapshot(driven)
    assert set(first) >= EXPECTED
    moved: set[str] = set()

    def look() -> None:
        now = snapshot(driven)
        moved.update(name for name in now if now[name] != first.get(name, 0))

    driven.put(entry(0), entry(0), entry(1, size=150_000))
    driven.fetch(0)
    look()
    for number in list(range(60)) + list(range(60)) + list(range(55, 0, -1)):
        driven.fetch(number)
        look()
    for number in range(1_000, 1_200):  # soon read again, and then never: recency wins
        for back in (0, 4, 8):
            driven.fetch(number - back)
    look()
    run(driven.cache.clear())
    for number in range(100, 110):
        driven.put(entry(number, size=40_000))
        look()
    for _ in range(10):
        driven.fetch(5)
        driven.fetch(5)
        driven.clock.advance(2)
        driven.cache.sweep(1000)
        look()
    for number in range(200, 240):
        driven.fetch(number)
    for used in (900, 900, 100, 100, 100, 100, 100, 100):
        memory.used = used
        driven.clock.advance(1)
        driven.cache.sweep(1000)
        look()
    driven.delete(5, cause="write")
    run(driven.cache.clear())
    look()
    still = (set(first) | EXPECTED) - moved
    assert not still, f"these never moved: {still}"
    assert {"invalidations_write", "invalidations_cleared"} <= moved


def test_hits_and_misses() -> None:
    driven = Driven()
    driven.fetch(1)
    driven.read(1, 3)
    driven.get(2)
    stats = driven.cache.stats()
    assert (stats.hits, stats.misses) == (3, 2)
    assert stats.hit_rate == 0.6


def test_evictions_by_cause() -> None:
    capacity = Driven(max_entries=2)
    capacity.put(*[entry(number) for number in range(5)])
    assert capacity.statistic("evictions_capacity") == 3
    size = Driven(max_bytes=50_000)
    size.put(*[entry(number, size=10_000) for number in range(6)])
    assert size.statistic("evictions_bytes") == 2
    memory = FakeMemory(0, 1000)
    pressure = Driven(memory, max_entries=100)
    pressure.put(*[entry(number) for number in range(100)])
    memory.used = 950
    pressure.clock.advance(1)
    pressure.sweep()
    assert pressure.statistic("evictions_pressure") == 50
    for driven, cause in ((capacity, "capacity"), (size, "bytes"), (pressure, "pressure")):
        others = {"capacity", "bytes", "pressure"} - {cause}
        assert all(driven.statistic(f"evictions_{other}") == 0 for other in others)


def test_invalidations_by_cause_count_what_was_there() -> None:
    driven = Driven()
    driven.put(*[entry(number) for number in range(4)])
    driven.delete(0, 1, 77, cause="own_write")
    driven.delete(2, 2, cause="feed")
    assert driven.statistic("invalidations_own_write") == 2
    assert driven.statistic("invalidations_feed") == 1


def test_insertions_and_replacements() -> None:
    driven = Driven()
    driven.put(entry(1), entry(1), entry(2))
    assert driven.statistic("insertions") == 2
    assert driven.statistic("replacements") == 1


def test_hot_and_cold_count_entries() -> None:
    driven = Driven(ttl=100.0, min_ttl=50.0, max_ttl=100.0)
    driven.put(*[entry(number) for number in range(6)])
    for _ in range(12):
        driven.read(0)
        driven.read(1)
        driven.clock.advance(1)
    driven.cache.sweep(1000)
    assert (driven.statistic("hot"), driven.statistic("cold")) == (2, 4)
    driven.put(entry(0, "new"))
    driven.delete(5)
    assert (driven.statistic("hot"), driven.statistic("cold")) == (1, 3)
    run(driven.cache.clear())
    assert (driven.statistic("hot"), driven.statistic("cold")) == (0, 0)
