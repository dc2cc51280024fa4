"""What the plugin contributes: the command ``memory dashboard``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from memory_core import hookimpl

if TYPE_CHECKING:
    import typer

__all__ = ["memory_cli_commands"]


@hookimpl
def memory_cli_commands() -> Mapping[str, typer.Typer]:
    """The command, whose web server is loaded when it runs."""
    from memory_dashboard.command import command_line

    return {"dashboard": command_line()}
