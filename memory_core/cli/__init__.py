"""The ``memory`` command."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit; see ``docs/cli.md`` for the commands and exit codes."""
    from memory_core.cli.app import run
    from memory_core.cli.streams import accept_every_character

    accept_every_character()
    run()
