"""Metrics: what open stores count, and how long their operations take; in this process and in others."""

from memory_core.metrics.declared import METRICS, PREFIX, Metric, MetricType
from memory_core.metrics.histograms import SECONDS, SIZES, Histogram
from memory_core.metrics.modes import MetricsMode, metrics_mode
from memory_core.metrics.observing import Call, Observer, Scope
from memory_core.metrics.publishing import (
    Distribution,
    ProcessMetrics,
    PublishedMetric,
    Publisher,
    publishable,
    published_metrics,
)
from memory_core.metrics.registry import REGISTRY, Registry, Sample, StoreMetrics

__all__ = [
    "METRICS",
    "PREFIX",
    "REGISTRY",
    "SECONDS",
    "SIZES",
    "Call",
    "Distribution",
    "Histogram",
    "Metric",
    "MetricType",
    "MetricsMode",
    "Observer",
    "ProcessMetrics",
    "PublishedMetric",
    "Publisher",
    "Registry",
    "Sample",
    "Scope",
    "StoreMetrics",
    "metrics_mode",
    "publishable",
    "published_metrics",
]
