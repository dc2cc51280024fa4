"""The ``memory`` command."""

from __future__ import annotations

import atexit
import gc

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit; see ``docs/cli.md`` for the commands and exit codes."""
    _collect_rarely()
    from memory_core.cli.app import run
    from memory_core.cli.streams import accept_every_character

    accept_every_character()
    run()


def _collect_rarely() -> None:
    """Make Python's garbage collector run rarely, and not on exit: a command creates many objects, but few
    cycles.

    By default it takes a fifth of the time of a short command, and a sixth of that of an import.
    """
    gc.set_threshold(100_000, 20, 100)
    # On exit Python would look twice at every object of every module.
    atexit.register(gc.freeze)
