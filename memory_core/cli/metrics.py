"""``memory metrics``: the metrics of running processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memory_core.cli import cells
from memory_core.cli.commands import command
from memory_core.cli.session import Session
from memory_core.cli.streams import say
from memory_core.errors import ConfigurationError, PluginError
from memory_core.metrics import published_metrics
from memory_core.plugins import load_class

if TYPE_CHECKING:
    from memory_core.metrics import ProcessMetrics, PublishedMetric

__all__ = ["add_commands"]

_NONE = 'no process publishes its metrics: open its memory with metrics="publish"'


def add_commands(app: typer.Typer) -> None:
    """Add the commands to an application."""
    command(app, "metrics")(metrics)


def metrics(
    session: Session,
    *,
    serve: Annotated[
        str | None,
        typer.Option(
            "--serve",
            metavar="[HOST:]PORT",
            help="Serve them to Prometheus until Ctrl-C; needs memory-telemetry.",
        ),
    ] = None,
) -> None:
    """Show the metrics of every process of this host that publishes them."""
    if serve is not None:
        _serve(serve)
        return
    processes = published_metrics()
    if session.as_json:
        import msgspec

        session.write_json(msgspec.to_builtins(processes))
        return
    from memory_core.cli import output

    if not processes:
        output.console().print(output.plain(_NONE))
        return
    for process in processes:
        for part in (_operations(process), _others(process)):
            output.console().print(part)


def _serve(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or int(port) > 65_535:
        raise ConfigurationError(f"--serve {address}: expected [HOST:]PORT, such as 9464")
    try:
        serve: Any = load_class("memory_telemetry.serving:serve_published_metrics")
    except PluginError as error:
        raise ConfigurationError(
            f"--serve needs memory-telemetry (pip install memory-telemetry): {error}"
        ) from error
    server = serve(int(port), host=host or "127.0.0.1")
    say(f"serving {server.url}; end it with Ctrl-C")
    try:
        server.wait()
    finally:
        server.close()


def _operations(process: ProcessMetrics) -> Any:
    from memory_core.cli import output

    numbers = ("calls", "p50 ms", "p95 ms", "p99 ms")
    columns = ["operation", "kind", "outcome", *((name, cells.RIGHT) for name in numbers)]
    rows: list[list[Any]] = []
    for metric in process.metrics:
        found, labels = metric.distribution, metric.labels
        if "operation" in labels and found is not None and found.count:
            names = [labels[name] for name in ("operation", "kind", "outcome")]
            times = (f"{value * 1000:.3f}" for value in (found.p50, found.p95, found.p99))
            rows.append([*names, found.count, *times])
    seen = max(0.0, time.time() - process.updated)
    title = f"Process {process.pid}, {process.location}, seen {seen:.0f} s ago"
    return output.table(title, columns, rows)


def _others(process: ProcessMetrics) -> Any:
    from memory_core.cli import output

    rows = [
        [metric.name.removeprefix("memory_core_"), _labels(metric), _value(metric)]
        for metric in process.metrics
        if metric.value and "operation" not in metric.labels
    ]
    return output.table("", ["metric", "labels", ("value", cells.RIGHT)], rows)


def _labels(metric: PublishedMetric) -> str:
    return ", ".join(value for name, value in metric.labels.items() if name != "backend")


def _value(metric: PublishedMetric) -> str:
    found = metric.distribution
    if found is None:
        return (
            f"{metric.value:,.0f}" if metric.value == int(metric.value) else f"{metric.value:,.3f}"
        )
    unit = " s" if metric.name.endswith("_seconds") else ""
    return f"p50 {found.p50:.3g}{unit}, p99 {found.p99:.3g}{unit}"
