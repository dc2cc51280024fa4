"""How large a pool should be: a forecast of demand, and rules against nervousness."""

from __future__ import annotations

import math

from memory_storage_turso.server_config import PoolConfig

#: Weight of the newest sample in the level and in the trend.
_LEVEL_WEIGHT = 0.5
_TREND_WEIGHT = 0.3
#: What is left of the trend after each further step.
_DAMPING = 0.7
_MAX_IDLE_STEPS = 64


class DemandForecast:
    """Double exponential smoothing with a damped trend, which overshoots less after a jump.

    C. C. Holt, "Forecasting seasonals and trends by exponentially weighted moving averages",
    ONR Memorandum 52, 1957; E. S. Gardner and E. McKenzie, "Forecasting trends in time series",
    Management Science 31 (1985).
    """

    def __init__(self) -> None:
        self.level = 0.0
        self.trend = 0.0

    def observe(self, demand: float) -> None:
        """Take in the next sample; samples are evenly spaced."""
        previous, trend = self.level, _DAMPING * self.trend
        self.level = _LEVEL_WEIGHT * demand + (1 - _LEVEL_WEIGHT) * (previous + trend)
        self.trend = _TREND_WEIGHT * (self.level - previous) + (1 - _TREND_WEIGHT) * trend

    def ahead(self, steps: float) -> float:
        """Demand so many samples from now; never below zero."""
        reach = _DAMPING * (1 - _DAMPING**steps) / (1 - _DAMPING)
        return max(self.level + reach * self.trend, 0.0)


class PoolSizer:
    """Decides the size of a pool from the demand it sees.

    Demand is the most connections that were in use or waited for at once during a sample. The
    pool grows as soon as forecast demand would use more than the target share of it, and shrinks
    only when utilisation has been under a lower bound for a while after the last change; between
    the two bounds it is left alone.

    Attributes:
        size: How many connections there may be now.
        grown: Times it grew.
        shrunk: Times it shrank.
    """

    def __init__(self, config: PoolConfig, now: float) -> None:
        self.size = config.min_size
        self.grown = 0
        self.shrunk = 0
        self._config = config
        self._forecast = DemandForecast()
        self._peak = 0
        self._sample_ends = now + config.sample_interval
        self._changed_at = now

    @property
    def forecast(self) -> float:
        """Connections that will be wanted, ``forecast_horizon`` from now."""
        return self._forecast.ahead(self._config.forecast_horizon / self._config.sample_interval)

    def observe(self, demand: int, now: float) -> bool:
        """Take in how many connections are in use or waited for at this moment.

        Returns:
            Whether the size changed.
        """
        self._peak = max(self._peak, demand)
        if now < self._sample_ends:
            # A queue does not wait for the sample to end.
            return demand > self.size and self._grow(demand, now)
        self._close_sample(demand, now)
        wanted = max(self.forecast, demand)
        if wanted > self.size * self._config.target_utilisation:
            return self._grow(wanted / self._config.target_utilisation, now)
        if wanted < self.size * self._config.shrink_below:
            return self._shrink(wanted / self._config.target_utilisation, now)
        return False

    def _close_sample(self, demand: int, now: float) -> None:
        interval = self._config.sample_interval
        elapsed = int((now - self._sample_ends) / interval)
        self._forecast.observe(self._peak)
        # Nothing was asked for in the samples that passed unseen since.
        for _ in range(min(elapsed, _MAX_IDLE_STEPS)):
            self._forecast.observe(0)
        self._peak = demand
        self._sample_ends = now + interval

    def _grow(self, wanted: float, now: float) -> bool:
        size = min(math.ceil(wanted), self._config.max_size)
        if size <= self.size:
            return False
        self.size = size
        self.grown += 1
        self._changed_at = now
        return True

    def _shrink(self, wanted: float, now: float) -> bool:
        if now - self._changed_at < self._config.shrink_cooldown:
            return False
        # At most half at once: demand that pauses often comes back.
        size = max(math.ceil(wanted), math.ceil(self.size / 2), self._config.min_size)
        if size >= self.size:
            return False
        self.size = size
        self.shrunk += 1
        self._changed_at = now
        return True
