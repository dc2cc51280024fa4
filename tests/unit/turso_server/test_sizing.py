"""The pool's size: what is in use, and what is expected to be needed soon."""

from __future__ import annotations

import pytest

from memory_storage_turso.config import PoolConfig
from memory_storage_turso.server.sizing import DemandForecast, PoolSizer

IDLE = 60.0


def taught(*pauses: float, remembered: int = 8) -> tuple[DemandForecast, float]:
    """A forecast that has seen these pauses, and when the last use ended."""
    forecast, now = DemandForecast(IDLE, remembered), 0.0
    forecast.acquired(now)
    forecast.released(now)
    for pause in pauses:
        now += pause
        forecast.acquired(now)
        forecast.released(now)
    return forecast, now


def open_for(forecast: DemandForecast, released: float, until: float = 1_000.0) -> list[float]:
    """The seconds of the next pause in which it should be open."""
    return [each for each in range(int(until)) if forecast.expects(released + each)]


@pytest.mark.parametrize(
    "pauses",
    [
        (),
        (120.0, 120.0),
        (1.0, 2.0, 1.0, 3.0, 2.0),
        (30.0, 50.0, 40.0, 55.0),
        (70.0, 150.0, 400.0, 90.0, 800.0, 250.0),
    ],
    ids=["never used", "too few", "short ones", "within the idle time", "no rhythm"],
)
def test_without_a_rhythm_it_stays_open_after_its_last_use(pauses: tuple[float, ...]) -> None:
    assert open_for(*taught(*pauses)) == [*range(60)]


def test_with_a_rhythm_it_is_open_when_it_is_needed_again() -> None:
    forecast, released = taught(120.0, 114.0, 126.0, 122.0)
    times = open_for(forecast, released)
    assert times == [*range(10), *range(95, 145)]


def test_a_pause_takes_no_more_open_time_than_without_a_forecast() -> None:
    for pauses in ([70.0] * 3, [65.0, 100.0, 80.0], [600.0, 640.0, 620.0], [61.0] * 8):
        assert len(open_for(*taught(*pauses))) <= IDLE


def test_one_long_pause_among_many_does_not_end_a_rhythm() -> None:
    assert 120 in open_for(*taught(*[120.0] * 7, 5_000.0))
    assert 120 not in open_for(*taught(*[120.0] * 6, 5_000.0, 300.0))


def test_a_new_rhythm_replaces_the_old_one() -> None:
    forecast, released = taught(*[120.0] * 8, *[300.0] * 8)
    assert 120 not in open_for(forecast, released)
    assert 300 in open_for(forecast, released)


def test_nothing_is_forecast_from_no_pauses() -> None:
    assert open_for(*taught(*[120.0] * 8, remembered=0)) == [*range(60)]


def in_rounds(sizer: PoolSizer, calls: int, rounds: int, pause: float) -> float:
    """Use so many connections at once, again and again; when the last round ended."""
    now = 0.0
    for number in range(rounds):
        now += pause * (number > 0)
        for _ in range(calls):
            sizer.acquired(now)
        for _ in range(calls):
            sizer.released(now)
    return now


def test_size_follows_the_forecasts_within_its_bounds() -> None:
    sizer = PoolSizer(PoolConfig(min_size=2, max_size=8), IDLE)
    ended = in_rounds(sizer, calls=12, rounds=5, pause=120.0)
    sizes: list[int] = []
    for after in (0, 30, 120, 200):
        sizer.resize(ended + after)
        sizes.append(sizer.size)
    assert sizes == [8, 2, 8, 2]
    assert (sizer.grown, sizer.shrunk) == (2, 2)


def test_each_number_of_connections_has_its_own_forecast() -> None:
    sizer = PoolSizer(PoolConfig(), IDLE)
    forecasts: list[int] = []
    for number in range(20):
        now = 120.0 * number
        sizer.resize(now)
        forecasts.append(sizer.forecast)
        calls = 3 if number % 2 else 8
        for _ in range(calls):
            sizer.acquired(now)
        for _ in range(calls):
            sizer.released(now)
    assert forecasts[-4:] == [8, 3, 8, 3]


def test_what_is_in_use_counts() -> None:
    sizer = PoolSizer(PoolConfig(), IDLE)
    for _ in range(5):
        sizer.acquired(0.0)
    sizer.released(0.0)
    sizer.resize(1_000.0)
    assert (sizer.size, sizer.forecast) == (4, 4)
