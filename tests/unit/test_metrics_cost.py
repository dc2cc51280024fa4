"""The benchmark of what metrics cost: it runs, and judges by the upper end of its intervals."""

from __future__ import annotations

import random
from statistics import median

import pytest

from benchmarks import metrics_cost


def test_the_interval_covers_the_median_in_most_cases() -> None:
    chance = random.Random(7)
    found = [metrics_cost.interval([chance.gauss(0, 1) for _ in range(20)]) for _ in range(1_000)]
    covered = sum(each["low"] <= 0 <= each["high"] for each in found)
    assert 930 <= covered <= 990
    assert abs(median(each["median"] for each in found)) < 0.05


@pytest.mark.parametrize(
    ("cost", "ratio", "kept"),
    [(0.99, 1.019, True), (1.0, 1.0, False), (0.5, 1.02, False)],
)
def test_both_bounds_are_judged(cost: float, ratio: float, kept: bool) -> None:
    found = {"cost us": {"high": cost}, "off to plain": {"high": ratio}}
    assert metrics_cost.kept(found) is kept
