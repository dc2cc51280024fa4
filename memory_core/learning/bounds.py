"""Bounds of rates that were counted."""

from __future__ import annotations

import math

__all__ = ["wilson"]

_Z = 1.96
"""The quantile of the normal distribution for 95 %."""


def wilson(successes: float, number: float) -> tuple[float, float]:
    """The interval of a rate, at 95 %: the score interval (Wilson, 1927), which holds for few observations.

    Args:
        successes: how many of them succeeded.
        number: how many observations there are; of none, the rate may be anything.
    """
    if number <= 0:
        return 0.0, 1.0
    rate, square = successes / number, _Z * _Z
    middle = rate + square / (2 * number)
    half = _Z * math.sqrt(rate * (1 - rate) / number + square / (4 * number * number))
    scale = 1 + square / number
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
