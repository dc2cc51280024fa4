"""Times to live: exact, and adapting to use."""

from __future__ import annotations

from typing import Any

import pytest

from memory_storage_lmdb.adaptive import expiry
from tests.unit.adaptive.driving import Driven, entry


@pytest.fixture(autouse=True)
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries are reviewed each 5 s over a window of 10."""
    monkeypatch.setattr(expiry, "_WINDOW", 10.0)


def adaptive(**options: Any) -> Driven:
    """Entries live 20 s, between 5 and 100."""
    bounds = {"ttl": 20.0, "min_ttl": 5.0, "max_ttl": 100.0}
    return Driven(**(bounds | options))


@pytest.mark.parametrize("ttl", [0.001, 0.25, 0.999, 1.5])
def test_a_given_time_to_live_is_exact(ttl: float) -> None:
    """PITFALL: a time to live cut to whole seconds."""
    driven = Driven()
    driven.clock.now = 0.0
    driven.put(entry(1, ttl=ttl))
    driven.clock.now = ttl * 0.999
    assert driven.get(1) is not None
    driven.clock.now = ttl
    assert driven.get(1) is None


def test_an_expired_hit_is_a_miss_and_an_expiration() -> None:
    """PITFALL: an expired hit not counted as a miss."""
    driven = Driven()
    driven.put(entry(1, ttl=0.5))
    assert driven.get(1) is not None
    driven.clock.advance(0.5)
    assert driven.get(1) is None
    assert driven.get(1) is None
    stats = driven.cache.stats()
    assert (stats.hits, stats.misses, stats.entries) == (1, 2, 0)
    assert stats.counters["expirations"] == 1


def test_a_given_time_to_live_does_not_adapt() -> None:
    driven = adaptive()
    driven.put(entry(1, ttl=50.0), entry(2, ttl=50.0))
    for _ in range(49):
        driven.read(1, 10)
        driven.clock.advance(1)
    driven.clock.advance(0.9)
    assert driven.held([1, 2]) == [1, 2]
    driven.clock.advance(0.1)
    assert driven.get(1) is None
    assert driven.get(2) is None
    assert driven.statistic("ttl_raises") == driven.statistic("ttl_cuts") == 0


def test_a_new_value_starts_a_new_life() -> None:
    driven = Driven()
    driven.put(entry(1, ttl=1.0))
    driven.clock.advance(0.9)
    driven.put(entry(1, "new", ttl=1.0))
    driven.clock.advance(0.9)
    assert driven.get(1) == "new"
    driven.clock.advance(0.1)
    assert driven.get(1) is None


def test_a_hot_entry_lives_longer_up_to_the_bound() -> None:
    driven = adaptive()
    driven.put(entry(1))
    for second in range(100):
        assert driven.get(1) is not None, f"gone after {second} s"
        driven.clock.advance(1)
    assert driven.get(1) is None, "no entry is older than max_ttl"
    assert driven.statistic("ttl_raises") == 3  # 20, 40, 80, 100
    assert driven.statistic("ttl_bound_hits") >= 1


def test_a_cold_entry_lives_shorter() -> None:
    driven = adaptive()
    driven.put(entry(1))
    driven.clock.advance(9.9)
    assert driven.held([1]) == [1]
    driven.cache.sweep(100)
    driven.clock.advance(0.1)  # a window without a read: 20 s become 10
    assert driven.get(1) is None
    assert driven.statistic("ttl_cuts") == 1


def test_a_cold_entry_reaches_the_lower_bound() -> None:
    driven = adaptive(ttl=80.0, min_ttl=30.0)
    driven.put(entry(1))
    driven.clock.advance(29.9)
    assert driven.get(1) is not None  # 80, 40 at 10 s, 30 at 15 s
    assert driven.statistic("ttl_cuts") == 2
    assert driven.statistic("ttl_bound_hits") >= 1
    driven.clock.advance(0.1)
    assert driven.get(1) is None


def test_a_warm_entry_keeps_its_time() -> None:
    driven = adaptive()
    driven.put(entry(1))
    for _ in range(4):
        driven.clock.advance(4.99)
        driven.read(1)
    driven.clock.advance(0.05)
    assert driven.get(1) is None
    assert driven.statistic("ttl_raises") == driven.statistic("ttl_cuts") == 0


def test_the_window_slides() -> None:
    """Reads on both sides of a review count together."""
    driven = adaptive()
    driven.put(entry(1))
    driven.clock.advance(4.9)
    driven.read(1, 2)
    driven.clock.advance(0.2)
    driven.read(1, 2)  # the first review passed with 2 reads
    assert driven.statistic("hot") == 0
    driven.clock.advance(4.9)
    driven.read(1)  # the second finds 4 in the last 10 s
    assert driven.statistic("hot") == 1
    driven.clock.advance(10)
    driven.get(1)
    assert driven.statistic("hot") == 0, "and forgets them when they are older"


def test_an_entry_cools_down() -> None:
    driven = adaptive(ttl=100.0)
    driven.put(entry(1))
    driven.read(1, 10)
    driven.clock.advance(5)
    driven.read(1)
    assert (driven.statistic("hot"), driven.statistic("cold")) == (1, 0)
    driven.clock.advance(15)
    driven.cache.sweep(100)
    assert driven.get(1) is not None
    assert (driven.statistic("hot"), driven.statistic("cold")) == (0, 1)
    driven.delete(1)
    assert (driven.statistic("hot"), driven.statistic("cold")) == (0, 0)


def test_equal_bounds_mean_a_fixed_time() -> None:
    driven = adaptive(min_ttl=20.0, max_ttl=20.0)
    driven.put(entry(1), entry(2))
    for _ in range(199):
        driven.read(1)
        driven.clock.advance(0.1)
    assert driven.held([1, 2]) == [1, 2]
    driven.clock.advance(0.11)
    assert driven.get(1) is None
    assert driven.get(2) is None
    assert driven.statistic("ttl_raises") == driven.statistic("ttl_cuts") == 0


@pytest.mark.parametrize("gap", [0.3, 1.0, 7.0, 31.0])
def test_late_reviews_decide_the_same(gap: float) -> None:
    """Whether a background task reviews in time or the next read does it late makes no difference."""
    swept, unswept = adaptive(ttl=60.0), adaptive(ttl=60.0)
    reads = [round(gap * step, 3) for step in range(1, 60)]
    for driven in (swept, unswept):
        driven.put(entry(1), entry(2))
    seen = []
    for driven in (swept, unswept):
        found = []
        start = driven.clock.now
        for at in reads:
            if driven is swept:
                while driven.clock.now < start + at:
                    driven.clock.now = min(start + at, driven.clock.now + 0.25)
                    driven.cache.sweep(100)
            driven.clock.now = start + at
            found.append((driven.get(1) is not None, at > 20 and driven.get(2) is not None))
        seen.append(found)
    assert seen[0] == seen[1]


def test_the_window_is_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    driven = Driven()
    driven.put(entry(1))
    for seconds, cuts in ((598, 0), (3, 1), (297, 1), (3, 2)):
        driven.clock.advance(seconds)
        driven.cache.sweep(100)
        assert driven.statistic("ttl_cuts") == cuts


def test_a_long_absence_is_caught_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "_WINDOW", 0.01)
    driven = Driven(ttl=3e8, min_ttl=2e8, max_ttl=3e8)
    driven.put(entry(1))
    driven.clock.advance(1.9e8)  # some 10**10 reviews
    assert driven.get(1) is not None
    assert driven.statistic("ttl_cuts") == 1
    driven.clock.advance(0.1e8)
    assert driven.get(1) is None
