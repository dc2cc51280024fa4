"""Memory pressure: how much of its budget the cache may currently use.

The cache releases memory while the process is near a limit, and slowly grows back once usage has stayed
well below it: the gap between the two thresholds prevents oscillation.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memory_storage_lmdb.adaptive.memory_source import MemorySource

__all__ = ["PressureGauge", "PressureLevel"]

_ELEVATED = 0.80  # share of a limit from which the cache gives memory back
_CRITICAL = 0.92  # and from which it does so quickly
_RELAXED = 0.70  # share below which it may grow again
_FLOOR = 2**20  # bytes it keeps whatever the pressure, and entries in proportion
_GROWTH = 1.25  # of the share, at each look while there is no pressure
_LEAST = 0.01  # where it starts to grow from
_CALM = 3  # looks below the relaxed threshold before it grows
_CREDIT = 0.01  # bytes that may come in between two looks, as a share of the limit, when it is near


class PressureLevel(IntEnum):
    """How near the process is to a memory limit."""

    NORMAL = 0
    ELEVATED = 1
    CRITICAL = 2


_SHRINK = {PressureLevel.ELEVATED: 0.8, PressureLevel.CRITICAL: 0.5}


class PressureGauge:
    """Checks the memory periodically and sets the share of the budget that may be used.

    Args:
        source: tells the memory in use.
        max_bytes: the budget.
        interval: seconds between two checks.

    Attributes:
        share: the share of the budget that may be used, from the floor to 1.
        level: the level found at the last check.
        events: how often the level rose.
        reliefs: how often it fell back to normal.
        ratio: used memory as a share of the limit, at the last check.
    """

    def __init__(self, source: MemorySource, max_bytes: int, interval: float) -> None:
        self._source = source
        self._interval = interval
        self._floor = min(1.0, _FLOOR / max_bytes)
        self._next = float("-inf")
        self._credit = 0.0
        self._calm = 0
        self._used = 0
        self.share = 1.0
        self.level = PressureLevel.NORMAL
        self.events = 0
        self.reliefs = 0
        self.ratio = 0.0

    def admitted(self, size: int) -> bool:
        """Count bytes that came in; returns whether these are enough to make a check due."""
        self._credit -= size
        return self._credit <= 0

    def look(self, now: float, occupied: float) -> None:
        """Check the memory if a check is due, and set the share of the budget.

        Args:
            now: the time.
            occupied: the share of the budget that is in use: only that can be given back.
        """
        on_time = now >= self._next
        if not on_time and self._credit > 0:
            return
        if on_time:
            self._next = now + self._interval
        reading = self._source.read()
        if reading is None:
            self._credit = float("inf")
            return
        headroom = _ELEVATED * reading.limit - reading.used
        self._credit = max(headroom / 4, _CREDIT * reading.limit)
        self.ratio = reading.ratio
        self._note(self._level_of(reading.ratio), on_time)
        if self.ratio >= _ELEVATED:
            # Memory that was freed may stay with the process and be used again: between two looks
            # on time only growth means that more has to be given back.
            if on_time or reading.used > self._used:
                self._used = reading.used
                smaller = min(self.share, occupied) * _SHRINK[self.level]
                self.share = max(smaller, self._floor)
        elif on_time and self._calm > _CALM:
            self.share = min(1.0, max(self.share, _LEAST) * _GROWTH)

    def _level_of(self, ratio: float) -> PressureLevel:
        if ratio >= _CRITICAL:
            return PressureLevel.CRITICAL
        if ratio >= _ELEVATED or (ratio >= _RELAXED and self.level):
            return PressureLevel.ELEVATED
        return PressureLevel.NORMAL

    def _note(self, level: PressureLevel, on_time: bool) -> None:
        if level > self.level:
            self.events += 1
        elif self.level and not level:
            self.reliefs += 1
        self._calm = 0 if level else self._calm + on_time
        if not level:
            self._used = 0
        self.level = level
