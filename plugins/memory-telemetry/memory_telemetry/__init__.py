"""Metrics and traces of memory-core for Prometheus and OpenTelemetry.

Names are loaded when they are first used, so that discovering the plugin loads neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "Instrumentation": "instrumentation",
    "MemoryCollector": "prometheus",
    "PublishedCollector": "prometheus",
    "instrument": "instrumentation",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'serving')}"), name)
