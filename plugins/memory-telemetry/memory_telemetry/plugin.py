"""The plugin of this distribution: the command that writes the dashboard for Grafana."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import typer

from memory_core.hookspecs import hookimpl

__all__ = ["memory_cli_commands"]

_app = typer.Typer(help="Telemetry: dashboards.", no_args_is_help=True)


@_app.callback()
def _telemetry() -> None:  # pyright: ignore[reportUnusedFunction]  # with it, typer takes "grafana" for a command
    pass


@_app.command()
def grafana() -> None:
    """Print a dashboard for Grafana: import it and choose the data source."""
    typer.echo((files("memory_telemetry") / "grafana.json").read_text("utf-8"), nl=False)


@hookimpl
def memory_cli_commands() -> Mapping[str, typer.Typer]:
    """Commands by name."""
    return {"telemetry": _app}
