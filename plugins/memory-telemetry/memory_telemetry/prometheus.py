"""Collectors for ``prometheus-client``: the metrics of this process, and those that others publish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from memory_core.metrics import (
    REGISTRY,
    Distribution,
    MetricType,
    PublishedMetric,
    publishable,
    published_metrics,
)

__all__ = ["MemoryCollector", "PublishedCollector"]

_MOST_BUCKETS = 40
_STEP = 4
"""Of many buckets every fourth bound is exported: one for each doubling."""

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class MemoryCollector(Collector):
    """The metrics of every memory of this process, for a registry of ``prometheus_client``.

    Counters of closed memories stay.
    """

    def collect(self) -> Iterator[Family]:
        """The metrics as they are now."""
        yield from _families((metric, {}) for metric in publishable(REGISTRY.collect()))

    def describe(self) -> list[Family]:
        """Nothing: which metrics there are depends on what is open."""
        return []


class PublishedCollector(Collector):
    """The metrics that processes of this host publish, with the labels ``pid`` and ``location``."""

    def collect(self) -> Iterator[Family]:
        """The metrics as they were last published."""
        processes = published_metrics()
        yield from _families(
            (metric, {"pid": str(process.pid), "location": process.location})
            for process in processes
            for metric in process.metrics
        )

    def describe(self) -> list[Family]:
        """Nothing: which metrics there are depends on what is open."""
        return []


def _families(found: Iterable[tuple[PublishedMetric, Mapping[str, str]]]) -> Iterator[Family]:
    by_name: dict[str, list[tuple[PublishedMetric, Mapping[str, str]]]] = {}
    for metric, further in found:
        by_name.setdefault(metric.name, []).append((metric, {**metric.labels, **further}))
    for name, samples in by_name.items():
        names = sorted({label for _, labels in samples for label in labels})
        yield _family(name, names, samples)


def _family(
    name: str, names: list[str], samples: list[tuple[PublishedMetric, Mapping[str, str]]]
) -> Family:
    first = samples[0][0]
    values = [[labels.get(label, "") for label in names] for _, labels in samples]
    if first.type is MetricType.HISTOGRAM:
        histogram = HistogramMetricFamily(name, first.help, labels=names)
        for (metric, _), labels in zip(samples, values, strict=True):
            if metric.distribution is not None:
                histogram.add_metric(
                    labels, _buckets(metric.distribution), metric.distribution.total
                )
        return histogram
    kind = CounterMetricFamily if first.type is MetricType.COUNTER else GaugeMetricFamily
    family = kind(name, first.help, labels=names)
    for (metric, _), labels in zip(samples, values, strict=True):
        family.add_metric(labels, metric.value)
    return family


def _buckets(found: Distribution) -> list[tuple[str, float]]:
    below = list(accumulate(found.counts))
    step = _STEP if len(found.bounds) > _MOST_BUCKETS else 1
    buckets: list[tuple[str, float]] = [
        (f"{found.bounds[place]:.6g}", below[place]) for place in range(0, len(found.bounds), step)
    ]
    return [*buckets, ("+Inf", below[-1])]
