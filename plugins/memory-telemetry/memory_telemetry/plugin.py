"""The plugin of this distribution: the command that writes the dashboard for Grafana."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from memory_core.hookspecs import hookimpl

if TYPE_CHECKING:
    import typer

__all__ = ["memory_cli_commands"]


@hookimpl
def memory_cli_commands() -> Mapping[str, typer.Typer]:
    """``memory telemetry``."""
    from memory_telemetry.commands import app

    return {"telemetry": app}
