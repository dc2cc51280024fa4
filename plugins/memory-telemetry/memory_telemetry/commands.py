"""``memory telemetry``."""

from __future__ import annotations

import typer

__all__ = ["app"]

app = typer.Typer(help="Dashboards of the metrics.", no_args_is_help=True)


@app.callback()
def telemetry() -> None:
    """Dashboards of the metrics."""


@app.command()
def grafana() -> None:
    """Print a dashboard for Grafana: import it and choose the data source."""
    from importlib.resources import files

    typer.echo((files("memory_telemetry") / "grafana.json").read_text("utf-8"), nl=False)
