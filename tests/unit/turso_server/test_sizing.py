"""The pool's size follows demand, ahead of it where it grows, slowly where it shrinks."""

from __future__ import annotations

import itertools
import math

from memory_storage_turso.config import PoolConfig
from memory_storage_turso.server.pool import DemandForecast, PoolSizer

CONFIG = PoolConfig(min_size=1, max_size=32)
SAMPLE = 0.11
"""Seconds; a little more than the sizer's samples, so that each observation ends one."""


def fed(sizer: PoolSizer, demands: list[int], start: float = 0.0) -> list[int]:
    """The size after each sample's demand."""
    sizes: list[int] = []
    for number, demand in enumerate(demands, 1):
        sizer.observe(demand, start + number * SAMPLE)
        sizes.append(sizer.size)
    return sizes


def test_forecast_follows_a_trend() -> None:
    forecast = DemandForecast()
    for demand in range(0, 40, 2):
        forecast.observe(demand)
    assert 38 < forecast.ahead(3) < 46


def test_forecast_is_never_negative() -> None:
    forecast = DemandForecast()
    for demand in (20, 10, 0, 0, 0, 0):
        forecast.observe(demand)
    assert forecast.ahead(10) == 0


def test_size_runs_ahead_of_rising_demand() -> None:
    demands = list(range(1, 21))
    sizes = fed(PoolSizer(CONFIG, 0.0), demands)
    ahead = [size > demand for size, demand in zip(sizes[4:], demands[4:], strict=True)]
    assert all(ahead)


def test_jump_in_demand_is_met_without_going_far_beyond() -> None:
    needed = math.ceil(8 / 0.7)
    assert needed <= fed(PoolSizer(CONFIG, 0.0), [8] * 20)[-1] <= 1.2 * needed


def test_small_swings_change_nothing() -> None:
    sizer = PoolSizer(CONFIG, 0.0)
    settled = fed(sizer, [8] * 20)[-1]
    assert set(fed(sizer, [7, 8, 6, 8, 7, 6] * 5, start=20 * SAMPLE)) == {settled}


def test_shrinks_only_after_its_cooldown_and_by_half_at_most() -> None:
    sizer = PoolSizer(CONFIG, 0.0)
    fed(sizer, [20] * 5)
    full = sizer.size
    sizes = fed(sizer, [0] * 600, start=5 * SAMPLE)
    assert sizes[2] == full
    steps = [size for size, after in itertools.pairwise(sizes) if size != after]
    for before, after in zip(steps, [*steps[1:], sizes[-1]], strict=True):
        assert after >= before / 2
    assert sizes[-1] == 1


def test_queue_makes_it_grow_within_a_sample() -> None:
    sizer = PoolSizer(CONFIG, 0.0)
    assert sizer.observe(5, 0.05)
    assert sizer.size == 5


def test_never_above_its_bound() -> None:
    assert max(fed(PoolSizer(CONFIG, 0.0), [1000] * 10)) == 32


def test_silence_counts_as_no_demand() -> None:
    sizer = PoolSizer(CONFIG, 0.0)
    fed(sizer, [20] * 10)
    sizer.observe(0, 100.0)
    assert sizer.forecast < 1
