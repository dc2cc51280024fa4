"""How many connections a pool has open: a forecast of when each of them is needed next."""

from __future__ import annotations

import math
from collections import deque

from memory_storage_turso.config import PoolConfig

#: Pauses that are remembered of each connection ...
_REMEMBERED = 8
#: ... how many there have to be for a forecast ...
_NEEDED = 3
#: ... and the share of them that a forecast has to meet.
_MET = 7 / 8
#: The share of the idle time for which a connection stays open after it was used, whatever is forecast.
_AT_ONCE = 1 / 6
#: The share of a window within which the pauses lie that it is for: the rest is on both sides of them.
_WITHIN = 0.8


class DemandForecast:
    """Forecasts when a connection is needed again, from the pauses in which it was not needed before.

    A connection may be idle for a bounded time of each pause. Agents that work in rounds use their
    connections at about the same intervals: closing one soon, and opening it again shortly before it is
    needed, takes no more of that time than keeping it, and its caller need not wait until it is open. Where
    the pauses before have no such rhythm, the connection stays open for that time after its last use. After
    the policy of M. Shahrad et al., "Serverless in the Wild", USENIX ATC 2020.

    Args:
        idle: Seconds of each pause for which the connection may be open.
        remembered: Pauses to learn from; 0 makes no forecast.
    """

    def __init__(self, idle: float, remembered: int = _REMEMBERED) -> None:
        self._at_once = idle * _AT_ONCE
        self._window = idle - self._at_once
        self._opens_after = self._at_once
        self._pauses: deque[float] = deque(maxlen=remembered)
        self._released_at = -math.inf

    def acquired(self, now: float) -> None:
        """Note that it is needed."""
        pause = now - self._released_at
        # In shorter pauses it stays open in any case.
        if self._at_once <= pause < math.inf:
            self._pauses.append(pause)
            self._opens_after = self._after()

    def released(self, now: float) -> None:
        """Note that it is not needed any more."""
        self._released_at = now

    def expects(self, now: float) -> bool:
        """Whether it should be open, while it is not in use."""
        paused = now - self._released_at
        return paused < self._at_once or 0 <= paused - self._opens_after < self._window

    def _after(self) -> float:
        """Seconds of a pause after which the window begins in which the connection is open."""
        pauses = sorted(self._pauses)
        kept = sum(pause < self._at_once + self._window for pause in pauses)
        after = self._at_once
        if len(pauses) < _NEEDED:
            return after
        for number, first in enumerate(pauses):
            met = [pause for pause in pauses[number:] if pause <= first + _WITHIN * self._window]
            if len(met) > kept and len(met) >= _MET * len(pauses):
                kept, after = len(met), (first + met[-1] - self._window) / 2
        return max(after, self._at_once)


class PoolSizer:
    """Decides how many connections a pool has open.

    Callers use the connections of a pool as a stack: the number of calls at the same time says which of them
    are needed, and each has its forecast.

    Args:
        config: The bounds.
        idle: Seconds of each pause for which a connection may be open.
        remembered: Pauses to learn from; 0 makes no forecast.

    Attributes:
        size: How many connections there should be, as of the last `resize`.
        forecast: How many the forecasts asked for then, those in use included.
        grown: Times it grew.
        shrunk: Times it shrank.
    """

    def __init__(self, config: PoolConfig, idle: float, remembered: int = _REMEMBERED) -> None:
        self.size = config.min_size
        self.forecast = 0
        self.grown = 0
        self.shrunk = 0
        self._config = config
        self._idle = idle
        self._remembered = remembered
        self._forecasts: list[DemandForecast] = []
        self._in_use = 0

    def acquired(self, now: float) -> None:
        """Note that a caller needs one connection more."""
        if self._in_use == len(self._forecasts):
            self._forecasts.append(DemandForecast(self._idle, self._remembered))
        self._forecasts[self._in_use].acquired(now)
        self._in_use += 1

    def released(self, now: float) -> None:
        """Note that a caller needs its connection no more."""
        self._in_use -= 1
        self._forecasts[self._in_use].released(now)

    def resize(self, now: float) -> None:
        """Decide how many connections there should be."""
        unused = self._forecasts[self._in_use :]
        self.forecast = self._in_use + sum(forecast.expects(now) for forecast in unused)
        size = min(max(self.forecast, self._config.min_size), self._config.max_size)
        self.grown += size > self.size
        self.shrunk += size < self.size
        self.size = size
