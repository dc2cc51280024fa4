"""Metrics and traces of memory-core for Prometheus and OpenTelemetry."""

from memory_telemetry.instrumentation import Instrumentation, instrument
from memory_telemetry.prometheus import MemoryCollector, PublishedCollector
from memory_telemetry.serving import MetricsServer, serve_metrics, serve_published_metrics

__all__ = [
    "Instrumentation",
    "MemoryCollector",
    "MetricsServer",
    "PublishedCollector",
    "instrument",
    "serve_metrics",
    "serve_published_metrics",
]
