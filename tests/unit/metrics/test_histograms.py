"""Histograms: percentiles within the width of a bucket, whatever is recorded."""

import math

from hypothesis import given
from hypothesis import strategies as st

from memory_core.metrics import SIZES, Histogram

DURATIONS = st.lists(st.floats(1.01e-6, 100.0), min_size=1, max_size=700)


@given(DURATIONS, st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_errs_by_at_most_the_width_of_a_bucket(values, share):
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    ordered = sorted(values)
    exact = ordered[math.ceil(share * len(ordered)) - 1]
    assert exact / 2**0.26 <= histogram.percentile(share) <= exact * 2**0.26


@given(DURATIONS)
def test_count_total_and_largest_are_exact(values):
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    assert histogram.count == len(values)
    assert abs(histogram.total - sum(values)) <= 1e-9 * sum(values)
    assert histogram.largest == max(values)


@given(DURATIONS, DURATIONS)
def test_added_histograms_are_those_of_all_values(first, second):
    apart, whole = [Histogram(), Histogram()], Histogram()
    for histogram, values in zip(apart, (first, second), strict=True):
        for value in values:
            histogram.record(value)
            whole.record(value)
    apart[0].add(apart[1])
    assert apart[0].counts == whole.counts
    assert apart[0].largest == whole.largest


def test_values_beyond_the_last_bound_are_counted():
    histogram = Histogram()
    for value in (0.0, 1e6):
        histogram.record(value)
    assert histogram.count == 2
    assert histogram.percentile(1.0) == 1e6


def test_sizes_have_whole_percentiles():
    histogram = Histogram(SIZES)
    for size in (1, 1, 1, 3):
        histogram.record(size)
    assert histogram.percentile(0.5) == 1
    assert histogram.percentile(1.0) == 3


def test_an_empty_histogram_has_percentiles_of_zero():
    assert Histogram().summary() == dict.fromkeys(("count", "mean", "p50", "p95", "p99", "max"), 0)
