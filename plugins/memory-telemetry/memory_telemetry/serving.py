"""Serving metrics to Prometheus over HTTP, at ``/metrics``."""

from __future__ import annotations

from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from memory_core.errors import StorageUnavailableError
from memory_telemetry.prometheus import MemoryCollector, PublishedCollector

__all__ = ["MetricsServer", "serve_metrics", "serve_published_metrics"]


class MetricsServer:
    """A server on a thread of its own.

    Args:
        server: the server.
        thread: runs it.

    Attributes:
        url: where Prometheus finds the metrics.
    """

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread
        host, port = server.server_address[:2]
        shown = f"[{host}]" if ":" in str(host) else host
        self.url = f"http://{shown}:{port}/metrics"

    def wait(self) -> None:
        """Wait until it is closed."""
        while self._thread.is_alive():
            # A wait without a bound would hold back Ctrl-C on some systems.
            self._thread.join(0.5)

    def close(self) -> None:
        """Stop serving. Idempotent."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def serve_metrics(port: int, *, host: str = "127.0.0.1") -> MetricsServer:
    """Serve the metrics of this process.

    Args:
        port: the port; 0 for a free one.
        host: the address to listen at, by default for this host alone.

    Raises:
        StorageUnavailableError: the port is taken, or the address is not one of this host.
    """
    return _serve(MemoryCollector(), port, host)


def serve_published_metrics(port: int, *, host: str = "127.0.0.1") -> MetricsServer:
    """Serve the metrics that processes of this host publish; arguments and errors as `serve_metrics`."""
    return _serve(PublishedCollector(), port, host)


def _serve(collector: Collector, port: int, host: str) -> MetricsServer:
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise StorageUnavailableError(f"cannot serve metrics at {host}:{port}: {error}") from error
    return MetricsServer(server, thread)
