"""Histograms: how often which values came, in buckets that grow by a constant factor."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

__all__ = ["SECONDS", "SIZES", "Histogram"]

SECONDS = tuple(1e-6 * 2 ** (step / 4) for step in range(109))
"""Bounds of durations, 1 µs to 134 s: four buckets for each doubling, so a percentile errs by at most 9 %."""
SIZES = tuple(float(2**power) for power in range(17))
"""Bounds of sizes, 1 to 65,536."""


_AT_ONCE = 256
"""Values that are sorted into buckets together: a fifth of the time of sorting them in one by one."""


class Histogram:
    """Counts values in buckets. One thread uses it.

    Args:
        bounds: the largest value of each bucket, ascending; one more bucket is for greater values.

    Attributes:
        bounds: the bounds.
    """

    __slots__ = ("_counts", "_largest", "_new", "_total", "bounds")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._largest = 0.0
        self._new: list[float] = []

    @property
    def counts(self) -> list[int]:
        """The number of values in each bucket."""
        self._sort_in()
        return self._counts

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.counts)

    @property
    def total(self) -> float:
        """The sum of the values."""
        self._sort_in()
        return self._total

    @property
    def largest(self) -> float:
        """The largest value."""
        self._sort_in()
        return self._largest

    def record(self, value: float) -> None:
        """Count a value."""
        new = self._new
        new.append(value)
        if len(new) == _AT_ONCE:
            self._sort_in()

    def add(self, other: Histogram) -> None:
        """Add the values of another histogram with the same bounds."""
        self._counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self._total += other.total
        self._largest = max(self._largest, other.largest)

    def _sort_in(self) -> None:
        new = self._new
        if not new:
            return
        self._new = []
        new.sort()
        self._total += sum(new)
        self._largest = max(self._largest, new[-1])
        start = 0
        while start < len(new):
            bucket = bisect_left(self.bounds, new[start])
            last = bucket == len(self.bounds)
            end = len(new) if last else bisect_right(new, self.bounds[bucket], start)
            self._counts[bucket] += end - start
            start = end

    def percentile(self, share: float) -> float:
        """The value that a share of all values does not exceed, linear within a bucket; 0 if empty."""
        counts = self.counts
        rank, below, lower = share * sum(counts), 0, 0.0
        for bound, count in zip(self.bounds, counts, strict=False):
            if count and below + count >= rank:
                if self.bounds is SIZES:
                    # Sizes are whole numbers, and most groups are small.
                    return min(bound, self.largest)
                value = lower + (bound - lower) * (rank - below) / count
                return min(value, self.largest)
            below += count
            lower = bound
        return self.largest

    def summary(self) -> dict[str, float]:
        """``count``, ``mean``, ``p50``, ``p95``, ``p99`` and ``max``."""
        count = self.count
        return {
            "count": count,
            "mean": self.total / count if count else 0.0,
            "p50": self.percentile(0.5),
            "p95": self.percentile(0.95),
            "p99": self.percentile(0.99),
            "max": self.largest,
        }
